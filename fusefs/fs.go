package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs/filetree"
	"openvstorage/fusefs/transport"
	"openvstorage/internal/naming"
)

// Limits of a mount. All three of maxBackground, CAP_ASYNC_DIO and
// FOPEN_PARALLEL_DIRECT_WRITES are needed for more than one request at a time.
const (
	maxBackground = 256
	maxWrite      = 1 << 20
	entryTimeout  = 100 * time.Millisecond // commands change names too
	attrTimeout   = 100 * time.Millisecond // of what only the mount changes, and of directories
)

const (
	suffix       = naming.Suffix
	snapshotsDir = naming.Snapshots
	clusterSize  = 4096
	sizeMax      = 64 << 40
)

// MemoryMin is the least Options.Memory in bytes.
var MemoryMin = transport.MemoryMin(maxWrite)

// Options say how a pool is mounted.
type Options struct {
	AllowOther bool   // let other users in, as far as owners and modes do
	UID, GID   uint32 // owner of what has none of its own
	Direct     bool   // mount(2) instead of fusermount3; needs root
	Memory     int64  // bytes that requests may have, at least MemoryMin; 0: transport.MemoryDefault
	Ways       transport.Ways
	Self       bool // this process opens files of the mount itself, as tests do; killed meanwhile, it never ends
	Logger     *slog.Logger
}

// FS is a mounted pool: a file system whose parts are below.
type FS struct {
	pool    vDisks
	tree    *filetree.Tree
	dir     string // where it is mounted, as the kernel names it
	opt     Options
	owner   owner
	conn    *transport.Conn
	copiers copiers

	index     *index // names of vDisks as directories
	times     *dirTimes
	dirs      *directories
	nodes     *nodes
	leftovers *leftovers
	keeper    *timeKeeper
}

// Mount mounts pool on dir, with what is kept beside it in keys, and serves it
// until Unmount. Nothing else may write these keys.
func Mount(ctx context.Context, pool Pool, keys filetree.Keys, dir string, opt Options) (*FS, error) {
	f, err := mount(ctx, pool, keys, dir, opt)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return f, nil
}

func mount(ctx context.Context, pool Pool, keys filetree.Keys, dir string, opt Options) (*FS, error) {
	// The kernel's name of the directory is needed: users of the mount are found by it.
	real, err := filepath.EvalSymlinks(dir)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return nil, err
	}
	tree, err := filetree.Open(ctx, keys)
	if err != nil {
		return nil, err
	}
	f := newFS(pool, tree, real, opt)
	if err := f.settle(ctx); err != nil {
		return nil, err
	}
	// The index is made now, so that changes from here on are seen.
	if err := f.index.refresh(ctx); err != nil {
		return nil, err
	}
	told := &notices{}
	raw := bridge(f.nodes.dir(""), told)
	f.conn, err = transport.Mount(f.dir, raw, transport.Options{
		Name: "ovs", AllowOther: opt.AllowOther, Direct: opt.Direct, Ways: opt.Ways, Self: opt.Self, Logger: f.opt.Logger,
		MaxWrite: maxWrite, Background: maxBackground, Memory: opt.Memory,
		Capabilities: fuse.CAP_ASYNC_DIO | fuse.CAP_DIRECT_IO_ALLOW_MMAP,
	})
	if err != nil {
		return nil, err
	}
	told.conn.Store(f.conn)
	f.keeper.start()
	return f, nil
}

// newFS makes the parts, and ties them.
func newFS(pool Pool, tree *filetree.Tree, dir string, opt Options) *FS {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	f := &FS{
		pool: vDisks{pool}, tree: tree, dir: dir, opt: opt, owner: owner{opt.UID, opt.GID},
		copiers: copiers{sought: map[uint32]time.Time{}},
	}
	f.times = &dirTimes{last: map[string]dirTime{}}
	f.index = &index{pool: pool, tree: tree, times: f.times, ofFile: map[uuid.UUID]bool{}}
	f.nodes = newNodes(f)
	f.dirs = &directories{pool: pool, tree: tree, index: f.index, times: f.times, nodes: f.nodes, owner: f.owner, start: time.Now()}
	f.leftovers = &leftovers{tree: tree, nodes: f.nodes, moving: &f.dirs.moving}
	f.keeper = &timeKeeper{
		pool: pool, tree: tree, index: f.index, times: f.times, nodes: f.nodes, leftovers: f.leftovers,
		logger: opt.Logger.With("mount", dir),
	}
	return f
}

// bridge is the library's tree of nodes. The kernel does not remember attributes of
// vDisks, because others change them.
func bridge(root gofs.InodeEmbedder, told gofs.ServerCallbacks) fuse.RawFileSystem {
	timeout := entryTimeout
	return gofs.NewNodeFS(root, &gofs.Options{
		ServerCallbacks: told,
		EntryTimeout:    &timeout, NullPermissions: true, RootStableAttr: &gofs.StableAttr{Ino: 1},
	})
}

// settle removes from the tree what does not belong there any more: entries of empty
// files whose vDisk was made, and attributes of vDisks that are gone. Others made or
// deleted these vDisks, or the process ended in the middle of that. settle also brings
// times up to date.
func (f *FS) settle(ctx context.Context) error {
	infos, err := f.pool.List(ctx)
	if err != nil {
		return err
	}
	ids := make(map[[16]byte]bool, len(infos))
	for _, i := range infos {
		ids[i.ID] = true
		e, ok := f.tree.Get(i.Name + suffix)
		if ok && e.Kind == filetree.EmptyDisk && i.State != stateDeleting && i.State != stateUnsure {
			if err := f.tree.Remove(ctx, i.Name+suffix, 0); err != nil {
				return err
			}
		}
	}
	if err := f.tree.ForgetDisks(ctx, func(id [16]byte) bool { return ids[id] }); err != nil {
		return err
	}
	if err := f.settleDirs(ctx, infos); err != nil {
		return err
	}
	// A vDisk that was written to, and nobody noted when, gets the time of its opening. A
	// mount that cannot store that, for want of room, goes on all the same.
	f.keeper.warn(ctx, f.keeper.storeDisks(ctx, 0))
	return ctx.Err()
}

// settleDirs gives directories the time at which the last vDisk in them was made: a kill
// may have come before that was stored. A time that somebody set since is newer.
func (f *FS) settleDirs(ctx context.Context, infos []Info) error {
	made := map[string]int64{}
	for _, i := range infos {
		dir, _ := splitPath(i.Name)
		if e, ok := f.tree.Get(dir); ok && i.Created > max(e.Changed, made[dir]) {
			made[dir] = i.Created
		}
	}
	return f.tree.Touch(ctx, made)
}

// Unmount takes the mount away. While the mount is in use Unmount waits, until ctx ends.
// Then it takes the mount out of sight: its users keep what they have open for as long
// as the process serves it, and the error names them. If somebody else has taken the
// mount away, nothing is left to do.
func (f *FS) Unmount(ctx context.Context) error {
	defer f.keeper.stop(ctx)
	err := f.conn.Unmount(ctx)
	for wait := unmountWait; err != nil; wait = min(2*wait, unmountWaitMax) {
		if errors.Is(err, transport.ErrElsewhere) {
			return fmt.Errorf("unmount %s: it is gone here, but %w, of a container or a service: its files are dead there when this process ends", f.dir, err)
		}
		select {
		case <-time.After(wait):
			err = f.conn.Unmount(ctx)
			continue
		case <-ctx.Done():
		}
		who := users(f.dir)
		if detached := transport.Detach(f.dir); detached != nil {
			return fmt.Errorf("unmount %s: %w; then lazily: %w", f.dir, err, detached)
		}
		if len(who) == 0 {
			return fmt.Errorf("unmount %s: %w; it is taken out of sight", f.dir, err)
		}
		return fmt.Errorf("unmount %s: it is taken out of sight, but still in use: %s", f.dir, strings.Join(who, "; "))
	}
	return nil
}

// How long Unmount waits before it asks again whether a mount is in use: nobody is told
// of closes.
const (
	unmountWait    = 10 * time.Millisecond
	unmountWaitMax = 500 * time.Millisecond
)

// Stats returns the counters of the requests that came.
func (f *FS) Stats() transport.Stats { return f.conn.Stats() }

// Keep stores the times of all files. It is called when nobody writes any more, by
// whatever door, before the vDisks are closed. The mount may be gone.
func (f *FS) Keep(ctx context.Context) error { return f.keeper.storeAll(ctx) }

// Wait returns when nothing is mounted any more.
func (f *FS) Wait() { f.conn.Wait() }

// find returns the file of the vDisk of a name, or an empty file of that name, and what
// is known of the vDisk.
func (f *FS) find(ctx context.Context, name string) (*diskNode, Info, error) {
	i, err := f.pool.Info(ctx, name)
	if err == nil {
		return f.nodes.disk(i), i, nil
	}
	if e, ok := f.tree.Get(name + suffix); ok && errors.Is(err, fs.ErrNotExist) && e.Kind == filetree.EmptyDisk {
		return f.nodes.emptyDisk(name, e), i, nil
	}
	return nil, i, err
}

func roundUp(n int64) int64 { return (n + clusterSize - 1) &^ (clusterSize - 1) }

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
