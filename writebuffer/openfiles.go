package writebuffer

import (
	"io/fs"
	"sync"
	"sync/atomic"

	"openvstorage/internal/broadcast"
	"openvstorage/internal/disk"

	"golang.org/x/sys/unix"
)

// openFiles bounds how many files of the buffer are open. When there are more, it
// closes files that hold nothing unsynced and that nobody uses. The next reader opens
// such a file again. Files that were read least lately go first (a clock: one bit for
// each file says whether it was read since the hand passed).
//
// A read never waits for a place: it opens its file at once, and another file is
// closed when one can be. The preparer of a log does wait for places (see
// Buffer.places).
type openFiles struct {
	disk.FS // through which files are opened
	max     int
	dirs    chan struct{} // places of calls that list or sync a directory

	mu    sync.Mutex
	open  []*handle
	taken int // places of files that are about to be opened
	hand  int
	shut  uint64              // files that were closed for the sake of others
	freed broadcast.Broadcast // a place may have come free
}

// dirsAtOnce is how many directories are open at once, to be listed or synced.
const dirsAtOnce = 16

func newOpenFiles(under disk.FS, most int) *openFiles {
	return &openFiles{FS: under, max: most, dirs: make(chan struct{}, dirsAtOnce)}
}

// SyncDir syncs a directory; see disk.FS.
func (o *openFiles) SyncDir(name string) error {
	o.dirs <- struct{}{}
	defer func() { <-o.dirs }()
	return o.FS.SyncDir(name)
}

// ReadDir lists a directory; see disk.FS.
func (o *openFiles) ReadDir(name string) ([]string, error) {
	o.dirs <- struct{}{}
	defer func() { <-o.dirs }()
	return o.FS.ReadDir(name)
}

// handle is an open file. users counts the calls under way. Whoever closes the file
// adds closedBit to users, once, when no call is under way.
type handle struct {
	file  disk.File
	of    *openFile
	at    int // in openFiles.open; guarded by its mu
	users atomic.Int64
	read  atomic.Bool // since the hand passed
}

const closedBit = 1 << 62

func (h *handle) acquire() bool {
	if h.users.Add(1) < closedBit {
		if !h.read.Load() {
			h.read.Store(true)
		}
		return true
	}
	h.users.Add(-1)
	return false
}

func (h *handle) release() { h.users.Add(-1) }

// OpenFile opens a file that may be closed and opened again behind its back, as
// long as nothing was written to it and after it was settled.
func (o *openFiles) OpenFile(name string, flag disk.Flag, perm fs.FileMode) (disk.File, error) {
	f := &openFile{all: o, name: name, flag: flag & (disk.Write | disk.Direct)}
	h, err := o.openHandle(f, flag, perm)
	if err != nil {
		return nil, err
	}
	f.handle.Store(h)
	return f, nil
}

func (o *openFiles) openHandle(of *openFile, flag disk.Flag, perm fs.FileMode) (*handle, error) {
	o.makeRoom()
	f, err := o.FS.OpenFile(of.name, flag, perm)
	if isAny(err, unix.EMFILE, unix.ENFILE) && o.shed(1+o.max/8) > 0 {
		f, err = o.FS.OpenFile(of.name, flag, perm)
	}
	if err != nil {
		return nil, err
	}
	h := &handle{file: f, of: of}
	o.mu.Lock()
	h.at = len(o.open)
	o.open = append(o.open, h)
	o.mu.Unlock()
	return h, nil
}

// makeRoom closes what can be closed until one more may be open.
func (o *openFiles) makeRoom() {
	o.mu.Lock()
	excess := len(o.open) + 1 - o.max
	o.mu.Unlock()
	if excess > 0 {
		o.shed(excess)
	}
}

// reserve takes n places, all or none, until unreserve. It closes what can be closed.
func (o *openFiles) reserve(n int) bool {
	for {
		o.mu.Lock()
		excess := len(o.open) + o.taken + n - o.max
		if excess <= 0 {
			o.taken += n
		}
		o.mu.Unlock()
		if excess <= 0 {
			return true
		}
		if o.shed(excess) == 0 {
			return false
		}
	}
}

func (o *openFiles) unreserve(n int) {
	o.mu.Lock()
	o.taken -= n
	o.freed.Send()
	o.mu.Unlock()
}

// shed closes up to n files, and returns how many.
func (o *openFiles) shed(n int) (closed int) {
	for tries := o.count(); closed < n && tries > 0; tries-- {
		h := o.victim()
		if h == nil {
			break
		}
		if h.of.shut(h) {
			closed++
		}
	}
	return closed
}

// victim returns a file that can be closed, nil if there is none.
func (o *openFiles) victim() *handle {
	o.mu.Lock()
	defer o.mu.Unlock()
	for range 2 * len(o.open) {
		if o.hand++; o.hand >= len(o.open) {
			o.hand = 0
		}
		if h := o.open[o.hand]; !h.of.pinned.Load() && h.users.Load() == 0 && !h.read.Swap(false) {
			return h
		}
	}
	return nil
}

func (o *openFiles) remove(h *handle, shed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	last := len(o.open) - 1
	o.open[h.at] = o.open[last]
	o.open[h.at].at = h.at
	o.open[last] = nil
	o.open = o.open[:last]
	if shed {
		o.shut++
	}
	o.freed.Send()
}

// wait returns a channel that is closed when a place may have come free.
func (o *openFiles) wait() <-chan struct{} { return o.freed.Next() }

// usage is how many files are open, how many may be, and how many were closed for the
// sake of others.
func (o *openFiles) usage() (open, limit int, closed uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.open), o.max, o.shut
}

func (o *openFiles) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.open)
}

// openFile is a file of openFiles. From its first write until settle it stays open:
// the kernel tells an error of writing back only to those who have the file open (P6).
type openFile struct {
	all  *openFiles
	name string
	flag disk.Flag

	handle  atomic.Pointer[handle]
	pinned  atomic.Bool
	opening sync.Mutex // held while the file is opened, closed or pinned
	closed  bool       // guarded by opening
}

// hold returns the file, open until it is released.
func (f *openFile) hold() (*handle, error) {
	if h := f.handle.Load(); h != nil && h.acquire() {
		return h, nil
	}
	f.opening.Lock()
	defer f.opening.Unlock()
	return f.holdLocked()
}

func (f *openFile) holdLocked() (*handle, error) {
	if f.closed {
		return nil, f.errClosed()
	}
	if h := f.handle.Load(); h != nil && h.acquire() {
		return h, nil
	}
	h, err := f.all.openHandle(f, f.flag, 0)
	if err != nil {
		return nil, err
	}
	h.acquire()
	f.handle.Store(h)
	return h, nil
}

func (f *openFile) errClosed() error {
	return &fs.PathError{Op: "use", Path: f.name, Err: fs.ErrClosed}
}

// holdForWrite is hold of a file that stays open until it is settled.
func (f *openFile) holdForWrite() (*handle, error) {
	if f.pinned.Load() {
		return f.hold()
	}
	f.opening.Lock()
	defer f.opening.Unlock()
	h, err := f.holdLocked()
	f.pinned.Store(err == nil)
	return h, err
}

// pin opens the file and keeps it open until it is settled: the first write, which is
// in the append section, must not have to open it.
func (f *openFile) pin() error {
	h, err := f.holdForWrite()
	if err == nil {
		h.release()
	}
	return err
}

// settle says that everything written to the file is durable, or need not be: from now
// on the file may be closed.
func (f *openFile) settle() {
	f.opening.Lock()
	f.pinned.Store(false)
	f.opening.Unlock()
	f.all.freed.Send()
}

// pin and settle are for the buffer's own files, which are all of this type.
func pin(f disk.File) error { return f.(*openFile).pin() }

func settle(f disk.File) { f.(*openFile).settle() }

// shut closes the file for the sake of others, unless somebody uses it.
func (f *openFile) shut(h *handle) bool {
	if !f.opening.TryLock() {
		return false
	}
	defer f.opening.Unlock()
	if f.closed || f.pinned.Load() || f.handle.Load() != h || !h.users.CompareAndSwap(0, closedBit) {
		return false
	}
	f.handle.Store(nil)
	_ = h.file.Close() // all that was written is durable
	f.all.remove(h, true)
	return true
}

// Close ends the file. Nobody may use it any more.
func (f *openFile) Close() error {
	f.opening.Lock()
	defer f.opening.Unlock()
	if f.closed {
		return f.errClosed()
	}
	h := f.handle.Swap(nil)
	f.closed = true
	if h == nil {
		return nil
	}
	h.users.Add(closedBit) // nobody else tries to
	err := h.file.Close()
	f.all.remove(h, false)
	return err
}

func (f *openFile) Name() string { return f.name }

func (f *openFile) ReadAt(p []byte, off int64) (int, error) {
	h, err := f.hold()
	if err != nil {
		return 0, err
	}
	defer h.release()
	return h.file.ReadAt(p, off)
}

// TryReadAt returns disk.ErrWouldBlock if the file is not open: ReadAt opens it.
func (f *openFile) TryReadAt(p []byte, off int64) (int, error) {
	h := f.handle.Load()
	if h == nil || !h.acquire() {
		if !f.opening.TryLock() {
			return 0, disk.ErrWouldBlock // it is being opened
		}
		defer f.opening.Unlock()
		if f.closed {
			return 0, f.errClosed()
		}
		return 0, disk.ErrWouldBlock
	}
	defer h.release()
	return h.file.TryReadAt(p, off)
}

func (f *openFile) WriteAt(p []byte, off int64) (int, error) {
	h, err := f.holdForWrite()
	if err != nil {
		return 0, err
	}
	defer h.release()
	return h.file.WriteAt(p, off)
}

func (f *openFile) WritevAt(bufs [][]byte, off int64) (int, error) {
	h, err := f.holdForWrite()
	if err != nil {
		return 0, err
	}
	defer h.release()
	return h.file.WritevAt(bufs, off)
}

func (f *openFile) Datasync() error { return f.with(f.hold, disk.File.Datasync) }

func (f *openFile) Sync() error { return f.with(f.hold, disk.File.Sync) }

// Prewrite syncs what it writes, and leaves the file as it was.
func (f *openFile) Prewrite(off, n int64) error {
	return f.with(f.hold, func(d disk.File) error { return d.Prewrite(off, n) })
}

func (f *openFile) Writeback(off, n int64) error {
	return f.with(f.hold, func(d disk.File) error { return d.Writeback(off, n) })
}

func (f *openFile) Truncate(size int64) error {
	return f.with(f.holdForWrite, func(d disk.File) error { return d.Truncate(size) })
}

func (f *openFile) Size() (n int64, err error) {
	err = f.with(f.hold, func(d disk.File) error {
		n, err = d.Size()
		return err
	})
	return n, err
}

func (f *openFile) with(hold func() (*handle, error), do func(disk.File) error) error {
	h, err := hold()
	if err != nil {
		return err
	}
	defer h.release()
	return do(h.file)
}

// Allocate takes room for what is written later; see disk.File.
func (f *openFile) Allocate(off, n int64) error {
	return f.with(f.hold, func(d disk.File) error { return d.Allocate(off, n) })
}
