package crashdisk

import (
	"io/fs"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
)

// maxFileSize keeps a wild offset from taking all memory.
const maxFileSize = 1 << 40

// File is an open file of a disk. It implements disk.File.
type File struct {
	fs       *FS
	node     *node
	name     string
	writable bool
	closed   atomic.Bool
}

// Name returns the name the file was opened by.
func (f *File) Name() string { return f.name }

// Close closes the file. A second Close returns fs.ErrClosed.
func (f *File) Close() error {
	if f.closed.Swap(true) {
		return fail("close", f.name, fs.ErrClosed)
	}
	return nil
}

func (f *File) check(op string, off int64, write bool) error {
	switch {
	case f.closed.Load():
		return fail(op, f.name, fs.ErrClosed)
	case off < 0:
		return fail(op, f.name, unix.EINVAL)
	case write && !f.writable:
		return fail(op, f.name, unix.EBADF)
	case write && off > maxFileSize:
		return fail(op, f.name, unix.EFBIG)
	}
	return nil
}

// change runs do under the disk's lock.
func (f *File) change(do func(c *content, own *owner)) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	do(f.node.file, f.fs.own)
	f.node.changed = time.Now()
}

// ReadAt reads what was written last, synced or not.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if err := f.check("read", off, false); err != nil {
		return 0, err
	}
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	return f.node.file.readAt(p, off)
}

// TryReadAt is ReadAt, or disk.ErrWouldBlock as often as SetWouldBlock says.
func (f *File) TryReadAt(p []byte, off int64) (int, error) {
	if err := f.check("tryread", off, false); err != nil {
		return 0, err
	}
	if f.fs.wouldBlock() {
		return 0, disk.ErrWouldBlock
	}
	return f.ReadAt(p, off)
}

// WriteAt writes p at off.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if err := f.check("write", off, true); err != nil {
		return 0, err
	}
	f.change(func(c *content, own *owner) { c.writeAt(own, p, off) })
	return len(p), nil
}

// WritevAt writes bufs one behind the other at off. No crash image sees some
// of them only, other than by losing sectors.
func (f *File) WritevAt(bufs [][]byte, off int64) (int, error) {
	if err := f.check("write", off, true); err != nil {
		return 0, err
	}
	n := 0
	f.change(func(c *content, own *owner) {
		for _, b := range bufs {
			c.writeAt(own, b, off+int64(n))
			n += len(b)
		}
	})
	return n, nil
}

// Datasync makes the file's content and size durable.
func (f *File) Datasync() error { return f.sync("datasync") }

// Sync is Datasync.
func (f *File) Sync() error { return f.sync("sync") }

func (f *File) sync(op string) error {
	if err := f.check(op, 0, false); err != nil {
		return err
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.node.file.sync()
	return nil
}

// SyncFailed does to the file what a failed fsync does on Linux: what is
// unsynced now stays readable and is never made durable by a later sync. The
// caller returns the error.
func (f *File) SyncFailed() {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.node.file.syncFailed()
}

// Prewrite fills [off, off+n) with zeros and syncs.
func (f *File) Prewrite(off, n int64) error {
	if n < 0 || off+n > maxFileSize {
		return fail("prewrite", f.name, unix.EINVAL)
	}
	if err := f.check("prewrite", off, true); err != nil {
		return err
	}
	f.change(func(c *content, own *owner) {
		c.writeZeros(own, off, n)
		c.sync()
	})
	return nil
}

// Allocate does nothing: this disk has room.
func (f *File) Allocate(off, n int64) error {
	if n < 0 || off+n > maxFileSize {
		return fail("allocate", f.name, unix.EINVAL)
	}
	return f.check("allocate", off, true)
}

// Writeback does nothing: what the kernel writes on its own promises nothing.
func (f *File) Writeback(off, n int64) error {
	if n <= 0 {
		return nil
	}
	return f.check("writeback", off, false)
}

// Truncate sets the file's length.
func (f *File) Truncate(size int64) error {
	if err := f.check("truncate", size, true); err != nil {
		return err
	}
	f.change(func(c *content, own *owner) { c.truncate(own, size) })
	return nil
}

// Size returns the file's length in bytes.
func (f *File) Size() (int64, error) {
	if err := f.check("stat", 0, false); err != nil {
		return 0, err
	}
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	return f.node.file.size, nil
}
