// Package stopdisk is a disk.FS that can be given up. It is for a disk that may hang:
// a call is in the kernel then and does not return, and nothing can end it.
//
// It passes everything on until Stop. After that no call reaches the disk, and its
// locks are given back: another process, or this one, may open what was open here.
// Calls that are in the kernel at that time may still take effect, and nothing follows
// them. Done and Turn tell a slow disk from one that hangs.
package stopdisk

import (
	"errors"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"

	"openvstorage/internal/disk"
)

// ErrStopped is matched by the error of every call after Stop.
var ErrStopped = errors.New("the disk was given up, as it did not answer")

// FS passes everything to another disk.FS until it is stopped. It implements
// disk.FS.
type FS struct {
	under   disk.FS
	stopped atomic.Bool
	done    atomic.Uint64
	turn    atomic.Uint32
	way     [2]atomic.Int64 // calls under way that began in an even turn, and in an odd one

	mu    sync.Mutex
	locks map[*lock]struct{}
}

// New returns an FS over another one.
func New(under disk.FS) *FS { return &FS{under: under, locks: make(map[*lock]struct{})} }

// Done is how many calls have come back.
func (d *FS) Done() uint64 { return d.done.Load() }

// Turn begins another turn and reports true if all calls have returned that began
// before the present turn. Whoever calls it at intervals and gets false knows that a
// single call has been under way since before the last true. Time alone would not tell:
// a request of many calls may take long on a disk that does not hang.
func (d *FS) Turn() bool {
	t := d.turn.Load()
	return d.way[(t+1)&1].Load() == 0 && d.turn.CompareAndSwap(t, t+1)
}

// Stopped reports whether the disk was given up.
func (d *FS) Stopped() bool { return d.stopped.Load() }

// Stop gives the disk up, and all its locks back. It waits for nothing.
func (d *FS) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped.Store(true)
	for l := range d.locks {
		// Closing a file may wait for the disk, unlocking it does not.
		u, ok := l.under.(interface{ Unlock() error })
		if !ok {
			_ = l.under.Close()
			continue
		}
		_ = u.Unlock()
		go func() { _ = l.under.Close() }()
	}
	clear(d.locks)
}

// begin refuses a call after Stop. One that it lets through is of a turn.
func (d *FS) begin(op, name string) (turn uint32, err error) {
	if d.stopped.Load() {
		return 0, &fs.PathError{Op: op, Path: name, Err: ErrStopped}
	}
	turn = d.turn.Load()
	d.way[turn&1].Add(1)
	return turn, nil
}

// end notes that a call has come back.
func (d *FS) end(turn uint32) {
	d.way[turn&1].Add(-1)
	d.done.Add(1)
}

// OpenFile opens a file; see disk.FS. One that is opened while the disk is given up
// stays unused.
func (d *FS) OpenFile(name string, flag disk.Flag, perm fs.FileMode) (disk.File, error) {
	turn, err := d.begin("open", name)
	if err != nil {
		return nil, err
	}
	defer d.end(turn)
	f, err := d.under.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &file{d, f}, nil
}

// Rename renames; see disk.FS.
func (d *FS) Rename(oldName, newName string) error {
	return d.do("rename", oldName, func() error { return d.under.Rename(oldName, newName) })
}

// Link gives a file a second name; see disk.FS.
func (d *FS) Link(oldName, newName string) error {
	return d.do("link", oldName, func() error { return d.under.Link(oldName, newName) })
}

// Remove removes a name; see disk.FS.
func (d *FS) Remove(name string) error {
	return d.do("remove", name, func() error { return d.under.Remove(name) })
}

// RemoveAll removes a tree; see disk.FS.
func (d *FS) RemoveAll(name string) error {
	return d.do("removeall", name, func() error { return d.under.RemoveAll(name) })
}

// MkdirAll makes directories; see disk.FS.
func (d *FS) MkdirAll(name string, perm fs.FileMode) error {
	return d.do("mkdir", name, func() error { return d.under.MkdirAll(name, perm) })
}

// Private takes the rights of others off a name; see disk.FS.
func (d *FS) Private(name string) (was fs.FileMode, err error) {
	err = d.do("private", name, func() (err error) {
		was, err = d.under.Private(name)
		return err
	})
	return was, err
}

// SyncDir makes names durable; see disk.FS.
func (d *FS) SyncDir(name string) error {
	return d.do("syncdir", name, func() error { return d.under.SyncDir(name) })
}

// SyncAll makes all of a file system durable, where the disk below can; see
// disk.SyncName.
func (d *FS) SyncAll(name string) error {
	all, ok := d.under.(interface{ SyncAll(name string) error })
	if !ok {
		return &fs.PathError{Op: "syncall", Path: name, Err: errors.ErrUnsupported}
	}
	return d.do("syncall", name, func() error { return all.SyncAll(name) })
}

func (d *FS) do(op, name string, call func() error) error {
	turn, err := d.begin(op, name)
	if err != nil {
		return err
	}
	defer d.end(turn)
	return call()
}

// ReadDir lists a directory; see disk.FS.
func (d *FS) ReadDir(name string) (names []string, err error) {
	err = d.do("readdir", name, func() (err error) {
		names, err = d.under.ReadDir(name)
		return err
	})
	return names, err
}

// Stat describes a file; see disk.FS.
func (d *FS) Stat(name string) (info fs.FileInfo, err error) {
	err = d.do("stat", name, func() (err error) {
		info, err = d.under.Stat(name)
		return err
	})
	return info, err
}

// Statfs reports the room; see disk.FS.
func (d *FS) Statfs(name string) (u disk.Usage, err error) {
	err = d.do("statfs", name, func() (err error) {
		u, err = d.under.Statfs(name)
		return err
	})
	return u, err
}

// lock is a lock that Stop gives back.
type lock struct {
	fs    *FS
	under io.Closer
}

// Close gives the lock back, unless Stop has.
func (l *lock) Close() error {
	l.fs.mu.Lock()
	_, held := l.fs.locks[l]
	delete(l.fs.locks, l)
	l.fs.mu.Unlock()
	if !held && l.fs.stopped.Load() {
		return nil
	}
	return l.under.Close()
}

// Lock locks a file; see disk.FS.
func (d *FS) Lock(name string) (io.Closer, error) {
	turn, err := d.begin("lock", name)
	if err != nil {
		return nil, err
	}
	defer d.end(turn)
	under, err := d.under.Lock(name)
	if err != nil {
		return nil, err
	}
	l := &lock{d, under}
	d.mu.Lock()
	stopped := d.stopped.Load()
	if !stopped {
		d.locks[l] = struct{}{}
	}
	d.mu.Unlock()
	if stopped {
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: name, Err: ErrStopped}, under.Close())
	}
	return l, nil
}

// file is an open file. After Stop its descriptor stays open: to close it may wait
// for the disk.
type file struct {
	fs    *FS
	under disk.File
}

func (f *file) begin(op string) (turn uint32, err error) { return f.fs.begin(op, f.under.Name()) }

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	turn, err := f.begin("read")
	if err != nil {
		return 0, err
	}
	n, err := f.under.ReadAt(p, off)
	f.fs.end(turn)
	return n, err
}

func (f *file) TryReadAt(p []byte, off int64) (int, error) {
	turn, err := f.begin("read")
	if err != nil {
		return 0, err
	}
	n, err := f.under.TryReadAt(p, off)
	f.fs.end(turn)
	return n, err
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	turn, err := f.begin("write")
	if err != nil {
		return 0, err
	}
	n, err := f.under.WriteAt(p, off)
	f.fs.end(turn)
	return n, err
}

func (f *file) WritevAt(bufs [][]byte, off int64) (int, error) {
	turn, err := f.begin("write")
	if err != nil {
		return 0, err
	}
	n, err := f.under.WritevAt(bufs, off)
	f.fs.end(turn)
	return n, err
}

func (f *file) do(op string, call func() error) error { return f.fs.do(op, f.under.Name(), call) }

func (f *file) Close() error    { return f.do("close", f.under.Close) }
func (f *file) Datasync() error { return f.do("datasync", f.under.Datasync) }
func (f *file) Sync() error     { return f.do("sync", f.under.Sync) }

func (f *file) Prewrite(off, n int64) error {
	return f.do("prewrite", func() error { return f.under.Prewrite(off, n) })
}

func (f *file) Allocate(off, n int64) error {
	return f.do("allocate", func() error { return f.under.Allocate(off, n) })
}

func (f *file) Writeback(off, n int64) error {
	return f.do("writeback", func() error { return f.under.Writeback(off, n) })
}

func (f *file) Truncate(size int64) error {
	return f.do("truncate", func() error { return f.under.Truncate(size) })
}

func (f *file) Size() (n int64, err error) {
	err = f.do("size", func() (err error) {
		n, err = f.under.Size()
		return err
	})
	return n, err
}

func (f *file) Name() string { return f.under.Name() }

var _ disk.FS = (*FS)(nil)
