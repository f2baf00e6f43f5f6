package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Limits of a mount. All three of maxBackground, CAP_ASYNC_DIO and
// FOPEN_PARALLEL_DIRECT_WRITES are needed for more than one request at a time.
const (
	maxBackground = 256
	maxWrite      = 1 << 20
	inflightBytes = 128 << 20
	attrTimeout   = 100 * time.Millisecond // NBD clients and commands change sizes and names too
)

const (
	suffix       = ".raw"
	snapshotsDir = ".snapshots"
	clusterSize  = 4096
	sizeMax      = 64 << 40
)

// Options say how a pool is mounted.
type Options struct {
	AllowOther bool   // let other users in
	UID, GID   uint32 // owner of everything
	Direct     bool   // mount(2) instead of fusermount3; needs root
}

// FS is a mounted pool.
type FS struct {
	pool   Pool
	dir    string
	opt    Options
	server *fuse.Server
	start  time.Time
	inos   atomic.Uint64

	mu    sync.Mutex
	disks map[string]*diskNode // by ID, those that the kernel knows
	empty map[string]*diskNode // by name, files that have no vDisk yet
	dirs  map[string]bool      // made by mkdir
}

// Mount mounts pool on dir and serves it until Unmount.
func Mount(pool Pool, dir string, opt Options) (*FS, error) {
	f := &FS{
		pool: pool, dir: dir, opt: opt, start: time.Now(),
		disks: map[string]*diskNode{}, empty: map[string]*diskNode{}, dirs: map[string]bool{},
	}
	f.inos.Store(1)
	timeout := attrTimeout
	server, err := gofs.Mount(dir, &dirNode{fs: f}, &gofs.Options{
		EntryTimeout: &timeout, AttrTimeout: &timeout,
		UID: opt.UID, GID: opt.GID,
		RootStableAttr: &gofs.StableAttr{Ino: 1},
		MountOptions: fuse.MountOptions{
			FsName: "ovs", Name: "ovs", AllowOther: opt.AllowOther, DirectMountStrict: opt.Direct,
			MaxBackground: maxBackground, MaxWrite: maxWrite, MaxInflightRequestBytes: inflightBytes,
			ExtraCapabilities: fuse.CAP_ASYNC_DIO | fuse.CAP_DIRECT_IO_ALLOW_MMAP,
			DisableSplice:     true,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	f.server = server
	return f, nil
}

// Unmount takes the mount away. While it is in use it waits, until ctx ends;
// then it is taken out of sight, its users keep what they have open for as long
// as the process serves it, and the error names them.
func (f *FS) Unmount(ctx context.Context) error {
	err := f.server.Unmount()
	for wait := unmountWait; err != nil; wait = min(2*wait, unmountWaitMax) {
		select {
		case <-time.After(wait):
			err = f.server.Unmount()
			continue
		case <-ctx.Done():
		}
		who := users(f.dir)
		if detached := detach(f.dir); detached != nil {
			return fmt.Errorf("unmount %s: %w; then lazily: %w", f.dir, err, detached)
		}
		if len(who) == 0 {
			return fmt.Errorf("unmount %s: %w; it is taken out of sight", f.dir, err)
		}
		return fmt.Errorf("unmount %s: it is taken out of sight, but still in use: %s", f.dir, strings.Join(who, "; "))
	}
	return nil
}

// How long to wait before asking again whether a mount is in use: closes are
// told to nobody.
const (
	unmountWait    = 10 * time.Millisecond
	unmountWaitMax = 500 * time.Millisecond
)

// Wait returns when nothing is mounted any more.
func (f *FS) Wait() { f.server.Wait() }

// diskOf returns the node of a vDisk, the one that there is if the kernel
// knows it, under the name that it has now.
func (f *FS) diskOf(i Info) *diskNode {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.disks[i.ID]
	if n == nil {
		n = &diskNode{fs: f, id: i.ID, ino: f.inos.Add(1)}
		n.mtime.Store(i.Created)
		f.disks[i.ID] = n
	}
	n.name.Store(&i.Name)
	return n
}

// find returns the file of vDisk name, made or not.
func (f *FS) find(ctx context.Context, name string) (*diskNode, int64, error) {
	f.mu.Lock()
	n := f.empty[name]
	f.mu.Unlock()
	if n != nil {
		return n, 0, nil
	}
	i, err := f.pool.Info(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	return f.diskOf(i), i.Size, nil
}

// entry is a name in a directory.
type entry struct {
	name string
	dir  bool
}

// entries lists a directory: vDisks and empty files in it, and what leads to
// others further below.
func (f *FS) entries(ctx context.Context, dir string) ([]entry, error) {
	infos, err := f.pool.List(ctx)
	if err != nil {
		return nil, err
	}
	var list []entry
	seen := map[entry]bool{}
	add := func(name string, isDir bool) {
		rest, ok := strings.CutPrefix(name, dir+"/")
		if dir == "" {
			rest, ok = name, true
		}
		if !ok || rest == "" {
			return
		}
		e := entry{name: rest + suffix}
		if first, _, deeper := strings.Cut(rest, "/"); deeper || isDir {
			e = entry{first, true}
		}
		if !seen[e] {
			seen[e] = true
			list = append(list, e)
		}
	}
	for _, i := range infos {
		add(i.Name, false)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range f.empty {
		add(name, false)
	}
	for name := range f.dirs {
		add(name, true)
	}
	return list, nil
}

// isDir reports whether there is a directory, made by mkdir or by names below.
func (f *FS) isDir(ctx context.Context, dir string) (bool, error) {
	f.mu.Lock()
	made := dir == "" || f.dirs[dir]
	f.mu.Unlock()
	if made {
		return true, nil
	}
	list, err := f.entries(ctx, dir)
	return len(list) > 0, err
}

// exists reports whether a name is a vDisk's.
func (f *FS) exists(ctx context.Context, name string) (bool, error) {
	_, _, err := f.find(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func roundUp(n int64) int64 { return (n + clusterSize - 1) &^ (clusterSize - 1) }

func (f *FS) attrs(out *fuse.Attr, mode uint32, size, mtime int64) {
	out.Mode, out.Size, out.Blocks, out.Blksize = mode, uint64(size), uint64(size)/512, clusterSize
	out.Uid, out.Gid, out.Nlink = f.opt.UID, f.opt.GID, 1
	t := time.Unix(0, mtime)
	out.SetTimes(&t, &t, &t)
}

func (f *FS) statfs(ctx context.Context, out *fuse.StatfsOut) error {
	s, err := f.pool.Space(ctx)
	if err != nil {
		return err
	}
	out.Bsize, out.Frsize, out.NameLen = clusterSize, clusterSize, 255
	out.Blocks, out.Bfree = uint64(s.Total)/clusterSize, uint64(s.Free)/clusterSize
	out.Bavail = out.Bfree
	return nil
}

func join(dir, name string) string { return path.Join(dir, name) }
