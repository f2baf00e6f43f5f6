package faultdisk

import (
	"io"
	"io/fs"
	"sync"

	"openvstorage/internal/disk"

	"golang.org/x/sys/unix"
)

// Descriptors is a disk for a process that may have so many files open and no more.
// Whoever opens another file then, or lists or syncs a directory, gets EMFILE.
type Descriptors struct {
	disk.FS
	mu               sync.Mutex
	most, open, peak int
	refused          int
}

// NewDescriptors returns a disk over another one.
func NewDescriptors(under disk.FS, most int) *Descriptors { return &Descriptors{FS: under, most: most} }

// Peak is the most that were open at once, Refused how many calls got EMFILE.
func (d *Descriptors) Peak() (peak, refused int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peak, d.refused
}

// Open is how many files are open now.
func (d *Descriptors) Open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open
}

func (d *Descriptors) take(op Op, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open >= d.most {
		d.refused++
		return fail(op, name, unix.EMFILE)
	}
	d.open++
	d.peak = max(d.peak, d.open)
	return nil
}

func (d *Descriptors) give() {
	d.mu.Lock()
	d.open--
	d.mu.Unlock()
}

// OpenFile opens a file; see disk.FS.
func (d *Descriptors) OpenFile(name string, flag disk.Flag, perm fs.FileMode) (disk.File, error) {
	if err := d.take(Open, name); err != nil {
		return nil, err
	}
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		d.give()
		return nil, err
	}
	return &countedFile{File: f, give: sync.OnceFunc(d.give)}, nil
}

// ReadDir lists a directory; see disk.FS.
func (d *Descriptors) ReadDir(name string) ([]string, error) {
	if err := d.take(ReadDir, name); err != nil {
		return nil, err
	}
	defer d.give()
	return d.FS.ReadDir(name)
}

// SyncDir syncs a directory; see disk.FS.
func (d *Descriptors) SyncDir(name string) error {
	if err := d.take(SyncDir, name); err != nil {
		return err
	}
	defer d.give()
	return d.FS.SyncDir(name)
}

// Lock takes a lock, which is an open file; see disk.FS.
func (d *Descriptors) Lock(name string) (io.Closer, error) {
	if err := d.take(Lock, name); err != nil {
		return nil, err
	}
	c, err := d.FS.Lock(name)
	if err != nil {
		d.give()
		return nil, err
	}
	return countedLock{c, sync.OnceFunc(d.give)}, nil
}

type countedFile struct {
	disk.File
	give func()
}

// Close closes the file; see disk.File.
func (f *countedFile) Close() error {
	defer f.give()
	return f.File.Close()
}

type countedLock struct {
	io.Closer
	give func()
}

func (l countedLock) Close() error {
	defer l.give()
	return l.Closer.Close()
}
