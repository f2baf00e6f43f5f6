package fusefs

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"syscall"

	"github.com/google/uuid"
	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/device"
)

// snapDir is .snapshots or a directory below it: the components of a vDisk's
// name, and in the last one its snapshots.
type snapDir struct {
	gofs.Inode
	fs   *FS
	path string
}

// snapFile is a snapshot, read-only.
type snapFile struct {
	gofs.Inode
	fs   *FS
	disk uuid.UUID
	snap Snapshot
}

// snapHandle is an open snapshot.
type snapHandle struct {
	dev     device.Reader
	release func()
	once    sync.Once
}

var (
	_ gofs.NodeLookuper  = (*snapDir)(nil)
	_ gofs.NodeReaddirer = (*snapDir)(nil)
	_ gofs.NodeGetattrer = (*snapDir)(nil)
	_ gofs.NodeStatfser  = (*snapDir)(nil)
	_ gofs.NodeFsyncer   = (*snapDir)(nil)
	_ gofs.NodeOpener    = (*snapFile)(nil)
	_ gofs.NodeGetattrer = (*snapFile)(nil)
	_ gofs.NodeReader    = (*snapFile)(nil)
	_ gofs.NodeLseeker   = (*snapFile)(nil)
	_ gofs.NodeReleaser  = (*snapFile)(nil)
	_ gofs.NodeStatfser  = (*snapFile)(nil)
	_ gofs.NodeFsyncer   = (*snapFile)(nil)
)

// What is below .snapshots is the mount's owner's, and as readable to others as a vDisk
// is by default.
const (
	roDirMode  = 0o555
	roFileMode = 0o400
)

// snapIno makes an inode number of what stays the same as long as the node is the same:
// whoever has it open, or is in it, stays there.
func snapIno(of ...any) uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", of))
	return binary.BigEndian.Uint64(sum[:])&^(1<<63) | 1<<62
}

// show fills in attributes. The time of a directory is that of the mount, or of the last
// change since.
func (d *snapDir) show(ctx context.Context, out *fuse.Attr) error {
	b, err := d.fs.index.snapshotsIn(ctx, d.path)
	if errors.Is(err, syscall.ENOENT) {
		b, err = &branch{}, nil // it was there
	}
	if err != nil {
		return err
	}
	at := max(d.fs.dirs.start.UnixNano(), d.fs.times.changed(join(snapshotsDir, d.path)))
	attrs(out, syscall.S_IFDIR, d.fs.owner.attr(roDirMode, at), 0, 0)
	if b.list == nil && d.path != "" {
		out.Nlink = 0
		return nil
	}
	out.Nlink = 2
	for _, e := range b.list {
		if e.dir && !b.holds[entry{e.name, false}] {
			out.Nlink++
		}
	}
	return nil
}

// list returns what is in the directory. If an earlier release made a vDisk whose name
// implies a directory of a snapshot's name, the snapshot is listed.
func (d *snapDir) list(ctx context.Context) ([]entry, error) {
	b, err := d.fs.index.snapshotsIn(ctx, d.path)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(b.list), func(e entry) bool { return e.dir && b.holds[entry{e.name, false}] }), nil
}

// snapDirOf returns the node of a directory of snapshots.
func (f *FS) snapDirOf(ctx context.Context, parent *gofs.Inode, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	d := &snapDir{fs: f, path: name}
	out.SetAttrTimeout(attrTimeout)
	if err := d.show(ctx, &out.Attr); err != nil {
		return nil, errnoOf(err)
	}
	return parent.NewInode(ctx, d, gofs.StableAttr{Mode: syscall.S_IFDIR, Ino: snapIno(name)}), 0
}

// Lookup implements gofs.NodeLookuper.
func (d *snapDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	disk, err := d.disk(ctx)
	if err != nil {
		return nil, errnoOf(err)
	}
	for _, s := range disk.Snapshots {
		if s.Name+suffix == name {
			d.fs.showSnapshot(ctx, &out.Attr, s)
			stable := gofs.StableAttr{Mode: syscall.S_IFREG, Ino: snapIno(disk.ID, s.Name, s.Created)}
			return d.NewInode(ctx, &snapFile{fs: d.fs, disk: disk.ID, snap: s}, stable), 0
		}
	}
	switch _, err := d.fs.index.snapshotsIn(ctx, join(d.path, name)); {
	case err == nil:
		return d.fs.snapDirOf(ctx, &d.Inode, join(d.path, name), out)
	case !errors.Is(err, syscall.ENOENT):
		return nil, errnoOf(err)
	}
	if len(name) > nameMax {
		return nil, syscall.ENAMETOOLONG
	}
	return nil, syscall.ENOENT
}

// disk returns the vDisk whose snapshots are in the directory, if there is one.
func (d *snapDir) disk(ctx context.Context) (Info, error) {
	if d.path == "" {
		return Info{}, nil
	}
	i, err := d.fs.pool.Info(ctx, d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, nil
	}
	return i, err
}

// Readdir implements gofs.NodeReaddirer.
func (d *snapDir) Readdir(ctx context.Context) (gofs.DirStream, syscall.Errno) {
	return stream(ctx, d.list)
}

// Getattr implements gofs.NodeGetattrer.
func (d *snapDir) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.SetTimeout(attrTimeout)
	return errnoOf(d.show(ctx, &out.Attr))
}

// Statfs implements gofs.NodeStatfser.
func (d *snapDir) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return errnoOf(d.fs.statfs(ctx, out))
}

// Fsync implements gofs.NodeFsyncer: a snapshot is durable when it is there.
func (d *snapDir) Fsync(context.Context, gofs.FileHandle, uint32) syscall.Errno { return 0 }

// Getattr implements gofs.NodeGetattrer.
func (s *snapFile) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	i, err := s.fs.pool.InfoOf(ctx, s.disk)
	for _, now := range i.Snapshots {
		if err == nil && now.Name == s.snap.Name && now.Created == s.snap.Created {
			s.fs.showSnapshot(ctx, &out.Attr, now)
			return 0
		}
	}
	s.fs.showSnapshot(ctx, &out.Attr, s.snap)
	out.Nlink = 0 // it was deleted
	return 0
}

// showSnapshot fills in attributes.
func (f *FS) showSnapshot(ctx context.Context, out *fuse.Attr, s Snapshot) {
	used := s.Allocated
	if f.copiers.copies(ctx) {
		used = s.Size
	}
	attrs(out, syscall.S_IFREG, f.owner.attr(roFileMode, s.Created), s.Size, used)
}

// Statfs implements gofs.NodeStatfser.
func (s *snapFile) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return errnoOf(s.fs.statfs(ctx, out))
}

// Fsync implements gofs.NodeFsyncer: a snapshot is durable when it is there.
func (s *snapFile) Fsync(context.Context, gofs.FileHandle, uint32) syscall.Errno { return 0 }

// named does something with the snapshot by the name that it has now, as
// NAME@SNAP.
func (s *snapFile) named(ctx context.Context, do func(name string) error) error {
	return s.fs.pool.named(ctx, s.disk, func(name string) error { return do(name + "@" + s.snap.Name) })
}

// Open implements gofs.NodeOpener: for reading only.
func (s *snapFile) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	h := &snapHandle{}
	err := s.named(ctx, func(name string) (err error) {
		h.dev, h.release, err = s.fs.pool.Open(ctx, name)
		return err
	})
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	return h, fuse.FOPEN_DIRECT_IO, 0
}

// Read implements gofs.NodeReader.
func (s *snapFile) Read(ctx context.Context, f gofs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return readDevice(ctx, f.(*snapHandle).dev, dest, off)
}

// Lseek implements gofs.NodeLseeker.
func (s *snapFile) Lseek(ctx context.Context, f gofs.FileHandle, off uint64, whence uint32) (uint64, syscall.Errno) {
	return seekDevice(ctx, f.(*snapHandle).dev, off, whence)
}

// Release implements gofs.NodeReleaser.
func (s *snapFile) Release(_ context.Context, f gofs.FileHandle) syscall.Errno {
	h := f.(*snapHandle)
	h.once.Do(h.release)
	return 0
}
