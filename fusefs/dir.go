package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs/filetree"
	"openvstorage/internal/naming"
)

// dirNode is a directory. It has an entry in the tree, or names of vDisks below it imply
// it.
type dirNode struct {
	gofs.Inode
	fs   *FS
	path atomic.Pointer[string] // now, "" of the root

	removed atomic.Bool // another one may have its path
	sought  int         // nodes.prunings when it was looked for last; guarded by nodes.mu
	last    atomic.Pointer[filetree.Attr]
}

var (
	_ gofs.NodeLookuper  = (*dirNode)(nil)
	_ gofs.NodeReaddirer = (*dirNode)(nil)
	_ gofs.NodeCreater   = (*dirNode)(nil)
	_ gofs.NodeMkdirer   = (*dirNode)(nil)
	_ gofs.NodeMknoder   = (*dirNode)(nil)
	_ gofs.NodeSymlinker = (*dirNode)(nil)
	_ gofs.NodeLinker    = (*dirNode)(nil)
	_ gofs.NodeRmdirer   = (*dirNode)(nil)
	_ gofs.NodeUnlinker  = (*dirNode)(nil)
	_ gofs.NodeRenamer   = (*dirNode)(nil)
	_ gofs.NodeStatfser  = (*dirNode)(nil)
	_ gofs.NodeGetattrer = (*dirNode)(nil)
	_ gofs.NodeSetattrer = (*dirNode)(nil)
	_ gofs.NodeFsyncer   = (*dirNode)(nil)

	_ gofs.NodeSetxattrer = (*dirNode)(nil)
)

const (
	dirMode  = 0o755
	fileMode = 0o600
)

// where is the path of the directory now, "" for the root.
func (d *dirNode) where() string { return *d.path.Load() }

// child returns the path of a name in the directory. If that is the path of a vDisk's
// file, it also returns the name of the vDisk.
func (d *dirNode) child(name string) (full, disk string, isDisk bool) {
	full = join(d.where(), name)
	disk, isDisk = strings.CutSuffix(full, suffix)
	return full, disk, isDisk && name != suffix
}

// Lookup implements gofs.NodeLookuper.
func (d *dirNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	full, disk, isDisk := d.child(name)
	if full == snapshotsDir {
		return d.fs.snapDirOf(ctx, &d.Inode, "", out)
	}
	if isDisk {
		n, i, err := d.fs.find(ctx, disk)
		if err == nil {
			n.attrs.show(ctx, &out.Attr, i)
			return d.fs.nodes.link(ctx, &d.Inode, name, n, gofs.StableAttr{Mode: syscall.S_IFREG, Ino: n.ino}), 0
		}
		// A directory may have that name: it leads to a vDisk NAME.raw/OTHER.
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, errnoOf(err)
		}
	}
	if len(name) > nameMax {
		return nil, syscall.ENAMETOOLONG
	}
	out.SetAttrTimeout(attrTimeout)
	if e, ok := d.fs.tree.Get(full); ok && e.Kind == filetree.File {
		n := d.fs.nodes.file(e)
		n.show(&out.Attr)
		return d.fs.nodes.link(ctx, &d.Inode, name, n, gofs.StableAttr{Mode: syscall.S_IFREG, Ino: treeIno(e.Node)}), 0
	}
	if _, err := d.fs.dirs.attr(ctx, full); err != nil {
		if isDisk && errors.Is(err, fs.ErrNotExist) {
			d.fs.copiers.seeks(ctx)
		}
		return nil, errnoOf(err)
	}
	sub := d.fs.nodes.dir(full)
	if err := sub.show(ctx, &out.Attr); err != nil {
		return nil, errnoOf(err)
	}
	return d.fs.nodes.link(ctx, &d.Inode, name, sub, gofs.StableAttr{Mode: syscall.S_IFDIR}), 0
}

// show fills in attributes. A directory that is removed has those that it had last, and
// no links.
func (d *dirNode) show(ctx context.Context, out *fuse.Attr) error {
	if !d.removed.Load() {
		dir := d.where()
		a, err := d.fs.dirs.attr(ctx, dir)
		var links uint32
		if err == nil {
			links, err = d.fs.dirs.links(ctx, dir)
		}
		switch {
		case err == nil:
			d.last.Store(&a)
			attrs(out, syscall.S_IFDIR, a, 0, 0)
			out.Nlink = links
			return nil
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
			return err
		}
	}
	a := d.fs.owner.attr(dirMode, 0)
	if last := d.last.Load(); last != nil {
		a = *last
	}
	attrs(out, syscall.S_IFDIR, a, 0, 0)
	out.Nlink = 0
	return nil
}

// Readdir implements gofs.NodeReaddirer.
func (d *dirNode) Readdir(ctx context.Context) (gofs.DirStream, syscall.Errno) {
	return stream(ctx, func(ctx context.Context) ([]entry, error) {
		dir := d.where()
		if d.removed.Load() {
			return nil, nil
		}
		list, err := d.fs.dirs.entries(ctx, dir)
		if dir == "" {
			list = append(list, entry{snapshotsDir, true})
		}
		return list, err
	})
}

// nameMax is the longest name in a directory that can be made, in bytes.
const nameMax = naming.ComponentMax

// nameError refuses a path for something new that nothing can get. It is not asked about
// small files and directories that an earlier release made: they keep their names.
func nameError(full, base string, isDisk bool) error {
	switch {
	case len(base) > nameMax || len(full) > filetree.MaxPath:
		return syscall.ENAMETOOLONG
	case base == suffix, !filetree.Valid(full), naming.CheckText(base) != nil:
		return syscall.EINVAL
	case isDisk && naming.Check(strings.TrimSuffix(full, suffix)) != nil:
		return syscall.EINVAL // no vDisk can be named so
	}
	return nil
}

// dirNameError refuses the name of a directory in which no vDisk could be.
func dirNameError(base string) error {
	if naming.Check(base) != nil {
		return syscall.EINVAL
	}
	return nil
}

// free refuses a name that something has, or that nothing can have. It returns the
// directory's node of the tree.
func (d *dirNode) free(ctx context.Context, name string) (dir uint64, isDisk bool, err error) {
	full, disk, isDisk := d.child(name)
	if d.removed.Load() {
		return 0, isDisk, syscall.ENOENT
	}
	if full == snapshotsDir {
		return 0, isDisk, syscall.EEXIST
	}
	if err := nameError(full, name, isDisk); err != nil {
		return 0, isDisk, err
	}
	if isDisk {
		_, _, err = d.fs.find(ctx, disk)
	}
	if !isDisk || errors.Is(err, fs.ErrNotExist) {
		if _, ok := d.fs.tree.Get(full); ok {
			return 0, isDisk, syscall.EEXIST
		}
		_, err = d.fs.dirs.attr(ctx, full)
	}
	switch {
	case err == nil:
		return 0, isDisk, syscall.EEXIST
	case errors.Is(err, fs.ErrNotExist):
		dir, err = d.fs.dirs.persist(ctx, d.where())
	}
	return dir, isDisk, err
}

// Create implements gofs.NodeCreater: NAME.raw becomes a vDisk when it gets a
// size, other names are small files.
func (d *dirNode) Create(ctx context.Context, name string, _, mode uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	dir, isDisk, err := d.free(ctx, name)
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	kind := filetree.File
	if isDisk {
		kind = filetree.EmptyDisk
	}
	full, e, err := d.fs.tree.MakeIn(ctx, dir, name, filetree.Entry{Kind: kind, Attr: d.fs.dirs.newAttr(ctx, d.where(), mode, false)})
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	d.fs.times.touch(e.Modified, d.where())
	stable := gofs.StableAttr{Mode: syscall.S_IFREG, Ino: treeIno(e.Node)}
	if isDisk {
		n := d.fs.nodes.emptyDisk(strings.TrimSuffix(full, suffix), e)
		n.open.openEmpty()
		n.attrs.show(ctx, &out.Attr, Info{})
		return d.fs.nodes.link(ctx, &d.Inode, name, n, stable), &diskHandle{n}, openFlags, 0
	}
	out.SetAttrTimeout(attrTimeout)
	n := d.fs.nodes.file(e)
	if err := n.open(ctx); err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	n.show(&out.Attr)
	return d.fs.nodes.link(ctx, &d.Inode, name, n, stable), &fileHandle{n}, 0, 0
}

// Mkdir implements gofs.NodeMkdirer.
func (d *dirNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	dir, _, err := d.free(ctx, name)
	if err == nil {
		err = dirNameError(name)
	}
	if err != nil {
		return nil, errnoOf(err)
	}
	full, e, err := d.fs.tree.MakeIn(ctx, dir, name, filetree.Entry{Kind: filetree.Directory, Attr: d.fs.dirs.newAttr(ctx, d.where(), mode, true)})
	if err != nil {
		return nil, errnoOf(err)
	}
	d.fs.times.forget(full) // of one that had the name before
	d.fs.times.touch(e.Modified, d.where())
	attrs(&out.Attr, syscall.S_IFDIR, e.Attr, 0, 0)
	out.Nlink = 2
	out.SetAttrTimeout(attrTimeout)
	return d.fs.nodes.link(ctx, &d.Inode, name, d.fs.nodes.newDir(full), gofs.StableAttr{Mode: syscall.S_IFDIR}), 0
}

// Mknod implements gofs.NodeMknoder: pipes, sockets and devices are not kept.
func (d *dirNode) Mknod(context.Context, string, uint32, uint32, *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Symlink implements gofs.NodeSymlinker: links are not kept.
func (d *dirNode) Symlink(context.Context, string, string, *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Link implements gofs.NodeLinker: a file has one name.
func (d *dirNode) Link(context.Context, gofs.InodeEmbedder, string, *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Rmdir implements gofs.NodeRmdirer.
func (d *dirNode) Rmdir(ctx context.Context, name string) syscall.Errno {
	full, _, _ := d.child(name)
	if full == snapshotsDir {
		return syscall.EBUSY
	}
	// No file in it becomes a vDisk meanwhile, and it is not moved.
	if err := d.fs.dirs.moving.Share(ctx); err != nil {
		return errnoOf(err)
	}
	defer d.fs.dirs.moving.Unshare()
	full, _, _ = d.child(name)
	list, err := d.fs.dirs.entries(ctx, full)
	if err == nil && len(list) > 0 {
		err = syscall.ENOTEMPTY
	}
	at := time.Now().UnixNano()
	if err == nil {
		err = d.fs.tree.Remove(ctx, full, at)
	}
	if err == nil {
		d.fs.nodes.forgetDir(full)
		d.fs.times.forget(full)
		d.fs.times.touch(at, d.where())
	}
	return errnoOf(err)
}

// Unlink implements gofs.NodeUnlinker. For the file of a vDisk it deletes the vDisk:
// EBUSY while that is open or has clones.
func (d *dirNode) Unlink(ctx context.Context, name string) syscall.Errno {
	for tries := 1; ; tries++ {
		at := time.Now().UnixNano()
		dir, err := d.unlink(ctx, name, at)
		if err == nil {
			d.fs.times.touch(at, d.where())
			d.fs.keeper.storeDirsSoon(ctx)
		}
		if !errors.Is(err, fs.ErrNotExist) || tries == renamedMax || d.settled(ctx) == dir {
			return errnoOf(err)
		}
	}
}

// unlink deletes what has a name in the directory, at a time, and returns where the
// directory was then: if it fails because the directory was moved meanwhile, Unlink does
// it again.
func (d *dirNode) unlink(ctx context.Context, name string, at int64) (dir string, err error) {
	if err := d.fs.dirs.moving.Share(ctx); err != nil {
		return d.where(), err
	}
	dir = d.where()
	full, disk, isDisk := d.child(name)
	var n *diskNode
	if isDisk {
		n, _, err = d.fs.find(ctx, disk)
	} else {
		err = d.fs.tree.Remove(ctx, full, at)
	}
	d.fs.dirs.moving.Unshare()
	if err != nil || !isDisk {
		return dir, err
	}
	if _, err := d.fs.dirs.persist(ctx, dir); err != nil {
		return dir, err
	}
	return dir, n.remove(ctx, disk, at)
}

// settled is the path of the directory after any renaming that is under way has ended.
func (d *dirNode) settled(ctx context.Context) string {
	if d.fs.dirs.moving.Share(ctx) == nil {
		defer d.fs.dirs.moving.Unshare()
	}
	return d.where()
}

// Getattr implements gofs.NodeGetattrer.
func (d *dirNode) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.SetTimeout(attrTimeout)
	return errnoOf(d.show(ctx, &out.Attr))
}

// Setattr implements gofs.NodeSetattrer; the root is the mount's.
func (d *dirNode) Setattr(ctx context.Context, f gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	dir := d.where()
	if dir == "" {
		return syscall.EPERM
	}
	if d.removed.Load() {
		return errnoOf(d.setLast(ctx, in, &out.Attr))
	}
	node, err := d.fs.dirs.persist(ctx, dir)
	if err != nil {
		return errnoOf(err)
	}
	at := d.fs.times.changed(dir)
	if _, err := d.fs.tree.Set(ctx, node, func(a *filetree.Attr) {
		a.Modified, a.Changed = max(a.Modified, at), max(a.Changed, at)
		change(a, in)
	}); err != nil {
		return errnoOf(err)
	}
	d.fs.times.stored(dir, at)
	return d.Getattr(ctx, f, out)
}

// setLast changes a directory that is removed, for those who still have it.
func (d *dirNode) setLast(ctx context.Context, in *fuse.SetAttrIn, out *fuse.Attr) error {
	if last := d.last.Load(); last != nil {
		a := *last
		change(&a, in)
		d.last.Store(&a)
	}
	return d.show(ctx, out)
}

// Fsync implements gofs.NodeFsyncer. Nothing is left to do: every change of a directory
// is durable when its call returns.
func (d *dirNode) Fsync(context.Context, gofs.FileHandle, uint32) syscall.Errno { return 0 }

// Statfs implements gofs.NodeStatfser.
func (d *dirNode) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return errnoOf(d.fs.statfs(ctx, out))
}
