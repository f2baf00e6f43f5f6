package fusefs

import (
	"context"
	"strings"
	"sync"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs/filetree"
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
	disk string
	snap Snapshot
}

// snapHandle is an open snapshot.
type snapHandle struct {
	dev     Device
	release func()
	once    sync.Once
}

var (
	_ gofs.NodeLookuper  = (*snapDir)(nil)
	_ gofs.NodeReaddirer = (*snapDir)(nil)
	_ gofs.NodeGetattrer = (*snapDir)(nil)
	_ gofs.NodeOpener    = (*snapFile)(nil)
	_ gofs.NodeGetattrer = (*snapFile)(nil)
	_ gofs.NodeReader    = (*snapFile)(nil)
	_ gofs.NodeLseeker   = (*snapFile)(nil)
	_ gofs.NodeReleaser  = (*snapFile)(nil)
)

const (
	roDirMode  = 0o555
	roFileMode = 0o400
)

// snapshotAttr is what everything below .snapshots has: it is the mount's
// owner's, and as readable to others as a vDisk is by default.
func (f *FS) snapshotAttr(mode uint32, time int64) filetree.Attr {
	return filetree.Attr{Mode: mode, UID: f.opt.UID, GID: f.opt.GID, Modified: time, Changed: time}
}

// list returns what is in the directory, and the snapshots among it.
func (d *snapDir) list(ctx context.Context) ([]entry, []Snapshot, error) {
	infos, err := d.fs.pool.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	var out []entry
	var snaps []Snapshot
	seen := map[string]bool{}
	for _, i := range infos {
		if i.Name == d.path {
			snaps = i.Snapshots
			for _, s := range snaps {
				out = append(out, entry{name: s.Name + suffix})
			}
			continue
		}
		rest, ok := i.Name, d.path == ""
		if !ok {
			rest, ok = strings.CutPrefix(i.Name, d.path+"/")
		}
		first, _, _ := strings.Cut(rest, "/")
		if ok && !seen[first] {
			seen[first] = true
			out = append(out, entry{first, true})
		}
	}
	return out, snaps, nil
}

// Lookup implements gofs.NodeLookuper.
func (d *snapDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	list, snaps, err := d.list(ctx)
	if err != nil {
		return nil, errnoOf(err)
	}
	for _, s := range snaps {
		if s.Name+suffix == name {
			attrs(&out.Attr, syscall.S_IFREG, d.fs.snapshotAttr(roFileMode, s.Created), s.Size)
			return d.NewInode(ctx, &snapFile{fs: d.fs, disk: d.path, snap: s}, gofs.StableAttr{Mode: syscall.S_IFREG}), 0
		}
	}
	for _, e := range list {
		if e.dir && e.name == name {
			attrs(&out.Attr, syscall.S_IFDIR, d.fs.snapshotAttr(roDirMode, d.fs.start.UnixNano()), 0)
			return d.NewInode(ctx, &snapDir{fs: d.fs, path: join(d.path, name)}, gofs.StableAttr{Mode: syscall.S_IFDIR}), 0
		}
	}
	return nil, syscall.ENOENT
}

// Readdir implements gofs.NodeReaddirer.
func (d *snapDir) Readdir(ctx context.Context) (gofs.DirStream, syscall.Errno) {
	list, _, err := d.list(ctx)
	if err != nil {
		return nil, errnoOf(err)
	}
	return stream(list), 0
}

// Getattr implements gofs.NodeGetattrer.
func (d *snapDir) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	attrs(&out.Attr, syscall.S_IFDIR, d.fs.snapshotAttr(roDirMode, d.fs.start.UnixNano()), 0)
	return 0
}

// Getattr implements gofs.NodeGetattrer.
func (s *snapFile) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	attrs(&out.Attr, syscall.S_IFREG, s.fs.snapshotAttr(roFileMode, s.snap.Created), s.snap.Size)
	out.SetTimeout(time.Second)
	return 0
}

// Open implements gofs.NodeOpener: for reading only.
func (s *snapFile) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	dev, release, err := s.fs.pool.Open(ctx, s.disk+"@"+s.snap.Name)
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	return &snapHandle{dev: dev, release: release}, fuse.FOPEN_DIRECT_IO, 0
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
