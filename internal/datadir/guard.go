package datadir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
)

// A data directory can be replaced under the process that has it: it is renamed and
// another one made in its place, something is mounted there, or a copy is restored
// over it. Files that are open stay what they are, and go on being used; but whatever
// is looked up, made or removed by its path would be the other one's. So whoever uses
// the directory does it through Guard, where each such call finds out first, by the
// lock: the file of that name is the one that this process holds, or there is no use
// of the path until it is again. That costs a stat, and no call on an open file.
//
// What is moved away between the look and the call is not noticed by that call, but
// by the next one.

// replacedError says what is there instead. Like a lack of rights it says nothing of
// the disk, and passes when somebody puts the directory back: who can wait does
// (disk.Denied).
type replacedError struct{ dir, how string }

func (e *replacedError) Error() string {
	return fmt.Sprintf("data directory %s %v: %s. Nothing is changed in it: put the directory back that was there, or stop this ovs up, and start it where that one is now", e.dir, ErrReplaced, e.how)
}

func (e *replacedError) Unwrap() []error { return []error{ErrReplaced, disk.ErrAside, unix.EACCES} }

func (d *Directory) replaced(format string, args ...any) error {
	return &replacedError{d.Path, fmt.Sprintf(format, args...)}
}

// Check returns an error that is ErrReplaced if there is something else where the
// directory was, or an older copy of it. What cannot be read says neither. The record
// is looked at here only: so that an older one keeps Guard shut, Check is called now
// and then.
func (d *Directory) Check() error {
	if err := d.here(); err != nil {
		return err
	}
	err := d.recorded()
	d.held.Lock()
	d.held.older = err
	d.held.Unlock()
	return err
}

// recorded is Check of the record.
func (d *Directory) recorded() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed != nil {
		return nil
	}
	there, _, err := read(d.fs, filepath.Join(d.Path, FormatFile))
	if err != nil {
		return nil
	}
	return d.sameRecord(there)
}

// sameRecord returns an error unless a record that was read is of this directory, and
// no older one. d.mu is held.
func (d *Directory) sameRecord(there Record) error {
	switch {
	case there.ID != d.ID:
		return d.replaced("it was %s, and is %s", d.ID, there.ID)
	case there.Generation < d.record.Generation:
		return d.replaced("generation %d of it is there, an older copy, and this process is at %d", there.Generation, d.record.Generation)
	}
	return nil
}

// shut is why no name in the directory is to be used, or nil.
func (d *Directory) shut() error {
	if err := d.here(); err != nil {
		return err
	}
	d.held.Lock()
	defer d.held.Unlock()
	return d.held.older
}

// here is Check of the lock alone.
func (d *Directory) here() error {
	name := filepath.Join(d.Path, LockFile)
	info, err := d.fs.Stat(name)
	d.held.Lock()
	defer d.held.Unlock()
	switch {
	case d.held.closed:
		return nil
	case err == nil && disk.SameInode(info, d.held.file):
		return nil
	case err == nil:
		// It may have been made again since the stat, by a call beside this one.
		if info, err = d.fs.Stat(name); err == nil && disk.SameInode(info, d.held.file) {
			return nil
		}
		return d.replaced("its file %s is not the one that this process holds", LockFile)
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR):
		return nil
	}
	return d.relock(name)
}

// relock makes the lock again that somebody has removed, if the directory is the same:
// without it another process could take that. d.held is locked.
func (d *Directory) relock(name string) error {
	info, err := d.fs.Stat(d.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d.replaced("nothing is there")
	case err != nil:
		return nil
	case !disk.SameInode(info, d.held.dir):
		return d.replaced("another directory is there")
	}
	if _, err := d.fs.Stat(filepath.Join(d.Path, FormatFile)); errors.Is(err, fs.ErrNotExist) {
		return d.replaced("it was emptied")
	}
	lock, err := d.fs.Lock(name)
	switch {
	case errors.Is(err, disk.ErrLocked):
		return d.replaced("its file %s was removed, and another process holds the one that is there", LockFile)
	case err != nil:
		return nil
	}
	if info, err = d.fs.Stat(name); err != nil {
		return lock.Close()
	}
	d.held.locks, d.held.file = append(d.held.locks, lock), info
	return nil
}

// Guard returns the file system of the directory for all that is in it: once the
// directory is replaced no name in it is looked up or changed, but by an error that is
// ErrReplaced. Open files go on.
func (d *Directory) Guard() disk.FS { return guarded{d.fs, d} }

type guarded struct {
	under disk.FS
	dir   *Directory
}

// pass returns nil if none of the names is in the directory, or that is still there.
func (g guarded) pass(names ...string) error {
	for _, name := range names {
		if below, ok := strings.CutPrefix(name, g.dir.Path); ok && (below == "" || below[0] == '/') {
			return g.dir.shut()
		}
	}
	return nil
}

func (g guarded) OpenFile(name string, flag disk.Flag, perm fs.FileMode) (disk.File, error) {
	if err := g.pass(name); err != nil {
		return nil, err
	}
	return g.under.OpenFile(name, flag, perm)
}

func (g guarded) Rename(oldName, newName string) error {
	if err := g.pass(oldName, newName); err != nil {
		return err
	}
	return g.under.Rename(oldName, newName)
}

func (g guarded) Link(oldName, newName string) error {
	if err := g.pass(oldName, newName); err != nil {
		return err
	}
	return g.under.Link(oldName, newName)
}

func (g guarded) Remove(name string) error {
	if err := g.pass(name); err != nil {
		return err
	}
	return g.under.Remove(name)
}

func (g guarded) RemoveAll(name string) error {
	if err := g.pass(name); err != nil {
		return err
	}
	return g.under.RemoveAll(name)
}

func (g guarded) MkdirAll(name string, perm fs.FileMode) error {
	if err := g.pass(name); err != nil {
		return err
	}
	return g.under.MkdirAll(name, perm)
}

func (g guarded) ReadDir(name string) ([]string, error) {
	if err := g.pass(name); err != nil {
		return nil, err
	}
	return g.under.ReadDir(name)
}

func (g guarded) Stat(name string) (fs.FileInfo, error) {
	if err := g.pass(name); err != nil {
		return nil, err
	}
	return g.under.Stat(name)
}

func (g guarded) SyncDir(name string) error {
	if err := g.pass(name); err != nil {
		return err
	}
	return g.under.SyncDir(name)
}

// SyncAll makes all of a file system durable, where the disk below can; see
// disk.SyncName.
func (g guarded) SyncAll(name string) error {
	all, ok := g.under.(interface{ SyncAll(name string) error })
	if !ok {
		return &fs.PathError{Op: "syncall", Path: name, Err: errors.ErrUnsupported}
	}
	if err := g.pass(name); err != nil {
		return err
	}
	return all.SyncAll(name)
}

func (g guarded) Lock(name string) (io.Closer, error) {
	if err := g.pass(name); err != nil {
		return nil, err
	}
	return g.under.Lock(name)
}

// Statfs reports the room; see disk.FS. Nothing depends on whose it is for long.
func (g guarded) Statfs(name string) (disk.Usage, error) { return g.under.Statfs(name) }

func (g guarded) Private(name string) (fs.FileMode, error) {
	if err := g.pass(name); err != nil {
		return 0, err
	}
	return g.under.Private(name)
}
