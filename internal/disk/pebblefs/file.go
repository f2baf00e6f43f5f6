package pebblefs

import (
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"openvstorage/internal/disk"
)

// file is an open file. Pebble reads it from many goroutines and writes it
// from one at a time.
type file struct {
	fs       *FS
	under    disk.File
	readAt   atomic.Int64 // where Read goes on
	writeAt  int64        // where Write goes on
	syncedTo int64        // up to where SyncTo has asked for writeback
	dirty    atomic.Bool  // written since it was last synced
	unsynced []span       // what, one behind the other where it can be
}

// span is a range that is not known to be durable, and the sum of what is in it.
type span struct {
	off, n int64
	crc    uint32
}

// spanMax bounds what is read back at once, in bytes.
const spanMax = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// note remembers what was written.
func (f *file) note(p []byte, off int64) {
	for len(p) > 0 {
		n := len(f.unsynced)
		if n == 0 || f.unsynced[n-1].off+f.unsynced[n-1].n != off || f.unsynced[n-1].n >= spanMax {
			f.unsynced = append(f.unsynced, span{off: off})
			n++
		}
		s := &f.unsynced[n-1]
		part := p[:min(int64(len(p)), spanMax-s.n)]
		s.n, s.crc = s.n+int64(len(part)), crc32.Update(s.crc, castagnoli, part)
		p, off = p[len(part):], off+int64(len(part))
	}
}

// writeAgain writes what is not durable once more, verified: a sync that failed may
// have dropped it.
func (f *file) writeAgain() error {
	for _, s := range f.unsynced {
		p := make([]byte, s.n)
		if n, err := f.under.ReadAt(p, s.off); int64(n) < s.n {
			return fmt.Errorf("read %s again at %d: %w", f.under.Name(), s.off, err)
		}
		if crc32.Checksum(p, castagnoli) != s.crc {
			return fmt.Errorf("%s at %d: what was written is gone", f.under.Name(), s.off)
		}
		if _, err := f.under.WriteAt(p, s.off); err != nil {
			return err
		}
	}
	return nil
}

var _ vfs.File = (*file)(nil)

// Close never tells Pebble of an error, which would end the process for some
// files.
func (f *file) Close() error { return f.fs.store.closed(f.under.Close(), f.dirty.Load()) }

func (f *file) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.under.ReadAt(p, f.readAt.Load())
	f.readAt.Add(int64(n))
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (f *file) ReadAt(p []byte, off int64) (int, error) { return f.under.ReadAt(p, off) }

func (f *file) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.writeAt)
	f.writeAt += int64(n)
	return n, err
}

// WriteAt goes on where a full disk stopped it. What is written is that far in
// the file already, so writing the rest once is enough.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	done := 0
	f.dirty.Store(true)
	_, err := f.fs.store.change(func() error {
		n, err := f.under.WriteAt(p[done:], off+int64(done))
		done += n
		return err
	})
	if err != nil {
		return done, err
	}
	f.note(p, off)
	return len(p), nil
}

func (f *file) Sync() error     { return f.sync(f.under.Sync) }
func (f *file) SyncData() error { return f.sync(f.under.Datasync) }

// sync syncs what one goroutine writes, and nobody else.
func (f *file) sync(call func() error) error {
	f.dirty.Store(false)
	err := f.fs.store.sync(call, f.writeAgain)
	f.unsynced = f.unsynced[:0]
	return err
}

// SyncTo starts writing what has been added since the last time. It promises
// nothing, so its errors are left to the sync that does.
func (f *file) SyncTo(length int64) (fullSync bool, err error) {
	if from := f.syncedTo; length > from && !f.fs.store.bad.Load() {
		f.syncedTo = length
		_ = f.under.Writeback(from, length-from)
	}
	return false, nil
}

// Preallocate does nothing: tables and manifests are written once, in order.
func (f *file) Preallocate(off, length int64) error { return nil }

// Prefetch does nothing: Pebble reads ahead itself.
func (f *file) Prefetch(off, length int64) error { return nil }

func (f *file) Fd() uintptr { return vfs.InvalidFd }

func (f *file) Stat() (vfs.FileInfo, error) {
	size, err := f.under.Size()
	if err != nil {
		return nil, err
	}
	return fileInfo{sized{name: f.fs.PathBase(f.under.Name()), size: size}}, nil
}

// sized is all that Pebble asks about an open file.
type sized struct {
	name string
	size int64
}

func (s sized) Name() string       { return s.name }
func (s sized) Size() int64        { return s.size }
func (s sized) Mode() fs.FileMode  { return 0o600 }
func (s sized) ModTime() time.Time { return time.Time{} }
func (s sized) IsDir() bool        { return false }
func (s sized) Sys() any           { return nil }

// directory is open to be synced.
type directory struct {
	void
	fs   *FS
	info fs.FileInfo
}

// Sync is made again only if it could not even begin.
func (d *directory) Sync() error {
	var done error
	d.fs.store.change(func() error {
		err := d.fs.under.SyncDir(d.name)
		if err != nil && !disk.SyncBegun(err) {
			return err
		}
		done = err
		return nil
	})
	return d.fs.store.sync(func() error { return done }, nil)
}

func (d *directory) SyncData() error             { return d.Sync() }
func (d *directory) Stat() (vfs.FileInfo, error) { return fileInfo{d.info}, nil }

// void is a file that was made after the store was abandoned: it takes
// everything and holds nothing.
type void struct{ name string }

var _ vfs.File = void{}

func (v void) unreadable() error {
	return &fs.PathError{Op: "read", Path: v.name, Err: ErrAbandoned}
}

func (v void) Close() error                             { return nil }
func (v void) Read([]byte) (int, error)                 { return 0, v.unreadable() }
func (v void) ReadAt([]byte, int64) (int, error)        { return 0, v.unreadable() }
func (v void) Write(p []byte) (int, error)              { return len(p), nil }
func (v void) WriteAt(p []byte, off int64) (int, error) { return len(p), nil }
func (v void) Preallocate(off, length int64) error      { return nil }
func (v void) Stat() (vfs.FileInfo, error)              { return fileInfo{sized{name: v.name}}, nil }
func (v void) Sync() error                              { return nil }
func (v void) SyncTo(int64) (bool, error)               { return false, nil }
func (v void) SyncData() error                          { return nil }
func (v void) Prefetch(off, length int64) error         { return nil }
func (v void) Fd() uintptr                              { return vfs.InvalidFd }
