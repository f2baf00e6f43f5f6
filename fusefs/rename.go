package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"

	"openvstorage/fusefs/filetree"
)

const renameNoReplace = 1 // RENAME_NOREPLACE of renameat2(2)

// Rename implements gofs.NodeRenamer. A vDisk takes names that are free only:
// it is never deleted by a rename (EEXIST). Small files replace each other. A
// directory moves with all that is below it, in one step, vDisks as well.
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
			if _, err = d.fs.keep(ctx, d.where()); err == nil {
				_, err = d.fs.keep(ctx, target.where())
			}
			if err == nil {
				err = n.rename(ctx, ontoDisk, at)
			}
			if err == nil {
				d.fs.touchDirs(at, d.where(), target.where())
				d.fs.keepDirsSoon(ctx)
				_ = n.setAttr(ctx, renamed) // the renaming is done, whatever becomes of its time
			}
			return errnoOf(err)
		case !errors.Is(err, fs.ErrNotExist):
			return errnoOf(err)
		}
	}
	if isOntoDisk {
		return syscall.EPERM
	}
	err := d.fs.move(ctx, from, onto, replace, at)
	if err == nil {
		d.fs.touchDirs(at, d.where(), target.where())
		if e, ok := d.fs.tree.Get(onto); ok {
			_, _ = d.fs.tree.Set(ctx, e.Node, renamed) // the renaming is done
		}
	}
	return errnoOf(err)
}

// renamed gives what was renamed its time of change.
func renamed(a *filetree.Attr) { a.Changed = time.Now().UnixNano() }

// move moves a small file or a directory, at a time. The directories that it leaves and
// comes to stay, though nothing else be in them.
func (f *FS) move(ctx context.Context, from, onto string, replace bool, at int64) error {
	for _, name := range []string{from, onto} {
		dir, _ := splitPath(name)
		if _, err := f.keep(ctx, dir); err != nil {
			return err
		}
	}
	if e, there := f.tree.Get(from); there && e.Kind == filetree.File {
		return f.moveFile(ctx, from, onto, replace, at)
	}
	if err := f.moving.take(ctx); err != nil {
		return err
	}
	defer f.moving.give()
	if _, err := f.directory(ctx, from); err != nil {
		return err
	}
	if _, base := splitPath(onto); dirNameError(base) != nil {
		return syscall.EINVAL
	}
	return f.moveDir(ctx, from, onto, replace, at)
}

func splitPath(name string) (dir, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

// moveFile moves a small file.
func (f *FS) moveFile(ctx context.Context, from, onto string, replace bool, at int64) error {
	switch _, err := f.directory(ctx, onto); {
	case err == nil && replace:
		return syscall.EISDIR
	case err == nil:
		return syscall.EEXIST
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		return err
	}
	return f.tree.Move(ctx, from, onto, replace, at, nil)
}

// moveDir moves a directory: the vDisks below it get their names and the entries
// of the tree their paths in one step of the group that keeps both. A stop in
// between leaves all as it was, or all moved. Nothing that is open notices.
// f.moving is held.
func (f *FS) moveDir(ctx context.Context, from, onto string, replace bool, at int64) error {
	if err := f.vacant(ctx, onto, replace); err != nil {
		return err
	}
	disks, err := f.leads(ctx, from)
	if err != nil {
		return err
	}
	if !disks {
		// One that nothing but entries below it imply has none of its own.
		if _, err = f.keepLocked(ctx, from); err == nil {
			err = f.tree.Move(ctx, from, onto, replace, at, nil)
		}
	} else if err = f.fits(ctx, from, onto); err == nil {
		// Whatever may take long is waited for before the tree is held: others change it.
		if err = f.pool.SettleBelow(ctx, from, onto); err != nil {
			return err
		}
		err = f.tree.Move(ctx, from, onto, replace, at, func(ctx context.Context, swaps []filetree.Swap) error {
			return f.pool.RenameBelow(ctx, from, onto, swaps)
		})
	}
	if err == nil {
		f.moved(from, onto)
	}
	return err
}

// vacant returns nil if a directory may get the path.
func (f *FS) vacant(ctx context.Context, onto string, replace bool) error {
	_, err := f.directory(ctx, onto)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case !replace && (err == nil || errors.Is(err, syscall.ENOTDIR)):
		return syscall.EEXIST
	case err != nil:
		return err // ENOTDIR: it is a file
	}
	list, err := f.entries(ctx, onto)
	if err == nil && len(list) > 0 {
		err = syscall.ENOTEMPTY
	}
	return err
}

// fits returns nil if no vDisk below a directory gets a name that is too long.
func (f *FS) fits(ctx context.Context, from, onto string) error {
	infos, err := f.pool.List(ctx)
	if err != nil {
		return err
	}
	for _, i := range infos {
		if rest, ok := under(from, i.Name); ok && len(onto)+1+len(rest) > filetree.MaxPath {
			return fmt.Errorf("vDisk %.100s would get a name of %d bytes: %w", i.Name, len(onto)+1+len(rest), syscall.ENAMETOOLONG)
		}
	}
	return nil
}

// rename moves the file to a free name, at a time.
func (n *diskNode) rename(ctx context.Context, name string, at int64) error {
	if err := n.keep.take(ctx); err != nil { // it stays what it is, a vDisk or an empty file
		return err
	}
	defer n.keep.give()
	if err := n.fs.moving.share(ctx); err != nil {
		return err
	}
	defer n.fs.moving.unshare()
	switch _, _, err := n.fs.find(ctx, name); {
	case err == nil:
		return fmt.Errorf("%s: %w", name, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	var err error
	if n.made() {
		err = n.named(ctx, func(old string) error { return n.fs.pool.Rename(ctx, old, name) })
	} else {
		file, _, _ := n.fs.tree.Path(n.which.Load().node)
		err = n.fs.tree.Move(ctx, file, name+suffix, false, at, nil)
	}
	if err == nil {
		n.name.Store(&name)
	}
	return err
}
