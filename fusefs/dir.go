package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync/atomic"
	"syscall"
	"unicode"
	"unicode/utf8"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs/filetree"
)

// dirNode is a directory: one of the tree, or the components of vDisk names
// before the last.
type dirNode struct {
	gofs.Inode
	fs   *FS
	path atomic.Pointer[string] // now, "" of the root
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

	_ gofs.NodeSetxattrer  = (*dirNode)(nil)
	_ gofs.NodeOnForgetter = (*dirNode)(nil)
)

const (
	dirMode  = 0o755
	fileMode = 0o600
)

// where is the path of the directory now, "" for the root.
func (d *dirNode) where() string { return *d.path.Load() }

// OnForget implements gofs.NodeOnForgetter.
func (d *dirNode) OnForget() {
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	if name := d.where(); d.fs.dirs[name] == d {
		delete(d.fs.dirs, name)
	}
}

// child returns the path of a name in the directory, and the vDisk's name if
// it is that of one's file.
func (d *dirNode) child(name string) (full, disk string, isDisk bool) {
	full = join(d.where(), name)
	disk, isDisk = strings.CutSuffix(full, suffix)
	return full, disk, isDisk && name != suffix
}

// Lookup implements gofs.NodeLookuper.
func (d *dirNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	full, disk, isDisk := d.child(name)
	if full == snapshotsDir {
		return d.fs.snapDirOf(ctx, &d.Inode, "", out), 0
	}
	if isDisk {
		n, i, err := d.fs.find(ctx, disk)
		if err == nil {
			n.show(&out.Attr, i.Size)
			return d.NewInode(ctx, n, gofs.StableAttr{Mode: syscall.S_IFREG, Ino: n.ino}), 0
		}
		// A directory may be named so that leads to a vDisk NAME.raw/OTHER.
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, errnoOf(err)
		}
	}
	if len(name) > nameMax {
		return nil, syscall.ENAMETOOLONG
	}
	if e, ok := d.fs.tree.Get(full); ok && e.Kind == filetree.File {
		n := d.fs.fileOf(e)
		n.show(&out.Attr)
		return d.NewInode(ctx, n, gofs.StableAttr{Mode: syscall.S_IFREG, Ino: treeIno(e.Node)}), 0
	}
	a, err := d.fs.directory(ctx, full)
	if err != nil {
		return nil, errnoOf(err)
	}
	attrs(&out.Attr, syscall.S_IFDIR, a, 0)
	return d.NewInode(ctx, d.fs.dirOf(full), gofs.StableAttr{Mode: syscall.S_IFDIR}), 0
}

// Readdir implements gofs.NodeReaddirer.
func (d *dirNode) Readdir(ctx context.Context) (gofs.DirStream, syscall.Errno) {
	return stream(ctx, func(ctx context.Context) ([]entry, error) {
		dir := d.where()
		list, err := d.fs.entries(ctx, dir)
		if dir == "" {
			list = append(list, entry{snapshotsDir, true})
		}
		return list, err
	})
}

// nameMax is the longest name in a directory that can be made, in bytes.
const nameMax = 255

// nameError refuses a path that nothing can have.
func nameError(full, base string, isDisk bool) error {
	disk := strings.TrimSuffix(full, suffix)
	switch {
	case len(base) > nameMax || len(full) > filetree.MaxPath:
		return syscall.ENAMETOOLONG
	case base == suffix, !filetree.Valid(full):
		return syscall.EINVAL
	case isDisk && (strings.ContainsRune(disk, '@') || !utf8.ValidString(disk) || strings.ContainsFunc(disk, unicode.IsControl)):
		return syscall.EINVAL // no vDisk can be named so
	}
	return nil
}

// free refuses a name that something has, or that nothing can have, and returns
// the node of the tree that the directory has.
func (d *dirNode) free(ctx context.Context, name string) (dir uint64, isDisk bool, err error) {
	full, disk, isDisk := d.child(name)
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
		_, err = d.fs.directory(ctx, full)
	}
	switch {
	case err == nil:
		return 0, isDisk, syscall.EEXIST
	case errors.Is(err, fs.ErrNotExist):
		dir, err = d.fs.keep(ctx, d.where())
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
	full, e, err := d.fs.tree.MakeIn(ctx, dir, name, filetree.Entry{Kind: kind, Attr: d.fs.newAttr(ctx, mode)})
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	stable := gofs.StableAttr{Mode: syscall.S_IFREG, Ino: treeIno(e.Node)}
	if isDisk {
		n := d.fs.emptyOf(strings.TrimSuffix(full, suffix), e)
		n.opened()
		n.show(&out.Attr, 0)
		return d.NewInode(ctx, n, stable), &diskHandle{n}, openFlags, 0
	}
	n := d.fs.fileOf(e)
	if err := n.open(ctx); err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	n.show(&out.Attr)
	return d.NewInode(ctx, n, stable), &fileHandle{n}, 0, 0
}

// Mkdir implements gofs.NodeMkdirer.
func (d *dirNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	dir, isDisk, err := d.free(ctx, name)
	if isDisk && err == nil {
		err = syscall.EINVAL
	}
	if err != nil {
		return nil, errnoOf(err)
	}
	full, e, err := d.fs.tree.MakeIn(ctx, dir, name, filetree.Entry{Kind: filetree.Directory, Attr: d.fs.newAttr(ctx, mode)})
	if err != nil {
		return nil, errnoOf(err)
	}
	attrs(&out.Attr, syscall.S_IFDIR, e.Attr, 0)
	return d.NewInode(ctx, d.fs.newDir(full), gofs.StableAttr{Mode: syscall.S_IFDIR}), 0
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
	// Not while a file in it is made a vDisk, or it is moved.
	d.fs.moving.RLock()
	defer d.fs.moving.RUnlock()
	list, err := d.fs.entries(ctx, full)
	if err == nil && len(list) > 0 {
		err = syscall.ENOTEMPTY
	}
	if err == nil {
		err = d.fs.tree.Remove(ctx, full)
	}
	if err == nil {
		d.fs.forgetDir(full)
	}
	return errnoOf(err)
}

// Unlink implements gofs.NodeUnlinker. Of a vDisk's file it deletes the vDisk,
// EBUSY while it is open or has clones.
func (d *dirNode) Unlink(ctx context.Context, name string) syscall.Errno {
	for tries := 1; ; tries++ {
		dir, err := d.unlink(ctx, name)
		if !errors.Is(err, fs.ErrNotExist) || tries == renamedMax || d.settled() == dir {
			return errnoOf(err)
		}
	}
}

// unlink deletes what has a name in the directory, and returns where that was
// then: what fails for its moving is done again.
func (d *dirNode) unlink(ctx context.Context, name string) (dir string, err error) {
	d.fs.moving.RLock()
	dir = d.where()
	full, disk, isDisk := d.child(name)
	var n *diskNode
	if isDisk {
		n, _, err = d.fs.find(ctx, disk)
	} else {
		err = d.fs.tree.Remove(ctx, full)
	}
	d.fs.moving.RUnlock()
	if err != nil || !isDisk {
		return dir, err
	}
	if _, err := d.fs.keep(ctx, dir); err != nil {
		return dir, err
	}
	return dir, n.remove(ctx, disk)
}

// settled is the path of the directory when a renaming under way has ended.
func (d *dirNode) settled() string {
	d.fs.moving.RLock()
	defer d.fs.moving.RUnlock()
	return d.where()
}

// Getattr implements gofs.NodeGetattrer.
func (d *dirNode) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	a, err := d.fs.directory(ctx, d.where())
	if err == nil {
		attrs(&out.Attr, syscall.S_IFDIR, a, 0)
	}
	return errnoOf(err)
}

// Setattr implements gofs.NodeSetattrer; the root is the mount's.
func (d *dirNode) Setattr(ctx context.Context, f gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	dir := d.where()
	if dir == "" {
		return syscall.EPERM
	}
	node, err := d.fs.keep(ctx, dir)
	if err != nil {
		return errnoOf(err)
	}
	if _, err := d.fs.tree.Set(ctx, node, func(a *filetree.Attr) { change(a, in) }); err != nil {
		return errnoOf(err)
	}
	return d.Getattr(ctx, f, out)
}

// Fsync implements gofs.NodeFsyncer: what a directory has is durable when the
// call that made it returns.
func (d *dirNode) Fsync(context.Context, gofs.FileHandle, uint32) syscall.Errno { return 0 }

// Statfs implements gofs.NodeStatfser.
func (d *dirNode) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return errnoOf(d.fs.statfs(ctx, out))
}
