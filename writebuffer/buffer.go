package writebuffer

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/sco"

	"github.com/google/uuid"

	"openvstorage/internal/bell"
	"openvstorage/internal/broadcast"
)

// Limits of Options.Bytes and of the SCO size that follows from it.
const (
	BytesDefault = 2 << 30
	BytesMin     = 64 << 20
	scoSizeMax   = 16 << 20
	scoShare     = 16 // an SCO is at most this share of the buffer
	tlogShare    = 8  // a TLog closes at this share of the buffer
	pressureFill = 0.5

	FilesDefault = 1024
	FilesMin     = 16
)

// rawSuffix marks files of the pool that are not pre-written.
const rawSuffix = ".raw"

// Options configure a Buffer.
type Options struct {
	FS    disk.FS
	Dir   string
	Bytes int64 // bytes of SCO files on disk at most; default 2 GiB, at least 64 MiB
	Ready int   // free files kept pre-written ahead of need; default 8
	// Files bounds how many files of vDisks are open; default 1024, at least 16. A
	// vDisk that is being written needs two to four, one that rests none.
	Files  int
	Random func() uint64
	Logger *slog.Logger
	// OnScarce is called each second while the file system has little room; must
	// not block.
	OnScarce func()
}

// Buffer is the write buffer of one directory. Safe for concurrent use.
type Buffer struct {
	opt     Options
	scoSize int64
	max     int          // files, by Options.Bytes
	limit   atomic.Int64 // files that its file system has room for, at most max
	files   *openFiles

	mu struct {
		sync.Mutex
		raw           []string            // names in the pool, to be pre-written
		free          []string            // names in the pool
		files         int                 // SCO-sized files in existence, in whatever state
		nextFree      int                 // next name in the pool
		evictable     *list.List          // of *SCO: stored, oldest first
		narrow        *list.List          // of *SCO: stored, their objects not at full width yet
		evictedNarrow int64               // how many of those were evicted
		changed       broadcast.Broadcast // a waiter should look again
		waiting       int
		wanted        int // calls of acquire
		logs          map[uuid.UUID]*Log
		turns         map[string]*sync.Mutex // of those who make names, by directory
		owed          map[string]bool        // names that were taken away, perhaps not durably
		room          room
		closed        bool
	}
	dirty   atomic.Int64 // SCO files that may not be evicted
	pressed func()       // called, without locks, when somebody waits and nothing can be evicted

	fill      bell.Bell
	look      bell.Bell    // at the room that there is
	asked     atomic.Bool  // a file was asked for since the prewriter looked
	toldFiles atomic.Int64 // when it was logged that somebody waits for a descriptor, Unix nanoseconds
	stop      context.CancelFunc
	done      sync.WaitGroup
}

// ErrClosed is returned after Close.
var ErrClosed = errors.New("writebuffer: closed")

// Open takes the directory. What is left of vDisks in it stays until OpenLog
// or Discard is called for them.
func Open(opt Options) (*Buffer, error) {
	if opt.Bytes == 0 {
		opt.Bytes = BytesDefault
	}
	if opt.Bytes < BytesMin {
		return nil, fmt.Errorf("write buffer of %d bytes: it needs at least %d", opt.Bytes, BytesMin)
	}
	if opt.Ready == 0 {
		opt.Ready = 8
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Files == 0 {
		opt.Files = FilesDefault
	}
	files := newOpenFiles(patientFS{opt.FS}, max(opt.Files, FilesMin))
	opt.FS = files
	b := &Buffer{opt: opt, files: files}
	b.mu.evictable, b.mu.narrow = list.New(), list.New()
	b.mu.logs = make(map[uuid.UUID]*Log)
	b.mu.turns = make(map[string]*sync.Mutex)
	b.mu.owed = make(map[string]bool)
	if err := opt.FS.MkdirAll(b.poolDir(), 0o700); err != nil {
		return nil, err
	}
	if err := b.shape(); err != nil {
		return nil, err
	}
	// With a lost name of the buffer itself, all that was flushed to it is lost.
	for _, dir := range []string{opt.Dir, path.Dir(opt.Dir)} {
		if err := opt.FS.SyncDir(dir); err != nil {
			return nil, err
		}
	}
	if err := b.adopt(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	b.measure()
	b.done.Go(func() { b.prewriter(ctx) })
	b.done.Go(func() { b.keeper(ctx) })
	return b, nil
}

const poolName = "pool"

func (b *Buffer) poolDir() string { return path.Join(b.opt.Dir, poolName) }

func (b *Buffer) volumeDir(v uuid.UUID) string { return path.Join(b.opt.Dir, v.String()) }

// countVolumes adds the SCO files of vDisks that are still to be recovered, so
// that the budget holds from the start.
func (b *Buffer) countVolumes() error {
	ids, err := b.Volumes()
	if err != nil {
		return err
	}
	for _, id := range ids {
		names, err := b.opt.FS.ReadDir(b.volumeDir(id))
		if err != nil {
			// That vDisk is not opened (Recover meets the same), the others are.
			b.opt.Logger.Warn("write buffer: a vDisk's files cannot be counted", "vdisk", id, "err", err)
			continue
		}
		for _, name := range names {
			if _, err := sco.ParseName(name); err == nil {
				b.mu.files++
			}
		}
	}
	return nil
}

// OnPressure sets what is called when a writer waits for a file and no file
// can be evicted: the caller should close TLogs so that more gets stored.
func (b *Buffer) OnPressure(fn func()) { b.pressed = fn }

// SCOSize is the size of an SCO file in bytes.
func (b *Buffer) SCOSize() int64 { return b.scoSize }

// TLogBytes is how many bytes of SCOs a TLog covers before it closes: a share
// of the buffer, and less when the buffer fills, so that files come free in
// smaller steps and nobody waits long for one.
func (b *Buffer) TLogBytes() int64 {
	if b.Fill() >= pressureFill {
		return b.Bytes() / tlogShare / 4
	}
	return b.Bytes() / tlogShare
}

// Bytes is the buffer's size: what its file system has room for, at most
// Options.Bytes.
func (b *Buffer) Bytes() int64 {
	if n := b.limit.Load(); n < int64(b.max) {
		return n * b.scoSize
	}
	return b.opt.Bytes
}

// Fill is the share of the buffer that waits for the backend: 0 to 1, or more when
// its file system has less room than it had.
func (b *Buffer) Fill() float64 {
	dirty := float64(b.dirty.Load()) * float64(b.scoSize)
	return dirty / float64(max(b.Bytes(), b.scoSize))
}

// Waiting reports whether a writer waits for room, or the file system lacks some.
func (b *Buffer) Waiting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.waiting > 0 || time.Since(b.mu.room.lackedAt) < b.mu.room.hold
}

// Usage is what the buffer holds now.
type Usage struct {
	Bytes     int64 // of SCO files on disk
	Limit     int64 // what the file system has room for, at most Wanted
	Wanted    int64 // Options.Bytes
	Dirty     int64 // of files that may not be evicted
	Free      int64 // of files in the pool
	Evictable int64
	Narrow    int64 // of files whose objects are not at full width, evicted after all others
	// EvictedNarrow is how many bytes of such files had to go all the same.
	EvictedNarrow int64
	// Lacks is why files cannot be made for want of room, nil if they can.
	Lacks error

	// Files are the files of vDisks that are open, FilesLimit how many may be, and
	// FilesClosed how many were closed for the sake of others.
	Files, FilesLimit int
	FilesClosed       uint64
}

// Usage returns what the buffer holds now, in bytes.
func (b *Buffer) Usage() Usage {
	b.files.mu.Lock()
	open, closed := len(b.files.open), b.files.again
	b.files.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	return Usage{
		Bytes: int64(b.mu.files) * b.scoSize, Limit: b.Bytes(), Wanted: b.opt.Bytes, Lacks: b.mu.room.lacked,
		Dirty: b.dirty.Load() * b.scoSize,
		Free:  int64(len(b.mu.free)+len(b.mu.raw)) * b.scoSize, Evictable: int64(b.mu.evictable.Len()) * b.scoSize,
		Narrow: int64(b.mu.narrow.Len()) * b.scoSize, EvictedNarrow: b.mu.evictedNarrow * b.scoSize,
		Files: open, FilesLimit: b.files.max, FilesClosed: closed,
	}
}

// acquire makes the file name of SCO size, from the pool, new, or from an
// evicted SCO, with the name durable on return; sparse says that it is not
// pre-written. It waits while the buffer is full of what is not stored (P6).
func (b *Buffer) acquire(ctx context.Context, name string) (sparse bool, err error) {
	pressed := false
	var lacked error
	b.asked.Store(true)
	b.want(1)
	defer b.want(-1)
	for {
		b.mu.Lock()
		if b.mu.closed {
			b.mu.Unlock()
			return false, ErrClosed
		}
		list, sparse := &b.mu.free, false
		if len(*list) == 0 {
			list, sparse = &b.mu.raw, true
		}
		if from, ok := pop(list); ok {
			b.mu.Unlock()
			b.fill.Ring()
			moved, err := b.take(from, name, list)
			if err == nil || moved || !b.instead(from, err) {
				return sparse, err
			}
			return true, b.create(name)
		}
		// One of the few that everybody needs is tried for, whatever lacks.
		if b.mu.files < max(int(b.limit.Load()), b.fewLocked()) && lacked == nil {
			b.mu.files++
			b.mu.Unlock()
			b.fill.Ring()
			if lacked = b.create(name); !full(lacked) {
				return true, lacked
			}
			b.noFile(lacked) // from here on only what is evicted is taken
			continue
		}
		if b.evictLocked() {
			b.mu.Unlock()
			continue
		}
		if lacked != nil {
			b.mu.Unlock()
			b.press()
			return false, lacked // it is tried again
		}
		changed := b.mu.changed.Next()
		b.mu.waiting++
		b.mu.Unlock()
		// Others may take what was given up for this one, and logs that idle prepare
		// files while it waits: so it looks for those again.
		if !b.steal() && !pressed && b.pressed != nil {
			b.pressed()
		}
		pressed = true
		again := time.NewTimer(stealAgain)
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
		b.mu.Lock()
		b.mu.waiting--
		b.mu.Unlock()
		if err := ctx.Err(); err != nil {
			return false, err
		}
	}
}

// press gets a file for somebody who waits: from an idle log, or by having more
// stored.
func (b *Buffer) press() {
	if !b.steal() && b.pressed != nil {
		b.pressed()
	}
}

func (b *Buffer) want(n int) {
	b.mu.Lock()
	b.mu.wanted += n
	b.mu.Unlock()
}

// stealAgain is how often who waits for a file looks for one that a log has
// prepared and does not use.
const stealAgain = 100 * time.Millisecond

// evictLocked drops the oldest stored SCO, if there is no other one whose object
// has only its accepted width (O5). Its file reaches the pool when its last
// reader lets go. b.mu is held, and released meanwhile.
func (b *Buffer) evictLocked() bool {
	front := b.mu.evictable.Front()
	if front == nil {
		if front = b.mu.narrow.Front(); front == nil {
			return false
		}
		b.mu.evictedNarrow++
		if b.mu.evictedNarrow == 1 {
			b.opt.Logger.Warn("write buffer: full; it has to drop data whose backend object is below full width")
		}
	}
	s := front.Value.(*SCO)
	b.unlistLocked(s)
	b.mu.Unlock()
	s.log.drop(s)
	b.mu.Lock()
	return true
}

// steal takes the prepared SCO from a log that has not begun to use it.
func (b *Buffer) steal() bool {
	for _, l := range b.allLogs() {
		if s := l.giveNext(); s != nil {
			s.release()
			return true
		}
	}
	return false
}

func (b *Buffer) allLogs() []*Log {
	b.mu.Lock()
	defer b.mu.Unlock()
	logs := make([]*Log, 0, len(b.mu.logs))
	for _, l := range b.mu.logs {
		logs = append(logs, l)
	}
	return logs
}

// Close stops the background work. Logs must have been closed.
func (b *Buffer) Close() error {
	b.mu.Lock()
	b.mu.closed = true
	b.mu.changed.Send()
	b.mu.Unlock()
	b.stop()
	b.done.Wait()
	return nil
}

// Discard removes everything that a vDisk left in the buffer, durably. Its Log must
// be closed, or never have been opened. After an error it may be called again.
func (b *Buffer) Discard(v uuid.UUID) error {
	dir := b.volumeDir(v)
	names, err := b.opt.FS.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) && !b.owes(dir) {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = b.withRoom(func() error {
		return b.unnamed(dir, b.opt.FS.RemoveAll, func() error { return b.opt.FS.MkdirAll(dir, 0o700) })
	})
	left, lerr := b.opt.FS.ReadDir(dir)
	if lerr != nil && !errors.Is(lerr, fs.ErrNotExist) {
		left = names // nothing is known to have come free
	}
	for _, name := range names {
		if _, err := sco.ParseName(name); err == nil && !slices.Contains(left, name) {
			b.forget()
		}
	}
	if err == nil {
		b.mu.Lock()
		delete(b.mu.turns, dir)
		delete(b.mu.owed, path.Join(dir, AcceptLoss))
		b.mu.Unlock()
	}
	return err
}

// Prepare makes the directory of a new vDisk, durable on return: from then on
// its absence means that something was lost.
func (b *Buffer) Prepare(v uuid.UUID) error {
	dir, made := b.volumeDir(v), false
	err := b.withRoom(func() error {
		return b.named(b.opt.Dir, func() error {
			_, err := b.opt.FS.Stat(dir)
			if made = made || errors.Is(err, fs.ErrNotExist); err != nil && !made {
				return err
			}
			return b.opt.FS.MkdirAll(dir, 0o700)
		})
	})
	if err != nil && made { // the next one makes the name anew
		if rerr := b.opt.FS.Remove(dir); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// Dir is where the local files of a vDisk are.
func (b *Buffer) Dir(v uuid.UUID) string { return b.volumeDir(v) }

// lossAccepted takes the file AcceptLoss away, durably: a new epoch has begun with
// what there was.
func (b *Buffer) lossAccepted(v uuid.UUID) error {
	return b.unnamed(path.Join(b.volumeDir(v), AcceptLoss), b.opt.FS.Remove, nil)
}

// Holds reports whether the vDisk has files in the buffer, or may have some: what
// cannot be read is not empty (P8).
func (b *Buffer) Holds(v uuid.UUID) bool {
	names, err := b.opt.FS.ReadDir(b.volumeDir(v))
	return err != nil && !errors.Is(err, fs.ErrNotExist) || len(names) > 0
}

// Volumes lists the vDisks that left something in the buffer.
func (b *Buffer) Volumes() ([]uuid.UUID, error) {
	names, err := b.opt.FS.ReadDir(b.opt.Dir)
	if err != nil {
		return nil, err
	}
	var ids []uuid.UUID
	for _, name := range names {
		if id, err := uuid.Parse(name); err == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
