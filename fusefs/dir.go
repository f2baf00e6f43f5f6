package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs/filetree"
)

// dirNode is a directory: one of the tree, or the components of vDisk names
// before the last.
type dirNode struct {
	gofs.Inode
	fs *FS
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
)

const (
	dirMode         = 0o755
	fileMode        = 0o600
	renameNoReplace = 1 // RENAME_NOREPLACE of renameat2(2)
)

// where is the path of the directory now, "" for the root.
func (d *dirNode) where() string { return d.Path(d.Root()) }

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
		attrs(&out.Attr, syscall.S_IFDIR, d.fs.snapshotAttr(roDirMode, d.fs.start.UnixNano()), 0)
		return d.NewInode(ctx, &snapDir{fs: d.fs}, gofs.StableAttr{Mode: syscall.S_IFDIR}), 0
	}
	if isDisk {
		n, i, err := d.fs.find(ctx, disk)
		if err != nil {
			return nil, errnoOf(err)
		}
		n.show(&out.Attr, i.Size)
		return d.NewInode(ctx, n, gofs.StableAttr{Mode: syscall.S_IFREG, Ino: n.ino}), 0
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
	return d.NewInode(ctx, &dirNode{fs: d.fs}, gofs.StableAttr{Mode: syscall.S_IFDIR}), 0
}

// Readdir implements gofs.NodeReaddirer.
func (d *dirNode) Readdir(ctx context.Context) (gofs.DirStream, syscall.Errno) {
	dir := d.where()
	list, err := d.fs.entries(ctx, dir)
	if err != nil {
		return nil, errnoOf(err)
	}
	if dir == "" {
		list = append(list, entry{snapshotsDir, true})
	}
	return stream(list), 0
}

func stream(list []entry) gofs.DirStream {
	out := make([]fuse.DirEntry, len(list))
	for i, e := range list {
		out[i] = fuse.DirEntry{Name: e.name, Mode: syscall.S_IFREG}
		if e.dir {
			out[i].Mode = syscall.S_IFDIR
		}
	}
	return gofs.NewListDirStream(out)
}

// free refuses a name that something has, or that nothing can have.
func (d *dirNode) free(ctx context.Context, name string) (full string, isDisk bool, err error) {
	full, disk, isDisk := d.child(name)
	switch {
	case full == snapshotsDir:
		return full, isDisk, syscall.EEXIST
	case name == suffix || isDisk && strings.Contains(disk, "@"), !filetree.Valid(full):
		return full, isDisk, syscall.EINVAL
	}
	if isDisk {
		_, _, err = d.fs.find(ctx, disk)
	} else if _, ok := d.fs.tree.Get(full); ok {
		return full, isDisk, syscall.EEXIST
	} else {
		_, err = d.fs.directory(ctx, full)
	}
	switch {
	case err == nil:
		return full, isDisk, syscall.EEXIST
	case errors.Is(err, fs.ErrNotExist):
		return full, isDisk, d.fs.keep(ctx, d.where())
	}
	return full, isDisk, err
}

// Create implements gofs.NodeCreater: NAME.raw becomes a vDisk when it gets a
// size, other names are small files.
func (d *dirNode) Create(ctx context.Context, name string, _, mode uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	full, isDisk, err := d.free(ctx, name)
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	kind := filetree.File
	if isDisk {
		kind = filetree.EmptyDisk
	}
	e, err := d.fs.tree.Make(ctx, full, filetree.Entry{Kind: kind, Attr: d.fs.newAttr(ctx, mode)})
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
	full, isDisk, err := d.free(ctx, name)
	if isDisk && err == nil {
		err = syscall.EINVAL
	}
	if err != nil {
		return nil, errnoOf(err)
	}
	e, err := d.fs.tree.Make(ctx, full, filetree.Entry{Kind: filetree.Directory, Attr: d.fs.newAttr(ctx, mode)})
	if err != nil {
		return nil, errnoOf(err)
	}
	attrs(&out.Attr, syscall.S_IFDIR, e.Attr, 0)
	return d.NewInode(ctx, &dirNode{fs: d.fs}, gofs.StableAttr{Mode: syscall.S_IFDIR}), 0
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
	list, err := d.fs.entries(ctx, full)
	if err == nil && len(list) > 0 {
		err = syscall.ENOTEMPTY
	}
	if err == nil {
		err = d.fs.tree.Remove(ctx, full)
	}
	return errnoOf(err)
}

// Unlink implements gofs.NodeUnlinker. Of a vDisk's file it deletes the vDisk,
// EBUSY while it is open or has clones.
func (d *dirNode) Unlink(ctx context.Context, name string) syscall.Errno {
	full, disk, isDisk := d.child(name)
	if !isDisk {
		return errnoOf(d.fs.tree.Remove(ctx, full))
	}
	n, _, err := d.fs.find(ctx, disk)
	if err != nil {
		return errnoOf(err)
	}
	if err := d.fs.keep(ctx, d.where()); err != nil {
		return errnoOf(err)
	}
	return errnoOf(n.remove(ctx))
}

// Rename implements gofs.NodeRenamer. A vDisk takes names that are free only:
// it is never deleted by a rename (EEXIST). Small files replace each other, and
// a directory moves if no vDisks are below it (EOPNOTSUPP).
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
	switch {
	case from == onto:
		return 0
	case isDisk != isOntoDisk || onto == snapshotsDir || from == snapshotsDir || newName == suffix:
		return syscall.EPERM
	}
	if err := errors.Join(d.fs.keep(ctx, d.where()), d.fs.keep(ctx, target.where())); err != nil {
		return errnoOf(err)
	}
	if isDisk {
		n, _, err := d.fs.find(ctx, disk)
		if err != nil {
			return errnoOf(err)
		}
		return errnoOf(n.rename(ctx, ontoDisk))
	}
	return errnoOf(d.move(ctx, from, onto, flags&renameNoReplace == 0))
}

// move moves a small file or a directory.
func (d *dirNode) move(ctx context.Context, from, onto string, replace bool) error {
	for _, dir := range []string{from, onto} {
		if disks, err := d.fs.leads(ctx, dir); err != nil || disks {
			return errors.Join(err, syscall.EOPNOTSUPP)
		}
	}
	e, _ := d.fs.tree.Get(from)
	if other, there := d.fs.tree.Get(onto); there && replace && other.Kind == filetree.Directory {
		switch {
		case e.Kind == filetree.File:
			return syscall.EISDIR
		case len(d.fs.tree.List(onto)) > 0:
			return syscall.ENOTEMPTY
		}
		if err := d.fs.tree.Remove(ctx, onto); err != nil {
			return err
		}
	} else if there && e.Kind == filetree.Directory && replace {
		return syscall.ENOTDIR
	}
	return d.fs.tree.Move(ctx, from, onto, replace)
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
	if err := d.fs.keep(ctx, dir); err != nil {
		return errnoOf(err)
	}
	e, ok := d.fs.tree.Get(dir)
	if !ok {
		return syscall.ENOENT
	}
	if _, err := d.fs.tree.Set(ctx, e.Node, func(a *filetree.Attr) { change(a, in) }); err != nil {
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
