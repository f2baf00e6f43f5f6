package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"

	"openvstorage/fusefs/filetree"
)

const renameNoReplace = 1 // RENAME_NOREPLACE of renameat2(2)

// Rename implements gofs.NodeRenamer. A vDisk takes only a name that is free (EEXIST):
// no rename ever deletes a vDisk. Small files replace each other. A directory moves with
// all that is below it, vDisks as well, in one step.
func (d *dirNode) Rename(ctx context.Context, name string, to gofs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if flags&^renameNoReplace != 0 {
		return syscall.EINVAL
	}
	target, ok := to.(*dirNode)
	if !ok {
		return syscall.EROFS
	}
	from, disk, isDisk := d.child(name)
	onto, ontoDisk, isOntoDisk := target.child(newName)
	if from == onto {
		return 0
	}
	if onto == snapshotsDir || from == snapshotsDir {
		return syscall.EPERM
	}
	if err := nameError(onto, newName, isOntoDisk); err != nil {
		return errnoOf(err)
	}
	replace := flags&renameNoReplace == 0
	at := time.Now().UnixNano()
	if isDisk {
		n, _, err := d.fs.find(ctx, disk)
		switch {
		case err == nil && !isOntoDisk:
			return syscall.EPERM
		case err == nil:
			if _, err = d.fs.dirs.persist(ctx, d.where()); err == nil {
				_, err = d.fs.dirs.persist(ctx, target.where())
			}
			if err == nil {
				err = n.rename(ctx, ontoDisk, at)
			}
			if err == nil {
				d.fs.times.touch(at, d.where(), target.where())
				d.fs.keeper.storeDirsSoon(ctx)
				_ = n.attrs.set(ctx, renamed) // the renaming is done, even if its time is not stored
			}
			return errnoOf(err)
		case !errors.Is(err, fs.ErrNotExist):
			return errnoOf(err)
		}
	}
	if isOntoDisk {
		return syscall.EPERM
	}
	err := d.fs.dirs.move(ctx, from, onto, replace, at)
	if err == nil {
		d.fs.times.touch(at, d.where(), target.where())
		if e, ok := d.fs.tree.Get(onto); ok {
			_, _ = d.fs.tree.Set(ctx, e.Node, renamed) // the renaming is done
		}
	}
	return errnoOf(err)
}

// renamed gives what was renamed its time of change.
func renamed(a *filetree.Attr) { a.Changed = time.Now().UnixNano() }

// rename moves the file to a free name, at a time.
func (n *diskNode) rename(ctx context.Context, name string, at int64) error {
	if err := n.file.changing.Take(ctx); err != nil { // it stays what it is, a vDisk or an empty file
		return err
	}
	defer n.file.changing.Give()
	if err := n.fs.dirs.moving.Share(ctx); err != nil {
		return err
	}
	defer n.fs.dirs.moving.Unshare()
	switch _, _, err := n.fs.find(ctx, name); {
	case err == nil:
		return fmt.Errorf("%s: %w", name, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	var err error
	if n.file.made() {
		err = n.file.named(ctx, func(old string) error { return n.fs.pool.Rename(ctx, old, name) })
	} else {
		file, _ := n.file.path()
		err = n.fs.tree.Move(ctx, file, name+suffix, false, at, nil)
	}
	if err == nil {
		n.file.name.Store(&name)
	}
	return err
}
