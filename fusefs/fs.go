package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs/filetree"
	"openvstorage/fusefs/transport"
	"openvstorage/internal/ctxlock"
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

// FS is a mounted pool.
type FS struct {
	pool  Pool
	tree  *filetree.Tree
	dir   string
	opt   Options
	conn  *transport.Conn
	start time.Time

	// moving is had alone while a directory is renamed, and shared by what makes,
	// empties or renames a vDisk's file: it changes the tree and the pool one after
	// the other. It is taken after a node's locks.
	moving ctxlock.Shared

	index index

	endBeats context.CancelFunc
	beating  chan struct{} // closed when the beats have ended

	mu    sync.Mutex
	disks map[uuid.UUID]*diskNode // vDisks that were looked up, and are there
	empty map[uint64]*diskNode    // by node of the tree, files that have no vDisk yet
	files map[uint64]*fileNode    // by node of the tree
	dirs  map[string]*dirNode     // by path

	prunings int // counts calls of prune

	births sync.Mutex // held while a node gets the library's part

	copiers copiers

	owed owed
}

// Mount mounts pool on dir, with what is kept beside it in keys, and serves it
// until Unmount. Nothing else may write these keys.
func Mount(ctx context.Context, pool Pool, keys filetree.Keys, dir string, opt Options) (*FS, error) {
	f := newFS(pool, dir, opt)
	// As the kernel names it: who uses the mount is found by that.
	real, err := filepath.EvalSymlinks(dir)
	if err == nil {
		f.dir, err = filepath.Abs(real)
	}
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	if f.tree, err = filetree.Open(ctx, keys); err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	if err := f.settle(ctx); err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	// As they are at the mount: changes from here on are seen.
	if _, err := f.look(ctx); err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	told := &notices{}
	raw := bridge(f.dirOf(""), told)
	f.conn, err = transport.Mount(f.dir, raw, transport.Options{
		Name: "ovs", AllowOther: opt.AllowOther, Direct: opt.Direct, Ways: opt.Ways, Self: opt.Self, Logger: opt.Logger,
		MaxWrite: maxWrite, Background: maxBackground, Memory: opt.Memory,
		Capabilities: fuse.CAP_ASYNC_DIO | fuse.CAP_DIRECT_IO_ALLOW_MMAP,
	})
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	told.conn.Store(f.conn)
	var beats context.Context
	beats, f.endBeats = context.WithCancel(context.Background())
	f.beating = make(chan struct{})
	go func() {
		defer close(f.beating)
		f.beats(beats)
	}()
	return f, nil
}

func newFS(pool Pool, dir string, opt Options) *FS {
	f := &FS{
		pool: pool, dir: dir, opt: opt, start: time.Now(),
		disks: map[uuid.UUID]*diskNode{}, empty: map[uint64]*diskNode{}, files: map[uint64]*fileNode{},
		dirs: map[string]*dirNode{}, copiers: copiers{sought: map[uint32]time.Time{}},
	}
	if f.opt.Logger == nil {
		f.opt.Logger = slog.New(slog.DiscardHandler)
	}
	f.index.times, f.index.stay = map[string]dirTime{}, map[uuid.UUID]bool{}
	return f
}

// bridge is the library's tree of nodes. Attributes of vDisks are asked for each time:
// others change them.
func bridge(root gofs.InodeEmbedder, told gofs.ServerCallbacks) fuse.RawFileSystem {
	timeout := entryTimeout
	return gofs.NewNodeFS(root, &gofs.Options{
		ServerCallbacks: told,
		EntryTimeout:    &timeout, NullPermissions: true, RootStableAttr: &gofs.StableAttr{Ino: 1},
	})
}

// settle takes out of the tree what vDisks made or deleted by others, or a stop
// in the middle, left there.
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
	// Of what was written to and nobody noted when, the time of opening stays. A
	// mount that cannot keep it, for want of room, is there all the same.
	if err := f.keepDisks(ctx, 0); err != nil && ctx.Err() == nil {
		f.opt.Logger.Warn("times of files are not kept yet", "mount", f.dir, "err", err)
	}
	return ctx.Err()
}

// settleDirs has directories be modified when the last vDisk in them was made: a kill
// may have come before that was kept. Whoever set their times since has changed them
// after it.
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

// Unmount takes the mount away. While it is in use it waits, until ctx ends;
// then it is taken out of sight, its users keep what they have open for as long
// as the process serves it, and the error names them. Of a mount that somebody
// else has taken away nothing is left to do.
func (f *FS) Unmount(ctx context.Context) error {
	defer f.stopBeats(ctx)
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

// stopBeats ends what is done beside requests.
func (f *FS) stopBeats(ctx context.Context) {
	f.endBeats()
	select {
	case <-f.beating:
	case <-ctx.Done(): // it keeps something, and the disk under that does not answer
	}
}

// How long to wait before asking again whether a mount is in use: closes are
// told to nobody.
const (
	unmountWait    = 10 * time.Millisecond
	unmountWaitMax = 500 * time.Millisecond
)

// Stats returns the counters of the requests that came.
func (f *FS) Stats() transport.Stats { return f.conn.Stats() }

// Wait returns when nothing is mounted any more.
func (f *FS) Wait() { f.conn.Wait() }

// entry is a name in a directory.
type entry struct {
	name string
	dir  bool
}

// under returns the path of what is below a directory from there.
func under(dir, name string) (string, bool) {
	if dir == "" {
		return name, true
	}
	return strings.CutPrefix(name, dir+"/")
}

// directory returns the attributes of a directory, made or implied by names
// below it.
func (f *FS) directory(ctx context.Context, dir string) (filetree.Attr, error) {
	if _, err := f.look(ctx); err != nil {
		return filetree.Attr{}, err
	}
	at := f.dirChanged(dir)
	start := max(f.start.UnixNano(), at)
	implied := filetree.Attr{Mode: dirMode, UID: f.opt.UID, GID: f.opt.GID, Modified: start, Changed: start}
	if dir == "" {
		return implied, nil
	}
	if e, ok := f.tree.Get(dir); ok {
		if e.Kind != filetree.Directory {
			return implied, syscall.ENOTDIR
		}
		e.Modified, e.Changed = max(e.Modified, at), max(e.Changed, at)
		return e.Attr, nil
	}
	there, err := f.leads(ctx, dir)
	if err == nil && !there && len(f.tree.List(dir)) == 0 {
		err = fmt.Errorf("directory %s: %w", dir, fs.ErrNotExist)
	}
	return implied, err
}

// keep makes a directory that is only implied one that stays when nothing is
// below it, and returns its node of the tree, 0 for the root.
func (f *FS) keep(ctx context.Context, dir string) (uint64, error) {
	if e, ok := f.tree.Get(dir); ok && e.Kind == filetree.Directory || dir == "" {
		return e.Node, nil
	}
	// It must not move away before it has an entry.
	if err := f.moving.Share(ctx); err != nil {
		return 0, err
	}
	defer f.moving.Unshare()
	return f.keepLocked(ctx, dir)
}

// keepLocked is keep; f.moving is held.
func (f *FS) keepLocked(ctx context.Context, dir string) (uint64, error) {
	a, err := f.directory(ctx, dir)
	if err != nil {
		return 0, err
	}
	e, err := f.tree.Make(ctx, dir, filetree.Entry{Kind: filetree.Directory, Attr: a})
	if errors.Is(err, fs.ErrExist) {
		e, _ = f.tree.Get(dir)
		err = nil
	}
	return e.Node, err
}

func roundUp(n int64) int64 { return (n + clusterSize - 1) &^ (clusterSize - 1) }

// attrs shows attributes of a file that has so many bytes, of which so many are in
// use.
func attrs(out *fuse.Attr, kind uint32, a filetree.Attr, size, used int64) {
	out.Mode, out.Size, out.Blocks, out.Blksize = kind|a.Mode, uint64(size), uint64(used+511)/512, clusterSize
	out.Uid, out.Gid, out.Nlink = a.UID, a.GID, 1
	modified, changed := time.Unix(0, a.Modified), time.Unix(0, a.Changed)
	out.SetTimes(&modified, &modified, &changed)
}

// change makes the changes of a setattr, but for the size. Who asks for one asks
// for a new time of change, though all be as it was.
func change(a *filetree.Attr, in *fuse.SetAttrIn) {
	mode, asked := in.GetMode()
	if asked {
		a.Mode = mode & 0o7777
	}
	if uid, ok := in.GetUID(); ok {
		a.UID, asked = uid, true
	}
	if gid, ok := in.GetGID(); ok {
		a.GID, asked = gid, true
	}
	if t, ok := in.GetMTime(); ok {
		a.Modified, asked = t.UnixNano(), true
	}
	if asked {
		a.Changed = time.Now().UnixNano()
	}
}

// newAttr is what somebody who makes something gives it.
//
// In a directory with the set-group-ID bit it is of that directory's group, and a
// directory has the bit too.
func (f *FS) newAttr(ctx context.Context, dir string, mode uint32, isDir bool) filetree.Attr {
	now := time.Now().UnixNano()
	a := filetree.Attr{Mode: mode & 0o7777, UID: f.opt.UID, GID: f.opt.GID, Modified: now, Changed: now}
	if caller, ok := fuse.FromContext(ctx); ok {
		a.UID, a.GID = caller.Uid, caller.Gid
	}
	if up, ok := f.tree.Get(dir); ok && up.Mode&syscall.S_ISGID != 0 {
		a.GID = up.GID
		if isDir {
			a.Mode |= syscall.S_ISGID
		}
	}
	return a
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
