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
// another one made in its place, something is mounted there, or a copy is restored over
// it. Open files stay what they are and go on being used. But whatever is looked up,
// made or removed by its path would be in the other directory. So all use of the
// directory goes through Guard. Each call of Guard that uses a path first checks the
// lock file: unless the file of that name is the one that this process holds, the path
// is not used. The check costs a stat. Calls on open files are not checked.
//
// If the directory is moved away between the check and the call, that call does not
// notice, but the next one does.

// replacedError says what lies in the place of the directory. Like a lack of rights it
// says nothing about the disk, and it passes when somebody puts the directory back:
// callers that can wait do so (disk.Denied).
type replacedError struct{ dir, how string }

func (e *replacedError) Error() string {
	return fmt.Sprintf("data directory %s %v: %s. Nothing is changed in it: put the directory back that was there, or stop this ovs up, and start it where that one is now", e.dir, ErrReplaced, e.how)
}

func (e *replacedError) Unwrap() []error { return []error{ErrReplaced, disk.ErrAside, unix.EACCES} }

func (d *Directory) replaced(format string, args ...any) error {
	return &replacedError{d.Path, fmt.Sprintf(format, args...)}
}

// Check returns an error that is ErrReplaced if something else, or an older copy, lies
// where the directory was. If the record cannot be read, Check returns nil: that proves
// neither. Guard checks only the lock on each call; the record is read only here. Check
// must therefore be called now and then, so that Guard refuses an older copy, too.
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

// recorded is the part of Check that reads the record.
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

// sameRecord returns an error unless the record that was read is of this directory and
// not older than the one in memory. d.mu is held.
func (d *Directory) sameRecord(there Record) error {
	switch {
	case there.ID != d.ID:
		return d.replaced("it was %s, and is %s", d.ID, there.ID)
	case there.Generation < d.record.Generation:
		return d.replaced("generation %d of it is there, an older copy, and this process is at %d", there.Generation, d.record.Generation)
	}
	return nil
}

// shut returns why no name in the directory may be used, or nil.
func (d *Directory) shut() error {
	if err := d.here(); err != nil {
		return err
	}
	d.held.Lock()
	defer d.held.Unlock()
	return d.held.older
}

// here is the part of Check that looks at the lock.
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
		// Another call may have made the lock again since the stat.
		if info, err = d.fs.Stat(name); err == nil && disk.SameInode(info, d.held.file) {
			return nil
		}
		return d.replaced("its file %s is not the one that this process holds", LockFile)
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR):
		return nil
	}
	return d.relock(name)
}

// relock makes the lock file again after somebody has removed it, if the directory is
// the same: without the file another process could claim the directory. d.held is
// locked.
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

// Guard returns the file system for everything in the directory. Once the directory is
// replaced, calls that look up or change a name in it return an error that is
// ErrReplaced. Files that are open go on.
func (d *Directory) Guard() disk.FS { return guarded{d.fs, d} }

type guarded struct {
	under disk.FS
	dir   *Directory
}

// pass returns nil if none of the names is in the directory, or if the directory is
// still in its place.
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

// SyncAll makes everything on a file system durable, if the disk below can do that; see
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

// Statfs reports the free room; see disk.FS. It is not guarded: nothing relies for long
// on which directory it was.
func (g guarded) Statfs(name string) (disk.Usage, error) { return g.under.Statfs(name) }

func (g guarded) Private(name string) (fs.FileMode, error) {
	if err := g.pass(name); err != nil {
		return 0, err
	}
	return g.under.Private(name)
}
