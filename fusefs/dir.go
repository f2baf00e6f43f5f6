package fusefs

import (
	"context"
	"strings"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// dirNode is a directory: the components of vDisk names before the last.
type dirNode struct {
	gofs.Inode
	fs   *FS
	path string // "" is the root
}

var (
	_ gofs.NodeLookuper  = (*dirNode)(nil)
	_ gofs.NodeReaddirer = (*dirNode)(nil)
	_ gofs.NodeCreater   = (*dirNode)(nil)
	_ gofs.NodeMkdirer   = (*dirNode)(nil)
	_ gofs.NodeRmdirer   = (*dirNode)(nil)
	_ gofs.NodeUnlinker  = (*dirNode)(nil)
	_ gofs.NodeRenamer   = (*dirNode)(nil)
	_ gofs.NodeStatfser  = (*dirNode)(nil)
	_ gofs.NodeGetattrer = (*dirNode)(nil)
	_ gofs.NodeSetattrer = (*dirNode)(nil)
)

const (
	dirMode         = syscall.S_IFDIR | 0o755
	renameNoReplace = 1 // RENAME_NOREPLACE of renameat2(2)
)

// Lookup implements gofs.NodeLookuper.
func (d *dirNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	if d.path == "" && name == snapshotsDir {
		d.fs.attrs(&out.Attr, roDirMode, 0, d.fs.start.UnixNano())
		return d.NewInode(ctx, &snapDir{fs: d.fs}, gofs.StableAttr{Mode: syscall.S_IFDIR}), 0
	}
	if disk, ok := strings.CutSuffix(name, suffix); ok {
		n, size, err := d.fs.find(ctx, join(d.path, disk))
		if err == nil {
			d.fs.attrs(&out.Attr, fileMode, size, n.mtime.Load())
			return d.NewInode(ctx, n, gofs.StableAttr{Mode: syscall.S_IFREG, Ino: n.ino}), 0
		}
		if e := errnoOf(err); e != syscall.ENOENT {
			return nil, e
		}
	}
	sub := join(d.path, name)
	if ok, err := d.fs.isDir(ctx, sub); err != nil || !ok {
		return nil, max(errnoOf(err), map[bool]syscall.Errno{true: syscall.ENOENT}[err == nil])
	}
	d.fs.attrs(&out.Attr, dirMode, 0, d.fs.start.UnixNano())
	return d.NewInode(ctx, &dirNode{fs: d.fs, path: sub}, gofs.StableAttr{Mode: syscall.S_IFDIR}), 0
}

// Readdir implements gofs.NodeReaddirer.
func (d *dirNode) Readdir(ctx context.Context) (gofs.DirStream, syscall.Errno) {
	list, err := d.fs.entries(ctx, d.path)
	if err != nil {
		return nil, errnoOf(err)
	}
	if d.path == "" {
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

// Create implements gofs.NodeCreater. Only vDisks can be made: other names are
// EPERM.
func (d *dirNode) Create(ctx context.Context, name string, _, _ uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	disk, ok := strings.CutSuffix(name, suffix)
	switch {
	case !ok || disk == "":
		return nil, nil, 0, syscall.EPERM
	case strings.Contains(disk, "@") || disk == "." || disk == "..":
		return nil, nil, 0, syscall.EINVAL
	}
	full := join(d.path, disk)
	if taken, err := d.fs.exists(ctx, full); err != nil || taken {
		return nil, nil, 0, max(errnoOf(err), map[bool]syscall.Errno{true: syscall.EEXIST}[taken])
	}
	n := &diskNode{fs: d.fs, ino: d.fs.inos.Add(1)}
	n.name.Store(&full)
	n.touch()
	n.opened()
	d.fs.mu.Lock()
	d.fs.empty[full] = n
	d.fs.mu.Unlock()
	d.fs.attrs(&out.Attr, fileMode, 0, n.mtime.Load())
	return d.NewInode(ctx, n, gofs.StableAttr{Mode: syscall.S_IFREG, Ino: n.ino}), &diskHandle{n}, openFlags, 0
}

// Mkdir implements gofs.NodeMkdirer. A directory with nothing below it lasts
// until the unmount.
func (d *dirNode) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	if strings.Contains(name, "@") || strings.HasSuffix(name, suffix) {
		return nil, syscall.EINVAL
	}
	sub := join(d.path, name)
	d.fs.mu.Lock()
	d.fs.dirs[sub] = true
	d.fs.mu.Unlock()
	d.fs.attrs(&out.Attr, dirMode, 0, d.fs.start.UnixNano())
	return d.NewInode(ctx, &dirNode{fs: d.fs, path: sub}, gofs.StableAttr{Mode: syscall.S_IFDIR}), 0
}

// Rmdir implements gofs.NodeRmdirer.
func (d *dirNode) Rmdir(ctx context.Context, name string) syscall.Errno {
	if d.path == "" && name == snapshotsDir {
		return syscall.EBUSY
	}
	sub := join(d.path, name)
	list, err := d.fs.entries(ctx, sub)
	if err != nil || len(list) > 0 {
		return max(errnoOf(err), map[bool]syscall.Errno{true: syscall.ENOTEMPTY}[err == nil])
	}
	d.fs.mu.Lock()
	delete(d.fs.dirs, sub)
	d.fs.mu.Unlock()
	return 0
}

// Unlink implements gofs.NodeUnlinker: it deletes the vDisk, EBUSY while it is
// open or has clones.
func (d *dirNode) Unlink(ctx context.Context, name string) syscall.Errno {
	full := join(d.path, strings.TrimSuffix(name, suffix))
	n, _, err := d.fs.find(ctx, full)
	if err != nil {
		return errnoOf(err)
	}
	return errnoOf(n.remove(ctx))
}

// Rename implements gofs.NodeRenamer, for files onto names that are free: a
// vDisk is never deleted by a rename (EEXIST), and directories stay where they
// are (EOPNOTSUPP).
func (d *dirNode) Rename(ctx context.Context, name string, to gofs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if flags&^renameNoReplace != 0 {
		return syscall.EINVAL
	}
	target, ok := to.(*dirNode)
	if !ok {
		return syscall.EROFS
	}
	from, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return syscall.EOPNOTSUPP
	}
	onto, ok := strings.CutSuffix(newName, suffix)
	if !ok || onto == "" {
		return syscall.EPERM
	}
	n, _, err := d.fs.find(ctx, join(d.path, from))
	if err != nil {
		return errnoOf(err)
	}
	return errnoOf(n.rename(ctx, join(target.path, onto)))
}

// Getattr implements gofs.NodeGetattrer.
func (d *dirNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	d.fs.attrs(&out.Attr, dirMode, 0, d.fs.start.UnixNano())
	return 0
}

// Setattr implements gofs.NodeSetattrer: owners and modes of directories are
// those of the mount.
func (d *dirNode) Setattr(context.Context, gofs.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return syscall.EPERM
}

// Statfs implements gofs.NodeStatfser.
func (d *dirNode) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return errnoOf(d.fs.statfs(ctx, out))
}
