package pebblefs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"openvstorage/internal/disk"
)

// FS is the disk of one Pebble. It implements vfs.FS. Each store needs its own: an FS
// fails and is abandoned as a whole.
type FS struct {
	under disk.FS
	store *store
}

var _ vfs.FS = (*FS)(nil)

// New returns a disk for one Pebble over a disk.FS.
func New(under disk.FS, opt Options) *FS {
	return &FS{under: under, store: newStore(opt)}
}

// Failed is closed when the store has failed or was abandoned.
func (d *FS) Failed() <-chan struct{} { return d.store.failed }

// Err returns why the store has failed, ErrAbandoned, or nil.
func (d *FS) Err() error { return d.store.error() }

// Abandon gives the store up: from here on changes report success and do
// nothing. Call it only when Pebble is to be closed; it cannot be undone.
func (d *FS) Abandon() { d.store.abandon() }

// Flush makes everything written to db before the call durable. After nil,
// logs may be truncated behind it. With an error nothing more is durable than
// before; db may then still be flushing, or parked.
func (d *FS) Flush(db *pebble.DB) error {
	done, err := db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-done:
	case <-d.store.failed:
	}
	return d.Err()
}

// Close closes db. It abandons a store that has failed, and returns why it failed. It
// waits for a store that waits for room: call Abandon before, if that may take too long.
func (d *FS) Close(db *pebble.DB) error {
	closed := make(chan struct{})
	go func() {
		select {
		case <-d.store.failed:
			d.store.abandon()
		case <-closed:
		}
	}()
	err := db.Close()
	close(closed)
	if failed := d.Err(); failed != nil {
		return failed
	}
	return err
}

// Create makes a file, in place of one that is there.
func (d *FS) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	return d.open(name, func() (disk.File, error) {
		for {
			f, err := d.under.OpenFile(name, disk.Write|disk.Create|disk.Exclusive, 0o600)
			if !errors.Is(err, fs.ErrExist) {
				return f, err
			}
			// Not truncated: the old file may have another name.
			if err := d.under.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	})
}

// open opens a file for writing, or once the store is abandoned one that
// swallows what is written.
func (d *FS) open(name string, open func() (disk.File, error)) (vfs.File, error) {
	var under disk.File
	ok, err := d.store.change(func() (err error) {
		under, err = open()
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return void{name: name}, nil
	}
	return &file{fs: d, under: under}, nil
}

// OpenReadWrite opens a file, which it makes if it is absent.
func (d *FS) OpenReadWrite(name string, _ vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.open(name, func() (disk.File, error) {
		return d.under.OpenFile(name, disk.Write|disk.Create, 0o600)
	})
	return applied(f, err, opts)
}

// ErrTooLong is matched by the error of Open for a file that Pebble would read
// whole, and that is longer than any that it writes.
var ErrTooLong = errors.New("longer than any such file")

// optionsMax is how long an OPTIONS file may be in bytes. Pebble writes some
// 6 KiB.
const optionsMax = 1 << 20

// Open opens a file for reading. Pebble reads OPTIONS files whole, and all others
// block by block.
func (d *FS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	under, err := d.under.OpenFile(name, 0, 0)
	if err != nil {
		return nil, d.readError(name, err)
	}
	if strings.HasPrefix(path.Base(name), "OPTIONS-") {
		size, err := under.Size()
		if err == nil && size > optionsMax {
			err = &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("%d bytes: %w", size, ErrTooLong)}
		}
		if err != nil {
			return nil, errors.Join(err, under.Close())
		}
	}
	return applied(&file{fs: d, under: under}, nil, opts)
}

func applied(f vfs.File, err error, opts []vfs.OpenOption) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	for _, o := range opts {
		o.Apply(f)
	}
	return f, nil
}

// readError keeps Pebble from concluding that a table is lost when it was only
// never written, because the store is abandoned.
func (d *FS) readError(name string, err error) error {
	if d.store.gone.Load() && errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "open", Path: name, Err: ErrAbandoned}
	}
	return err
}

// OpenDir opens a directory to sync it.
func (d *FS) OpenDir(name string) (vfs.File, error) {
	info, err := d.under.Stat(name)
	if err != nil {
		return nil, err
	}
	return &directory{void: void{name: name}, fs: d, info: info}, nil
}

// Link gives a file a second name.
func (d *FS) Link(oldName, newName string) error {
	_, err := d.store.change(func() error { return d.under.Link(oldName, newName) })
	return err
}

// Rename renames a file.
func (d *FS) Rename(oldName, newName string) error {
	_, err := d.store.change(func() error { return d.under.Rename(oldName, newName) })
	return err
}

// Remove removes a file or an empty directory. Its errors go to Pebble, which
// leaves the file and says so.
func (d *FS) Remove(name string) error { return d.remove(name, d.under.Remove) }

// RemoveAll removes a tree.
func (d *FS) RemoveAll(name string) error { return d.remove(name, d.under.RemoveAll) }

func (d *FS) remove(name string, remove func(string) error) error {
	var failed error
	d.store.change(func() error {
		failed = remove(name)
		return nil
	})
	return failed
}

// ReuseForWrite gives a file a new name to overwrite it.
func (d *FS) ReuseForWrite(oldName, newName string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.Rename(oldName, newName); err != nil {
		return nil, err
	}
	return d.OpenReadWrite(newName, c)
}

// MkdirAll makes directories. Pebble syncs the directory that holds its own;
// those above are the caller's.
func (d *FS) MkdirAll(name string, perm os.FileMode) error {
	_, err := d.store.change(func() error { return d.under.MkdirAll(name, perm) })
	return err
}

// Lock locks a file until Close.
func (d *FS) Lock(name string) (io.Closer, error) { return d.under.Lock(name) }

// List lists a directory.
func (d *FS) List(name string) ([]string, error) { return d.under.ReadDir(name) }

// Stat describes a file.
func (d *FS) Stat(name string) (vfs.FileInfo, error) {
	info, err := d.under.Stat(name)
	if err != nil {
		return nil, d.readError(name, err)
	}
	return fileInfo{info}, nil
}

// PathBase is path.Base.
func (d *FS) PathBase(name string) string { return path.Base(name) }

// PathJoin is path.Join.
func (d *FS) PathJoin(elem ...string) string { return path.Join(elem...) }

// PathDir is path.Dir.
func (d *FS) PathDir(name string) string { return path.Dir(name) }

// GetDiskUsage reports the room on the disk.
func (d *FS) GetDiskUsage(name string) (vfs.DiskUsage, error) {
	u, err := d.under.Statfs(name)
	if err != nil {
		return vfs.DiskUsage{}, err
	}
	return vfs.DiskUsage{AvailBytes: u.Free, TotalBytes: u.Total, UsedBytes: u.Total - u.Free}, nil
}

// Unwrap returns nil: below is no vfs.FS.
func (d *FS) Unwrap() vfs.FS { return nil }

// fileInfo is a file's, on no device in particular.
type fileInfo struct{ fs.FileInfo }

func (fileInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
