package faultdisk

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"

	"openvstorage/internal/disk"
)

// FS passes everything to another disk.FS, less what its rules break. It
// implements disk.FS.
type FS struct {
	under  disk.FS
	active atomic.Bool // there are rules
	mu     sync.Mutex
	rules  []*Injection
	counts sync.Map // path -> *counters
	room   room
}

// New returns a disk that breaks nothing yet.
func New(under disk.FS) *FS {
	return &FS{under: under, room: room{files: map[string]*extent{}}}
}

// begin counts an operation on names and returns what breaks it, if anything.
func (d *FS) begin(op Op, names ...string) (drop bool, err error) {
	d.counters(names[0]).ops[op.index()].Add(1)
	r := d.consult(op, names...)
	if r.Err != nil {
		return false, fail(op, names[0], r.Err)
	}
	return r.Drop, nil
}

func fail(op Op, name string, err error) error {
	return &fs.PathError{Op: op.String(), Path: name, Err: err}
}

// OpenFile opens a file; see disk.FS.
func (d *FS) OpenFile(name string, flag disk.Flag, perm fs.FileMode) (disk.File, error) {
	if _, err := d.begin(Open, name); err != nil {
		return nil, err
	}
	made := flag&disk.Create != 0 && d.absent(name)
	if made {
		if err := d.room.claimNames(name, 1); err != nil {
			return nil, fail(Open, name, err)
		}
	}
	under, err := d.under.OpenFile(name, flag, perm)
	if err != nil {
		if made {
			_ = d.room.claimNames(name, -1)
		}
		return nil, err
	}
	size, err := under.Size()
	if err != nil {
		under.Close()
		return nil, err
	}
	return &File{fs: d, under: under, name: name, counts: d.counters(name), extent: d.room.file(name, size)}, nil
}

// Rename renames; see disk.FS.
func (d *FS) Rename(oldName, newName string) error {
	if drop, err := d.begin(Rename, oldName, newName); drop || err != nil {
		return err
	}
	replaced := d.room.counts(newName) && oldName != newName && !d.absent(newName)
	if err := d.under.Rename(oldName, newName); err != nil {
		return err
	}
	if replaced {
		_ = d.room.claimNames(newName, -1)
	}
	d.room.renamed(oldName, newName)
	return nil
}

// Link links; see disk.FS.
func (d *FS) Link(oldName, newName string) error {
	if drop, err := d.begin(Link, oldName, newName); drop || err != nil {
		return err
	}
	// A link takes no inode: nothing is counted.
	if err := d.under.Link(oldName, newName); err != nil {
		return err
	}
	info, err := d.under.Stat(newName)
	if err != nil {
		return err
	}
	d.room.linked(oldName, newName, info.Size())
	return nil
}

// Remove removes; see disk.FS.
func (d *FS) Remove(name string) error {
	if drop, err := d.begin(Remove, name); drop || err != nil {
		return err
	}
	d.follow(name)
	if err := d.under.Remove(name); err != nil {
		return err
	}
	d.room.removed(name)
	_ = d.room.claimNames(name, -1)
	return nil
}

// follow learns the size of a file that nobody has opened yet, so that
// removing it gives the right room back.
func (d *FS) follow(name string) {
	if info, err := d.under.Stat(name); err == nil && info.Mode().IsRegular() {
		d.room.file(name, info.Size())
	}
}

// RemoveAll removes a tree; see disk.FS.
func (d *FS) RemoveAll(name string) error {
	if drop, err := d.begin(RemoveAll, name); drop || err != nil {
		return err
	}
	n := d.followAll(name)
	if err := d.under.RemoveAll(name); err != nil {
		return err
	}
	d.room.removed(name)
	_ = d.room.claimNames(name, -n)
	return nil
}

// followAll learns the sizes of all files of a tree, and returns how many names it
// has.
func (d *FS) followAll(name string) (n int64) {
	if d.absent(name) {
		return 0
	}
	d.follow(name)
	names, err := d.under.ReadDir(name)
	if err != nil {
		return 1
	}
	for _, below := range names {
		n += d.followAll(name + "/" + below)
	}
	return n + 1
}

// absent reports whether a name is not there, if anybody counts names there.
func (d *FS) absent(name string) bool {
	if !d.room.counts(name) {
		return false
	}
	_, err := d.under.Stat(name)
	return errors.Is(err, fs.ErrNotExist)
}

// MkdirAll makes directories; see disk.FS.
func (d *FS) MkdirAll(name string, perm fs.FileMode) error {
	if drop, err := d.begin(Mkdir, name); drop || err != nil {
		return err
	}
	made := int64(0)
	for dir := path.Clean(name); dir != "/" && dir != "." && d.absent(dir); dir = path.Dir(dir) {
		made++
	}
	if made > 0 {
		if err := d.room.claimNames(name, made); err != nil {
			return fail(Mkdir, name, err)
		}
	}
	return d.under.MkdirAll(name, perm)
}

// ReadDir lists a directory; see disk.FS.
func (d *FS) ReadDir(name string) ([]string, error) {
	if _, err := d.begin(ReadDir, name); err != nil {
		return nil, err
	}
	return d.under.ReadDir(name)
}

// Stat describes a file; see disk.FS.
func (d *FS) Stat(name string) (fs.FileInfo, error) {
	if _, err := d.begin(Stat, name); err != nil {
		return nil, err
	}
	return d.under.Stat(name)
}

// Private takes rights off; see disk.FS.
func (d *FS) Private(name string) (fs.FileMode, error) {
	if drop, err := d.begin(Private, name); drop || err != nil {
		return 0, err
	}
	return d.under.Private(name)
}

// SyncDir syncs a directory; see disk.FS.
func (d *FS) SyncDir(name string) error {
	if drop, err := d.begin(SyncDir, name); drop || err != nil {
		return err
	}
	return d.under.SyncDir(name)
}

// Lock locks a file; see disk.FS.
func (d *FS) Lock(name string) (io.Closer, error) {
	if _, err := d.begin(Lock, name); err != nil {
		return nil, err
	}
	return d.under.Lock(name)
}

// Statfs reports the room below, or what a quota leaves of it.
func (d *FS) Statfs(name string) (disk.Usage, error) {
	if _, err := d.begin(Statfs, name); err != nil {
		return disk.Usage{}, err
	}
	u, err := d.under.Statfs(name)
	if q, ok := d.room.narrowest(name); ok && err == nil {
		u.Free = min(u.Free, uint64(max(0, q.left)))
		if q.total > 0 {
			u.Total = q.total
		}
		if q.named {
			u.Names, u.FreeNames = manyNames, uint64(max(0, q.names))
		}
	}
	return u, err
}
