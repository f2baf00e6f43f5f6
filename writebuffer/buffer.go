package writebuffer

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/sco"

	"github.com/google/uuid"
)

// Limits of Options.Bytes and of the SCO size that follows from it.
const (
	BytesDefault = 2 << 30
	BytesMin     = 64 << 20
	scoSizeMax   = 16 << 20
	scoShare     = 16 // an SCO is at most this share of the buffer
	tlogShare    = 8  // a TLog closes at this share of the buffer
	pressureFill = 0.5
)

// rawSuffix marks files of the pool that are not pre-written.
const rawSuffix = ".raw"

// Options configure a Buffer.
type Options struct {
	FS     disk.FS
	Dir    string
	Bytes  int64 // bytes of SCO files on disk at most; default 2 GiB, at least 64 MiB
	Ready  int   // free files kept pre-written ahead of need; default 8
	Random func() uint64
	Logger *slog.Logger
}

// Buffer is the write buffer of one directory. Safe for concurrent use.
type Buffer struct {
	opt     Options
	scoSize int64
	max     int // files

	mu struct {
		sync.Mutex
		raw           []string      // names in the pool, to be pre-written
		free          []string      // names in the pool
		files         int           // SCO-sized files in existence, in whatever state
		nextFree      int           // next name in the pool
		evictable     *list.List    // of *SCO: stored, oldest first
		narrow        *list.List    // of *SCO: stored, their objects not at full width yet
		evictedNarrow int64         // how many of those were evicted
		changed       chan struct{} // closed and renewed when a waiter should look again
		waiting       int
		logs          map[uuid.UUID]*Log
		closed        bool
	}
	dirty   atomic.Int64 // SCO files that may not be evicted
	pressed func()       // called, without locks, when somebody waits and nothing can be evicted

	fill  chan struct{}
	asked atomic.Bool // a file was asked for since the prewriter looked
	stop  context.CancelFunc
	done  sync.WaitGroup
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
	size := min(scoSizeMax, opt.Bytes/scoShare) / sco.ClusterSize * sco.ClusterSize
	b := &Buffer{opt: opt, scoSize: size, max: int(opt.Bytes / size), fill: make(chan struct{}, 1)}
	b.mu.evictable, b.mu.narrow = list.New(), list.New()
	b.mu.changed = make(chan struct{})
	b.mu.logs = make(map[uuid.UUID]*Log)
	if err := opt.FS.MkdirAll(b.poolDir(), 0o755); err != nil {
		return nil, err
	}
	// The buffer's own name too: without it a flush would be of a file that a
	// power cut takes away with its directory.
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
	b.done.Go(func() { b.prewriter(ctx) })
	return b, nil
}

func (b *Buffer) poolDir() string { return path.Join(b.opt.Dir, "pool") }

func (b *Buffer) volumeDir(v uuid.UUID) string { return path.Join(b.opt.Dir, v.String()) }

// adopt counts the files that are there and fills the pool's list.
func (b *Buffer) adopt() error {
	names, err := b.opt.FS.ReadDir(b.poolDir())
	if err != nil {
		return err
	}
	for _, name := range names {
		p := path.Join(b.poolDir(), name)
		number, raw := strings.CutSuffix(name, rawSuffix)
		n, err := strconv.Atoi(number)
		info, serr := b.opt.FS.Stat(p)
		if serr != nil {
			return serr
		}
		if err != nil || info.Size() != b.scoSize || b.mu.files >= b.max {
			if err := b.opt.FS.Remove(p); err != nil {
				return err
			}
			continue
		}
		b.mu.nextFree = max(b.mu.nextFree, n+1)
		if raw {
			b.mu.raw = append(b.mu.raw, name)
		} else {
			b.mu.free = append(b.mu.free, name)
		}
		b.mu.files++
	}
	return b.countVolumes()
}

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
			return err
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
		return b.opt.Bytes / tlogShare / 4
	}
	return b.opt.Bytes / tlogShare
}

// Bytes is the buffer's size.
func (b *Buffer) Bytes() int64 { return b.opt.Bytes }

// Fill is the share of the buffer, 0 to 1, that waits for the backend.
func (b *Buffer) Fill() float64 {
	return float64(b.dirty.Load()) * float64(b.scoSize) / float64(b.opt.Bytes)
}

// Waiting reports whether a writer waits for room.
func (b *Buffer) Waiting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.waiting > 0
}

// Usage is what the buffer holds now.
type Usage struct {
	Bytes     int64 // of SCO files on disk
	Limit     int64
	Dirty     int64 // of files that may not be evicted
	Free      int64 // of files in the pool
	Evictable int64
	Narrow    int64 // of files whose objects are not at full width, evicted after all others
	// EvictedNarrow is how many bytes of such files had to go all the same.
	EvictedNarrow int64
}

// Usage returns what the buffer holds now, in bytes.
func (b *Buffer) Usage() Usage {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Usage{
		Bytes: int64(b.mu.files) * b.scoSize, Limit: b.opt.Bytes,
		Dirty: b.dirty.Load() * b.scoSize,
		Free:  int64(len(b.mu.free)+len(b.mu.raw)) * b.scoSize, Evictable: int64(b.mu.evictable.Len()) * b.scoSize,
		Narrow: int64(b.mu.narrow.Len()) * b.scoSize, EvictedNarrow: b.mu.evictedNarrow * b.scoSize,
	}
}

// wakeLocked lets all waiters look again. b.mu is held.
func (b *Buffer) wakeLocked() {
	close(b.mu.changed)
	b.mu.changed = make(chan struct{})
}

// acquire makes the file name of SCO size, from the pool, new, or from an
// evicted SCO, with the name durable on return; sparse says that it is not
// pre-written. It waits while the buffer is full of what is not stored (P6).
func (b *Buffer) acquire(ctx context.Context, name string) (sparse bool, err error) {
	pressed := false
	b.asked.Store(true)
	for {
		b.mu.Lock()
		if b.mu.closed {
			b.mu.Unlock()
			return false, ErrClosed
		}
		if from, ok := pop(&b.mu.free); ok {
			b.mu.Unlock()
			b.kickPrewriter()
			return false, b.take(from, name, &b.mu.free)
		}
		if from, ok := pop(&b.mu.raw); ok {
			b.mu.Unlock()
			b.kickPrewriter()
			return true, b.take(from, name, &b.mu.raw)
		}
		if b.mu.files < b.max {
			b.mu.files++
			b.mu.Unlock()
			b.kickPrewriter()
			return true, b.create(name)
		}
		if b.evictLocked() {
			b.mu.Unlock()
			continue
		}
		changed := b.mu.changed
		b.mu.waiting++
		b.mu.Unlock()
		if !pressed {
			pressed = true
			if !b.steal() && b.pressed != nil {
				b.pressed()
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
		b.mu.Lock()
		b.mu.waiting--
		b.mu.Unlock()
		if err := ctx.Err(); err != nil {
			return false, err
		}
	}
}

// pop takes the last of a list.
func pop(list *[]string) (string, bool) {
	n := len(*list)
	if n == 0 {
		return "", false
	}
	last := (*list)[n-1]
	*list = (*list)[:n-1]
	return last, true
}

// swap takes a pre-written file for name if there is one at once.
func (b *Buffer) swap(name string) (bool, error) {
	b.mu.Lock()
	from, ok := pop(&b.mu.free)
	b.mu.Unlock()
	if !ok {
		b.kickPrewriter()
		return false, nil
	}
	return true, b.take(from, name, &b.mu.free)
}

// take moves a file of the pool to name; if that fails it goes back to list.
func (b *Buffer) take(from, name string, list *[]string) error {
	if err := b.opt.FS.Rename(path.Join(b.poolDir(), from), name); err != nil {
		b.mu.Lock()
		*list = append(*list, from)
		b.mu.Unlock()
		return err
	}
	if err := b.opt.FS.SyncDir(path.Dir(name)); err != nil {
		b.discardFile(name)
		return err
	}
	return nil
}

// create makes a file that is not pre-written: a writer is waiting. Its first
// syncs are slower; from its second life on it is like the others.
func (b *Buffer) create(name string) error {
	f, err := b.opt.FS.OpenFile(name, disk.Write|disk.Create|disk.Truncate, 0o644)
	if err != nil {
		b.forget()
		return err
	}
	err = errors.Join(f.Truncate(b.scoSize), f.Close())
	if err == nil {
		err = b.opt.FS.SyncDir(path.Dir(name))
	}
	if err != nil {
		b.discardFile(name)
	}
	return err
}

// forget gives up the place of a file that no longer exists.
func (b *Buffer) forget() {
	b.mu.Lock()
	b.mu.files--
	b.wakeLocked()
	b.mu.Unlock()
}

// discardFile removes a file that cannot be reused.
func (b *Buffer) discardFile(name string) {
	if err := b.opt.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.opt.Logger.Warn("write buffer: file not removed", "file", name, "err", err)
	}
	b.forget()
}

// recycle moves a file into the pool, raw if it must be pre-written first.
// Nothing reads or writes it any more.
func (b *Buffer) recycle(name string, raw bool) {
	b.mu.Lock()
	if info, err := b.opt.FS.Stat(name); b.mu.files > b.max || err != nil || info.Size() != b.scoSize {
		b.mu.Unlock()
		b.discardFile(name) // the buffer was larger, or its SCOs of another size
		return
	}
	to := strconv.Itoa(b.mu.nextFree)
	b.mu.nextFree++
	b.mu.Unlock()
	if raw {
		to += rawSuffix
	}
	if err := b.opt.FS.Rename(name, path.Join(b.poolDir(), to)); err != nil {
		b.opt.Logger.Warn("write buffer: file not recycled", "file", name, "err", err)
		b.discardFile(name)
		return
	}
	b.mu.Lock()
	if raw {
		b.mu.raw = append(b.mu.raw, to)
		defer b.kickPrewriter()
	} else {
		b.mu.free = append(b.mu.free, to)
	}
	b.wakeLocked()
	b.mu.Unlock()
}

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

// steal takes a prepared file from a log that has not begun to use it.
func (b *Buffer) steal() bool {
	b.mu.Lock()
	logs := make([]*Log, 0, len(b.mu.logs))
	for _, l := range b.mu.logs {
		logs = append(logs, l)
	}
	b.mu.Unlock()
	for _, l := range logs {
		if s := l.giveNext(); s != nil {
			s.release()
			return true
		}
	}
	return false
}

func (b *Buffer) kickPrewriter() {
	select {
	case b.fill <- struct{}{}:
	default:
	}
}

// quiet is how long no SCO file may have been asked for before the prewriter
// goes beyond Options.Ready.
const quiet = 500 * time.Millisecond

// prewriter keeps pre-written files in the pool: syncing one costs a half to a
// fifth of syncing a new file. A few it makes ahead of need; the rest of a
// buffer that is in use when it is quiet, never in the way of a write.
func (b *Buffer) prewriter(ctx context.Context) {
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	calm := false
	for {
		if name, ok := b.nextPrewrite(calm); ok {
			b.prewriteOne(name)
			calm = false
			select {
			case <-b.fill:
				continue
			case <-ctx.Done():
				return
			default:
			}
			calm = !b.asked.Swap(false)
			continue
		}
		select {
		case <-b.fill:
			calm = false
		case <-tick.C:
			calm = !b.asked.Swap(false)
		case <-ctx.Done():
			return
		}
	}
}

// nextPrewrite picks a file to pre-write: one that lies raw in the pool, or a
// new one.
func (b *Buffer) nextPrewrite(calm bool) (name string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed || b.mu.waiting > 0 {
		return "", false
	}
	free := len(b.mu.free)
	inUse := b.mu.files - free - len(b.mu.raw)
	if free >= b.opt.Ready && (!calm || inUse == 0) {
		return "", false
	}
	if name, ok = pop(&b.mu.raw); ok {
		return name, true
	}
	if b.mu.files >= b.max {
		return "", false
	}
	b.mu.files++
	name = strconv.Itoa(b.mu.nextFree)
	b.mu.nextFree++
	return name, true
}

// prewriteOne pre-writes a file and puts it into the pool.
func (b *Buffer) prewriteOne(name string) {
	err := b.prewrite(path.Join(b.poolDir(), name))
	if done, raw := strings.CutSuffix(name, rawSuffix); raw && err == nil {
		err = b.opt.FS.Rename(path.Join(b.poolDir(), name), path.Join(b.poolDir(), done))
		name = done
	}
	if err != nil {
		b.opt.Logger.Warn("write buffer: no file pre-written", "file", name, "err", err)
		b.discardFile(path.Join(b.poolDir(), name))
		return
	}
	b.mu.Lock()
	b.mu.free = append(b.mu.free, name)
	b.wakeLocked()
	b.mu.Unlock()
}

func (b *Buffer) prewrite(name string) error {
	f, err := b.opt.FS.OpenFile(name, disk.Write|disk.Create, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(f.Prewrite(0, b.scoSize), f.Close())
}

// Close stops the background work. Logs must have been closed.
func (b *Buffer) Close() error {
	b.mu.Lock()
	b.mu.closed = true
	b.wakeLocked()
	b.mu.Unlock()
	b.stop()
	b.done.Wait()
	return nil
}

// Discard removes everything that a vDisk left in the buffer. Its Log must be
// closed, or never have been opened.
func (b *Buffer) Discard(v uuid.UUID) error {
	dir := b.volumeDir(v)
	names, err := b.opt.FS.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := sco.ParseName(name); err == nil {
			b.forget()
		}
	}
	if err := b.opt.FS.RemoveAll(dir); err != nil {
		return err
	}
	return b.opt.FS.SyncDir(b.opt.Dir)
}

// Prepare makes the directory of a new vDisk, durable on return: from then on
// its absence means that something was lost.
func (b *Buffer) Prepare(v uuid.UUID) error {
	if err := b.opt.FS.MkdirAll(b.volumeDir(v), 0o755); err != nil {
		return err
	}
	return b.opt.FS.SyncDir(b.opt.Dir)
}

// Holds reports whether the vDisk has files in the buffer.
func (b *Buffer) Holds(v uuid.UUID) bool {
	names, err := b.opt.FS.ReadDir(b.volumeDir(v))
	return err == nil && len(names) > 0
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
