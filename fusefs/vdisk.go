package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/device"
	"openvstorage/fusefs/filetree"
	"openvstorage/fusefs/transport"
	"openvstorage/internal/ctxlock"
)

// diskNode is the file of a vDisk.
type diskNode struct {
	gofs.Inode
	fs     *FS
	ino    uint64
	name   atomic.Pointer[string]
	which  atomic.Pointer[which]
	mtime  atomic.Int64 // nanoseconds since 1970; of an empty file, kept at the last close
	labels labels
	cached cached
	born   atomic.Bool // the kernel may know it: it has the library's part

	pristine atomic.Bool // nothing was written here since it was cloned

	// keep is held over stores of the tree by who changes the attributes, and by
	// who makes or empties the file, or deletes it. It is taken before mu: who
	// waits for it is in nobody's way, and who looks at the file does not need it.
	keep ctxlock.Lock
	gone bool // the vDisk is deleted; guarded by keep

	// mu is held for reading by I/O, which may wait long for room, and by what
	// else must not see the device change; for writing by what makes, empties or
	// copies to the file, opens it first and closes it last. Who only looks at the
	// file takes neither it nor keep: which and state are all that is needed.
	mu      sync.RWMutex
	copying copying       // that made this a clone
	dev     device.Device // set while opens > 0 and id is set
	release func()

	// state is taken after mu, and held for a moment, never over I/O or a store.
	state sync.Mutex
	attr  filetree.DiskAttr // as kept last
	opens int
	idle  chan struct{} // closed when opens is 0 again
}

var (
	_ gofs.NodeOpener    = (*diskNode)(nil)
	_ gofs.NodeReleaser  = (*diskNode)(nil)
	_ gofs.NodeGetattrer = (*diskNode)(nil)
	_ gofs.NodeSetattrer = (*diskNode)(nil)
	_ gofs.NodeReader    = (*diskNode)(nil)
	_ gofs.NodeWriter    = (*diskNode)(nil)
	_ transport.Writer   = (*diskNode)(nil)
	_ gofs.NodeFsyncer   = (*diskNode)(nil)
	_ gofs.NodeAllocater = (*diskNode)(nil)
	_ gofs.NodeLseeker   = (*diskNode)(nil)
	_ gofs.NodeStatfser  = (*diskNode)(nil)
)

// which is the vDisk that a file is, or the node of an empty one in the tree. It
// changes while keep and mu are held alone.
type which struct {
	id   uuid.UUID // nil while the file is empty and there is no vDisk
	node uint64
}

const (
	openFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
)

// touch notes that something is written. When that was the pool knows of a vDisk.
func (n *diskNode) touch() {
	if n.pristine.Load() {
		n.pristine.Store(false)
	}
}

// Open implements gofs.NodeOpener. All opens of a file share one device.
func (n *diskNode) Open(ctx context.Context, _ uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	again := false
	if err := until(ctx, func() bool { again = n.openedAgain(); return again || n.mu.TryLock() }); err != nil {
		return nil, 0, errnoOf(err)
	}
	if again {
		return &diskHandle{n}, openFlags, 0
	}
	defer n.mu.Unlock()
	if n.made() && n.dev == nil {
		if err := n.attach(ctx); err != nil {
			return nil, 0, n.errnoAt(ctx, err)
		}
	}
	n.opened()
	return &diskHandle{n}, openFlags, 0
}

// errnoAt is the errno of an error of a file that was found by a name a moment ago. A
// vDisk that is gone is ESTALE: the kernel, which remembers names for a moment, looks
// that one up again then, as another vDisk may have it by now. One that is listed and
// cannot be found is being deleted by others, who may fail yet.
func (n *diskNode) errnoAt(ctx context.Context, err error) syscall.Errno {
	if !errors.Is(err, fs.ErrNotExist) || !n.made() {
		return errnoOf(err)
	}
	if _, err := n.info(ctx); err == nil {
		return syscall.EBUSY
	}
	return syscall.ESTALE
}

// openedAgain counts one more open, if there is one and all that it needs. That
// waits for no I/O.
func (n *diskNode) openedAgain() bool {
	if !n.mu.TryRLock() {
		return false
	}
	defer n.mu.RUnlock()
	n.state.Lock()
	defer n.state.Unlock()
	if n.opens == 0 || n.dev == nil && n.made() {
		return false
	}
	n.opens++
	return true
}

// diskHandle is an open file: the library tells of the release of handles only.
type diskHandle struct{ node *diskNode }

// opened counts one more open. n.mu is held for writing, or nobody knows n yet.
func (n *diskNode) opened() {
	n.state.Lock()
	defer n.state.Unlock()
	if n.opens++; n.opens == 1 {
		n.idle = make(chan struct{})
	}
}

// releaseWait is how long a deletion waits for closes that the kernel has not
// told about yet: it does so after close(2) has returned.
const releaseWait = 200 * time.Millisecond

// waitIdle waits for the last close, but not for long.
func (n *diskNode) waitIdle(ctx context.Context) {
	n.state.Lock()
	idle, opens := n.idle, n.opens
	n.state.Unlock()
	if opens == 0 {
		return
	}
	late := time.NewTimer(releaseWait)
	defer late.Stop()
	select {
	case <-idle:
	case <-late.C:
	case <-ctx.Done():
	}
}

// attach opens the device. n.mu is held for writing.
func (n *diskNode) attach(ctx context.Context) error {
	return n.named(ctx, func(name string) error {
		dev, release, err := n.fs.pool.Open(ctx, name)
		if err != nil {
			return err
		}
		disk, may := dev.(device.Device)
		if !may {
			release()
			return syscall.EROFS
		}
		n.dev, n.release = disk, release
		return nil
	})
}

// detach gives the device back. n.mu is held for writing.
func (n *diskNode) detach() {
	if n.dev != nil {
		n.release()
		n.dev, n.release = nil, nil
	}
}

// made reports whether there is a vDisk. It stays so while n.keep or n.mu is held.
func (n *diskNode) made() bool { return n.which.Load().id != uuid.Nil }

// inUse reports whether somebody has the file open.
func (n *diskNode) inUse() bool {
	n.state.Lock()
	defer n.state.Unlock()
	return n.opens > 0
}

// closed counts one open less, if it is not the last.
func (n *diskNode) closed() bool {
	n.state.Lock()
	defer n.state.Unlock()
	if n.opens == 1 {
		return false
	}
	n.opens--
	return true
}

// Release implements gofs.NodeReleaser.
func (n *diskNode) Release(ctx context.Context, _ gofs.FileHandle) syscall.Errno {
	if n.closed() {
		return 0
	}
	if !n.closedLast() {
		return 0
	}
	// Nobody hears of it if the time cannot be kept.
	return errnoOf(n.setAttr(ctx, func(*filetree.Attr) {}))
}

// closedLast counts one open less, and gives the device back if it was the last.
func (n *diskNode) closedLast() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state.Lock()
	n.opens-- // somebody may have opened it meanwhile
	last := n.opens == 0
	if last {
		close(n.idle)
	}
	n.state.Unlock()
	if last {
		n.detach()
	}
	return last
}

// info returns what the pool knows of the vDisk. It waits for no I/O.
func (n *diskNode) info(ctx context.Context) (Info, error) {
	i, err := n.fs.pool.InfoOf(ctx, n.which.Load().id)
	if err == nil {
		n.name.Store(&i.Name)
	}
	return i, err
}

// named does something with the vDisk by the name that it has now.
func (n *diskNode) named(ctx context.Context, do func(name string) error) error {
	return n.fs.named(ctx, n.which.Load().id, do)
}

// size is the current size. n.mu is held.
func (n *diskNode) size(ctx context.Context) (int64, error) {
	if n.dev != nil {
		return n.dev.Size(), nil
	}
	if !n.made() {
		return 0, nil
	}
	i, err := n.info(ctx)
	return i.Size, err
}

// show fills in attributes of a vDisk's file, or of an empty one. It waits for
// nobody.
func (n *diskNode) show(ctx context.Context, out *fuse.Attr, i Info) {
	kept := n.kept()
	if n.made() {
		a := settled(kept, i.Change).Attr
		used := i.Allocated
		if n.fs.copiers.copies(ctx) {
			used = i.Size
		}
		attrs(out, syscall.S_IFREG, n.fs.owned(a), i.Size, used)
		return
	}
	kept.Modified = max(kept.Modified, n.mtime.Load())
	kept.Changed = max(kept.Changed, n.mtime.Load())
	attrs(out, syscall.S_IFREG, kept.Attr, 0, 0)
	if _, _, there := n.fs.tree.Path(n.which.Load().node); !there {
		out.Nlink = 0
	}
}

// Getattr implements gofs.NodeGetattrer. A vDisk that is deleted by others has no
// links, to who still has its file.
func (n *diskNode) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if !n.made() {
		n.show(ctx, &out.Attr, Info{})
		return 0
	}
	i, err := n.info(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist) && n.made():
		n.show(ctx, &out.Attr, Info{})
		out.Nlink = 0
	case errors.Is(err, fs.ErrNotExist):
		n.show(ctx, &out.Attr, Info{}) // emptied meanwhile
	case err != nil:
		return errnoOf(err)
	default:
		n.show(ctx, &out.Attr, i)
	}
	return 0
}

// Setattr implements gofs.NodeSetattrer.
func (n *diskNode) Setattr(ctx context.Context, f gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	size, sized := in.GetSize()
	if sized {
		if size > sizeMax {
			return syscall.EFBIG
		}
		// Not ESTALE, whatever the file was found by: another vDisk that has its name
		// now must not be emptied in its place.
		if err := n.truncate(ctx, int64(size)); err != nil {
			return errnoOf(err)
		}
	}
	if e := n.setFound(ctx, f != nil || sized, func(a *filetree.Attr) { change(a, in) }); e != 0 {
		return e
	}
	return n.Getattr(ctx, f, out)
}

// setFound is setAttr of a file that was found by a name a moment ago, or, if held,
// otherwise.
func (n *diskNode) setFound(ctx context.Context, held bool, change func(*filetree.Attr)) syscall.Errno {
	// Who is emptying or making it has keep: its vDisk is not there then, and the
	// file is.
	if err := n.keep.Take(ctx); err != nil {
		return errnoOf(err)
	}
	defer n.keep.Give()
	if !held && !n.gone && n.made() {
		if _, err := n.info(ctx); err != nil {
			return n.errnoAt(ctx, err)
		}
	}
	return errnoOf(n.setAttrKept(ctx, change))
}

// setAttr changes the attributes and keeps them, with the time of the last
// write. Who looks meanwhile sees those that were there before.
func (n *diskNode) setAttr(ctx context.Context, change func(*filetree.Attr)) error {
	if err := n.keep.Take(ctx); err != nil {
		return err
	}
	defer n.keep.Give()
	return n.setAttrKept(ctx, change)
}

// setAttrKept is setAttr; n.keep is held.
func (n *diskNode) setAttrKept(ctx context.Context, change func(*filetree.Attr)) error {
	if n.gone {
		return nil
	}
	if n.made() {
		return n.setDiskAttr(ctx, change)
	}
	// Who is emptying or making it has keep.
	kept := n.kept()
	now := kept
	was := n.mtime.Load()
	now.Modified, now.Changed = max(now.Modified, was), max(now.Changed, was)
	change(&now.Attr)
	if now == kept {
		return nil
	}
	_, err := n.fs.tree.Set(ctx, n.which.Load().node, func(kept *filetree.Attr) { *kept = now.Attr })
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // it was unlinked
		return err
	}
	n.mtime.CompareAndSwap(was, 0)
	n.setKept(now)
	return nil
}

// setDiskAttr is setAttr of a vDisk. n.keep is held.
func (n *diskNode) setDiskAttr(ctx context.Context, change func(*filetree.Attr)) error {
	i, err := n.info(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // others have deleted it
	}
	if err != nil {
		return err
	}
	kept := n.kept()
	now := settled(kept, i.Change)
	shown := n.fs.owned(now.Attr)
	asked := shown
	if change(&asked); asked != shown {
		now.Attr = asked
	}
	if !stale(kept, now) {
		return nil
	}
	if err := n.fs.tree.KeepDisk(ctx, i.ID, now, 0); err != nil {
		return err
	}
	n.setKept(now)
	return nil
}

// become lets its caller alone make or empty the file, until done is called.
func (n *diskNode) become(ctx context.Context) (done func(), err error) {
	if err := n.keep.Take(ctx); err != nil {
		return nil, err
	}
	if err := until(ctx, n.mu.TryLock); err != nil {
		n.keep.Give()
		return nil, err
	}
	return func() {
		n.mu.Unlock()
		n.keep.Give()
	}, nil
}

// share takes n.mu for reading, or gives up when ctx ends: it may be held over the
// making of a vDisk.
func (n *diskNode) share(ctx context.Context) error { return until(ctx, n.mu.TryRLock) }

// kept is the attributes as they were kept last.
func (n *diskNode) kept() filetree.DiskAttr {
	n.state.Lock()
	defer n.state.Unlock()
	return n.attr
}

func (n *diskNode) setKept(a filetree.DiskAttr) {
	n.state.Lock()
	defer n.state.Unlock()
	n.attr = a
}

// Statfs implements gofs.NodeStatfser.
func (n *diskNode) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return errnoOf(n.fs.statfs(ctx, out))
}
