package asd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/generation"

	"github.com/google/uuid"
	"golang.org/x/sync/semaphore"

	"openvstorage/internal/bell"
)

// ASD is an open store. It implements osd.OSD; all methods are safe for
// concurrent use.
type ASD struct {
	opt  Options
	lock io.Closer

	claiming  chan struct{}                   // holds one while a claim is written
	identity  Identity                        // its Owner and Generation guarded by claiming
	claimed   atomic.Pointer[generation.Mark] // changed under claiming
	claimTurn uint64                          // of the block that holds it, 0: there is none yet; guarded by claiming

	// mu guards the index, what segment marks so, and the following. It is
	// never held during I/O, and by the writer only as long as it takes to
	// enter a batch.
	mu        sync.RWMutex
	index     index
	segments  map[uint32]*segment
	spares    []spare
	reserve   int64  // bytes of the reserve, 0: there is none
	other     int64  // bytes of files that are no open segment: checkpoint, unreadable segments
	seq       uint64 // of the newest batch in the index
	reason    *readOnly
	unread    *unreadable // Open could not read what it needed; never changed afterwards
	closed    bool
	saved     uint64 // seq of the newest checkpoint
	savedSize int64  // its length
	appended  int64  // bytes of batches since then
	died      uint64 // values that were deleted or replaced
	absent    uint64 // values in the index whose segments are gone
	damage    []Damage

	// These are the writer's; the opener's before it runs.
	accepting  bool // people say that the ASD is to go on without what cannot be read
	current    *segment
	lastNumber uint32
	nextSeq    uint64
	durable    uint64
	batch      batch
	scratch    []byte
	mark       []byte

	files   *Descriptors
	tables  tables
	buffers chan []byte // blockSize + 8 bytes each

	queue   chan *request
	room    *semaphore.Weighted
	stop    chan struct{}
	stopped chan struct{} // the writer has ended
	compact bell.Bell     // there may be something to compact
	tasks   sync.WaitGroup
	spared  int             // names of spares that were used; maintain's
	ctx     context.Context // of background tasks
	cancel  context.CancelFunc

	inspection inspection

	stats counters
}

var _ osd.OSD = (*ASD)(nil)

// queueMax is how many Applys wait at most; what they hold is bounded by
// Options.QueueBytes.
const queueMax = 1024

// Open opens the ASD in a directory and brings its index up to date. One
// process at a time can have it open. Damage costs what it hits: Open succeeds
// and Damage tells.
func Open(opt Options) (*ASD, error) {
	opt = opt.withDefaults()
	a := &ASD{
		opt:      opt,
		claiming: make(chan struct{}, 1),
		segments: make(map[uint32]*segment),
		nextSeq:  1,
		scratch:  aligned(nil, blockSize),
		mark:     aligned(nil, blockSize),
		buffers:  make(chan []byte, 64),
		queue:    make(chan *request, queueMax),
		room:     semaphore.NewWeighted(opt.QueueBytes),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
		files:    opt.Descriptors,
	}
	a.tables.init(opt.TableCacheBytes)
	a.ctx, a.cancel = context.WithCancel(context.Background())
	if err := a.open(); err != nil {
		a.cancel()
		a.closeFiles()
		return nil, fmt.Errorf("asd: open %s: %w", opt.Dir, err)
	}
	go a.run()
	a.tasks.Go(a.maintain)
	a.compact.Ring()
	return a, nil
}

func (a *ASD) open() (err error) {
	// First of all: locking would make a file in the directory that an
	// unmounted disk leaves behind.
	id, version, err := readIdentity(a.opt.FS, a.opt.Dir)
	if err != nil {
		return err
	}
	a.identity = id
	if a.lock, err = a.opt.FS.Lock(path.Join(a.opt.Dir, LockName)); err != nil {
		return err
	}
	claimed, turn, _, err := readClaim(a.opt.FS, a.opt.Dir)
	if err != nil {
		return err
	}
	if turn == 0 && id.Generation > 0 {
		return fmt.Errorf("%s is missing, and by its identity the ASD has seen generation %d; restore the file, or replace the disk", path.Join(a.opt.Dir, claimName), id.Generation)
	}
	a.claimTurn = turn
	a.claimed.Store(&claimed)
	if err := a.replay(); err != nil {
		return err
	}
	if held, err := a.opt.FS.Stat(path.Join(a.opt.Dir, LockName)); err == nil {
		a.inspection.lock = held
	}
	if on, err := a.opt.FS.Statfs(a.opt.Dir); err == nil {
		a.look(on)
	}
	a.migrate(version)
	if a.reason == nil {
		a.makeReserve()
	}
	return nil
}

// Close ends all work and writes a checkpoint of the index, so that the next
// Open reads no segment. Applys that wait are refused.
func (a *ASD) Close() error {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return osd.ErrClosed
	}
	a.closed = true
	a.mu.Unlock()
	a.claiming <- struct{}{} // a claim that is being written
	<-a.claiming
	a.cancel()
	close(a.stop)
	<-a.stopped
	a.tasks.Wait()
	a.seal()
	var err error
	if a.reason == nil && a.seq != a.saved {
		err = a.checkpoint()
	}
	if err = errors.Join(err, a.closeFiles()); err != nil {
		return fmt.Errorf("asd: close %s: %w", a.opt.Dir, err)
	}
	return nil
}

func (a *ASD) closeFiles() error {
	for _, s := range a.segments {
		a.leave(s) // readers that have not ended close the file
	}
	if a.current != nil && a.current.temp != "" {
		a.seal()
	}
	if a.lock == nil {
		return nil
	}
	return a.lock.Close()
}

// ID implements osd.OSD.
func (a *ASD) ID() uuid.UUID { return a.identity.ID }

// Dir is the ASD's directory.
func (a *ASD) Dir() string { return a.opt.Dir }

// Damage returns what Open found bad that had been synced, the first 1000.
func (a *ASD) Damage() []Damage {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.Clone(a.damage)
}

// writable returns why the ASD takes no writes, or nil.
func (a *ASD) writable() error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.closed {
		return osd.ErrClosed
	}
	if a.reason != nil {
		return a.reason
	}
	return nil
}

// fail makes the ASD read-only: what the medium has of the current segment is
// not known (rule P6).
func (a *ASD) fail(cause error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.reason == nil {
		a.reason = &readOnly{cause}
		a.opt.Logger.Error("asd: no more writes", "asd", a.identity.ID, "dir", a.opt.Dir, "err", cause)
	}
	return a.reason
}

// Usage implements osd.OSD.
func (a *ASD) Usage(ctx context.Context) (osd.Usage, error) {
	if err := ctx.Err(); err != nil {
		return osd.Usage{}, err
	}
	a.mu.RLock()
	closed := a.closed
	u := osd.Usage{Used: a.usedLocked(), Keys: uint64(a.index.keys), Absent: a.absent}
	a.mu.RUnlock()
	if closed {
		return osd.Usage{}, osd.ErrClosed
	}
	on, err := a.opt.FS.Statfs(a.opt.Dir)
	if err != nil {
		return osd.Usage{}, fmt.Errorf("asd: %s: %w", a.opt.Dir, err)
	}
	on, u.Trouble = a.look(on)
	limit, capacity, on := a.limitsOn(u.Used, on)
	a.mu.RLock()
	if a.reason != nil {
		u.ReadOnly = a.reason
	}
	a.mu.RUnlock()
	u.Capacity, u.Shared = capacity, on.ID
	u.Full = u.ReadOnly != nil || u.Used+2*blockSize > limit || on.Free < 2*blockSize
	if !u.Full {
		u.Room = min(limit-u.Used, on.Free)
	}
	return u, nil
}

// usedLocked is what the ASD takes on the disk. mu is held. Spares count as
// free: they are given up before anything is refused.
func (a *ASD) usedLocked() uint64 {
	n := a.other + a.reserve + a.savedSize + blockSize // identity
	for _, s := range a.segments {
		n += s.size
	}
	return uint64(n)
}

// limits returns how much may be used before puts are refused, the capacity,
// and the file system with what it has left, spares included.
func (a *ASD) limits(used uint64) (limit, capacity uint64, fs disk.Usage, err error) {
	fs, err = a.opt.FS.Statfs(a.opt.Dir)
	if err != nil {
		return 0, 0, fs, err
	}
	limit, capacity, fs = a.limitsOn(used, fs)
	return limit, capacity, fs, nil
}

// limitsOn is limits with what the file system says.
func (a *ASD) limitsOn(used uint64, fs disk.Usage) (limit, capacity uint64, left disk.Usage) {
	a.mu.RLock()
	for _, s := range a.spares {
		fs.Free += uint64(s.size)
	}
	a.mu.RUnlock()
	if a.opt.Leave != nil {
		fs.Free -= min(fs.Free, a.opt.Leave())
	}
	capacity = a.opt.Capacity
	if capacity == 0 {
		capacity = used + fs.Free
	}
	limit = uint64(float64(capacity) * a.opt.FullAt)
	// So much is left for compaction to copy a segment.
	if segment := uint64(a.opt.SegmentBytes); capacity >= 8*segment {
		limit = min(limit, capacity-segment)
	}
	return limit, capacity, fs
}

// Stats is what an ASD has done since it was opened, and what it holds.
type Stats struct {
	ValueBytes     uint64 // values written
	HeadBytes      uint64 // heads, keys, CRC tables, padding, marks
	TombstoneBytes uint64 // entries of deletes
	CompactBytes   uint64 // all that compaction wrote again
	IndexBytes     uint64 // checkpoints written
	ReadBytes      uint64 // values and CRC tables read, compaction's too
	Batches        uint64
	Syncs          uint64
	Applies        uint64
	Reads          uint64
	Corrupt        uint64 // values found corrupt by reading

	Keys        int
	IndexMemory int // bytes
	Segments    int
	Spares      int
	Dead        uint64 // bytes of segments that hold nothing any more
}

type counters struct {
	valueBytes, headBytes, tombstoneBytes, compactBytes, indexBytes, readBytes atomic.Uint64
	batches, syncs, applies, reads, corrupt                                    atomic.Uint64
}

// Stats returns counters.
func (a *ASD) Stats() Stats {
	c := &a.stats
	s := Stats{
		ValueBytes: c.valueBytes.Load(), HeadBytes: c.headBytes.Load(), TombstoneBytes: c.tombstoneBytes.Load(),
		CompactBytes: c.compactBytes.Load(), IndexBytes: c.indexBytes.Load(), ReadBytes: c.readBytes.Load(),
		Batches: c.batches.Load(), Syncs: c.syncs.Load(), Applies: c.applies.Load(), Reads: c.reads.Load(), Corrupt: c.corrupt.Load(),
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	s.Keys, s.IndexMemory, s.Segments, s.Spares = a.index.keys, a.index.bytes, len(a.segments), len(a.spares)
	oldest := a.oldestLocked()
	for _, g := range a.segments {
		s.Dead += uint64(a.deadLocked(g, oldest))
	}
	return s
}
