package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs/filetree"
	"openvstorage/internal/ctxlock"
)

// directories are the directories of the mount: those that have an entry in the tree,
// and those that only the names of vDisks below them imply.
type directories struct {
	pool  Pool
	tree  *filetree.Tree
	index *index
	times *dirTimes
	nodes *nodes
	owner owner
	start time.Time // of the mount

	// moving is had alone while a directory is renamed, and shared by what makes,
	// empties or renames a vDisk's file: that changes the tree and the pool one after
	// the other. It is taken after a node's locks.
	moving ctxlock.Shared
}

// splitPath parts a path into its directory, "" for the root, and its last name.
func splitPath(name string) (dir, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

func join(dir, name string) string { return path.Join(dir, name) }

// attr returns the attributes of a directory, made or implied by names below it. It
// fails with fs.ErrNotExist or ENOTDIR.
func (d *directories) attr(ctx context.Context, dir string) (filetree.Attr, error) {
	if err := d.index.refresh(ctx); err != nil {
		return filetree.Attr{}, err
	}
	at := d.times.changed(dir)
	implied := d.owner.attr(dirMode, max(d.start.UnixNano(), at))
	if dir == "" {
		return implied, nil
	}
	if e, ok := d.tree.Get(dir); ok {
		if e.Kind != filetree.Directory {
			return implied, syscall.ENOTDIR
		}
		e.Modified, e.Changed = max(e.Modified, at), max(e.Changed, at)
		return e.Attr, nil
	}
	there, err := d.index.leads(ctx, dir)
	if err == nil && !there && len(d.tree.List(dir)) == 0 {
		err = fmt.Errorf("directory %s: %w", dir, fs.ErrNotExist)
	}
	return implied, err
}

// persist gives a directory that is only implied an entry, so that it stays when nothing
// is below it. It returns the directory's node of the tree, 0 for the root.
func (d *directories) persist(ctx context.Context, dir string) (uint64, error) {
	if e, ok := d.tree.Get(dir); ok && e.Kind == filetree.Directory || dir == "" {
		return e.Node, nil
	}
	// It must not move away before it has an entry.
	if err := d.moving.Share(ctx); err != nil {
		return 0, err
	}
	defer d.moving.Unshare()
	return d.persistLocked(ctx, dir)
}

// persistLocked is persist; d.moving is held, alone or shared.
func (d *directories) persistLocked(ctx context.Context, dir string) (uint64, error) {
	a, err := d.attr(ctx, dir)
	if err != nil {
		return 0, err
	}
	e, err := d.tree.Make(ctx, dir, filetree.Entry{Kind: filetree.Directory, Attr: a})
	if errors.Is(err, fs.ErrExist) {
		e, _ = d.tree.Get(dir)
		err = nil
	}
	return e.Node, err
}

// newAttr is what the caller of a request gives what he makes in a directory.
func (d *directories) newAttr(ctx context.Context, dir string, mode uint32, isDir bool) filetree.Attr {
	a := d.owner.attr(mode&0o7777, time.Now().UnixNano())
	if caller, ok := fuse.FromContext(ctx); ok {
		a.UID, a.GID = caller.Uid, caller.Gid
	}
	if up, ok := d.tree.Get(dir); ok {
		setGroup(&a, up.Attr, isDir)
	}
	return a
}

// entries lists a directory: what the tree has in it, vDisks, and what leads to
// vDisks further below. No name is twice in it: if an earlier release made vDisks that
// imply a directory of a file's name, the file is listed, as Lookup finds it.
func (d *directories) entries(ctx context.Context, dir string) ([]entry, error) {
	b, err := d.index.disksIn(ctx, dir)
	if err != nil {
		return nil, err
	}
	var list []entry
	isDir := map[string]bool{}
	for _, e := range d.tree.List(dir) {
		list = append(list, entry{e.Name, e.Kind == filetree.Directory})
	}
	list = append(list, b.list...)
	for _, e := range list {
		was, twice := isDir[e.name]
		isDir[e.name] = e.dir && (was || !twice)
	}
	if dir == "" {
		delete(isDir, snapshotsDir)
	}
	return slices.DeleteFunc(list, func(e entry) bool {
		dir, left := isDir[e.name]
		if !left || e.dir != dir {
			return true
		}
		delete(isDir, e.name)
		return false
	}), nil
}

// links is how many links a directory has: its name, its ".", and ".." of each
// directory in it.
func (d *directories) links(ctx context.Context, dir string) (uint32, error) {
	b, err := d.index.disksIn(ctx, dir)
	if err != nil {
		return 0, err
	}
	n := 2 + d.tree.Directories(dir)
	if dir == "" {
		n++ // .snapshots
	}
	for _, e := range b.list {
		if !e.dir || dir == "" && e.name == snapshotsDir || b.holds[entry{e.name, false}] {
			continue
		}
		if _, there := d.tree.Get(path.Join(dir, e.name)); !there {
			n++
		}
	}
	return uint32(n), nil
}
