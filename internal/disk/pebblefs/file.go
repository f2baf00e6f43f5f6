package pebblefs

import (
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
	return len(p), nil
}

func (f *file) Sync() error     { return f.sync(f.under.Sync) }
func (f *file) SyncData() error { return f.sync(f.under.Datasync) }

// sync syncs what one goroutine writes, and nobody else.
func (f *file) sync(call func() error) error {
	f.dirty.Store(false)
	return f.fs.store.sync(call)
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
	return d.fs.store.sync(func() error { return done })
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
