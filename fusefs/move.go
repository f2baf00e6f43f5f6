package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"openvstorage/fusefs/filetree"
)

// move moves a small file or a directory, at a time. The directories that it leaves and
// comes to stay, even if nothing else is in them.
func (d *directories) move(ctx context.Context, from, onto string, replace bool, at int64) error {
	for _, name := range []string{from, onto} {
		dir, _ := splitPath(name)
		if _, err := d.persist(ctx, dir); err != nil {
			return err
		}
	}
	if e, there := d.tree.Get(from); there && e.Kind == filetree.File {
		return d.moveFile(ctx, from, onto, replace, at)
	}
	if err := d.moving.Take(ctx); err != nil {
		return err
	}
	defer d.moving.Give()
	if _, err := d.attr(ctx, from); err != nil {
		return err
	}
	if _, base := splitPath(onto); dirNameError(base) != nil {
		return syscall.EINVAL
	}
	return d.moveDir(ctx, from, onto, replace, at)
}

// moveFile moves a small file.
func (d *directories) moveFile(ctx context.Context, from, onto string, replace bool, at int64) error {
	switch _, err := d.attr(ctx, onto); {
	case err == nil && replace:
		return syscall.EISDIR
	case err == nil:
		return syscall.EEXIST
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		return err
	}
	return d.tree.Move(ctx, from, onto, replace, at, nil)
}

// moveDir moves a directory: the vDisks below it get their names and the entries
// of the tree their paths in one step of the group that keeps both. A stop in
// between leaves all as it was, or all moved. Nothing that is open notices.
// d.moving is held alone.
func (d *directories) moveDir(ctx context.Context, from, onto string, replace bool, at int64) error {
	if err := d.vacant(ctx, onto, replace); err != nil {
		return err
	}
	disks, err := d.index.leads(ctx, from)
	if err != nil {
		return err
	}
	if !disks {
		// The tree moves entries. A directory that only entries below it imply has none.
		if _, err = d.persistLocked(ctx, from); err == nil {
			err = d.tree.Move(ctx, from, onto, replace, at, nil)
		}
	} else if err = d.fits(ctx, from, onto); err == nil {
		// Whatever may take long is waited for before the tree is held: others change it.
		if err = d.pool.SettleBelow(ctx, from, onto); err != nil {
			return err
		}
		err = d.tree.Move(ctx, from, onto, replace, at, func(ctx context.Context, swaps []filetree.Swap) error {
			return d.pool.RenameBelow(ctx, from, onto, swaps)
		})
	}
	if err == nil {
		d.times.move(from, onto)
		d.nodes.move(from, onto)
	}
	return err
}

// vacant returns nil if a directory may get the path.
func (d *directories) vacant(ctx context.Context, onto string, replace bool) error {
	_, err := d.attr(ctx, onto)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case !replace && (err == nil || errors.Is(err, syscall.ENOTDIR)):
		return syscall.EEXIST
	case err != nil:
		return err // ENOTDIR: it is a file
	}
	list, err := d.entries(ctx, onto)
	if err == nil && len(list) > 0 {
		err = syscall.ENOTEMPTY
	}
	return err
}

// fits returns nil if no vDisk below a directory gets a name that is too long.
func (d *directories) fits(ctx context.Context, from, onto string) error {
	infos, err := d.pool.List(ctx)
	if err != nil {
		return err
	}
	for _, i := range infos {
		if rest, ok := strings.CutPrefix(i.Name, from+"/"); ok && len(onto)+1+len(rest) > filetree.MaxPath {
			return fmt.Errorf("vDisk %.100q: would get a name of %d bytes: %w", i.Name, len(onto)+1+len(rest), syscall.ENAMETOOLONG)
		}
	}
	return nil
}
