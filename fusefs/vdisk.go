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

	"openvstorage/fusefs/filetree"
	"openvstorage/fusefs/transport"
)

// diskNode is the file of a vDisk.
type diskNode struct {
	gofs.Inode
	fs     *FS
	ino    uint64
	name   atomic.Pointer[string]
	mtime  atomic.Int64 // nanoseconds; kept at the last close
	labels labels

	pristine atomic.Bool // nothing was written here since it was cloned

	// keep is held over stores of the tree by who changes the attributes, and by
	// who makes or empties the file, or deletes it. It is taken before mu: who
	// waits for it is in nobody's way, and who looks at the file does not need it.
	keep sync.Mutex
	gone bool // the vDisk is deleted; guarded by keep

	// mu is held for reading by I/O, which may wait long for room, and by what
	// else must not see the device change; for writing by what makes, empties or
	// copies to the file, opens it first and closes it last.
	mu      sync.RWMutex
	id      uuid.UUID // nil while the file is empty and there is no vDisk
	node    uint64    // in the tree, while there is none
	copying copying   // that made this a clone
	dev     Device    // set while opens > 0 and id is set
	release func()

	// state is taken after mu, and held for a moment, never over I/O or a store.
	state sync.Mutex
	attr  filetree.Attr
	opens int
	idle  chan struct{} // closed when opens is 0 again
}

var (
	_ gofs.NodeOpener      = (*diskNode)(nil)
	_ gofs.NodeReleaser    = (*diskNode)(nil)
	_ gofs.NodeGetattrer   = (*diskNode)(nil)
	_ gofs.NodeSetattrer   = (*diskNode)(nil)
	_ gofs.NodeReader      = (*diskNode)(nil)
	_ gofs.NodeWriter      = (*diskNode)(nil)
	_ transport.Writer     = (*diskNode)(nil)
	_ gofs.NodeFsyncer     = (*diskNode)(nil)
	_ gofs.NodeAllocater   = (*diskNode)(nil)
	_ gofs.NodeLseeker     = (*diskNode)(nil)
	_ gofs.NodeStatfser    = (*diskNode)(nil)
	_ gofs.NodeOnForgetter = (*diskNode)(nil)
)

const (
	openFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
)

// touch notes that something is written.
func (n *diskNode) touch() {
	n.mtime.Store(time.Now().UnixNano())
	if n.pristine.Load() {
		n.pristine.Store(false)
	}
}

// Open implements gofs.NodeOpener. All opens of a file share one device.
func (n *diskNode) Open(ctx context.Context, _ uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if n.openedAgain() {
		return &diskHandle{n}, openFlags, 0
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.made() && n.dev == nil {
		if err := n.attach(ctx); err != nil {
			return nil, 0, errnoOf(err)
		}
	}
	n.opened()
	return &diskHandle{n}, openFlags, 0
}

// openedAgain counts one more open, if there is one and all that it needs. That
// waits for no I/O.
func (n *diskNode) openedAgain() bool {
	n.mu.RLock()
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
func (n *diskNode) attach(ctx context.Context) (err error) {
	return n.named(ctx, func(name string) error {
		n.dev, n.release, err = n.fs.pool.Open(ctx, name)
		return err
	})
}

// detach gives the device back. n.mu is held for writing.
func (n *diskNode) detach() {
	if n.dev != nil {
		n.release()
		n.dev, n.release = nil, nil
	}
}

// made reports whether there is a vDisk. n.mu is held.
func (n *diskNode) made() bool { return n.id != uuid.Nil }

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

// OnForget implements gofs.NodeOnForgetter.
func (n *diskNode) OnForget() {
	n.mu.RLock()
	id, node := n.id, n.node
	n.mu.RUnlock()
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	if n.fs.disks[id] == n {
		delete(n.fs.disks, id)
	}
	if n.fs.empty[node] == n {
		delete(n.fs.empty, node)
	}
}

// info returns what the pool knows of the vDisk. n.mu is held.
func (n *diskNode) info(ctx context.Context) (Info, error) {
	i, err := n.fs.infoOf(ctx, n.id, *n.name.Load())
	if err == nil {
		n.name.Store(&i.Name)
	}
	return i, err
}

// named does something with the vDisk by the name that it has now. n.mu is held.
func (n *diskNode) named(ctx context.Context, do func(name string) error) error {
	return n.fs.named(ctx, n.id, *n.name.Load(), do)
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

// show fills in attributes.
func (n *diskNode) show(out *fuse.Attr, size int64) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	n.showLocked(out, size)
}

func (n *diskNode) showLocked(out *fuse.Attr, size int64) {
	n.state.Lock()
	a := n.attr
	n.state.Unlock()
	a.Modified = n.mtime.Load()
	a.Changed = max(a.Changed, a.Modified)
	attrs(out, syscall.S_IFREG, a, size)
	if !n.made() {
		if _, _, there := n.fs.tree.Path(n.node); !there {
			out.Nlink = 0
		}
	}
}

// Getattr implements gofs.NodeGetattrer.
func (n *diskNode) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.mu.RLock()
	defer n.mu.RUnlock()
	size, err := n.size(ctx)
	if err != nil {
		return errnoOf(err)
	}
	n.showLocked(&out.Attr, size)
	return 0
}

// Setattr implements gofs.NodeSetattrer.
func (n *diskNode) Setattr(ctx context.Context, f gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if size > sizeMax {
			return syscall.EFBIG
		}
		if err := n.truncate(ctx, int64(size)); err != nil {
			return errnoOf(err)
		}
	}
	if err := n.setAttr(ctx, func(a *filetree.Attr) { change(a, in) }); err != nil {
		return errnoOf(err)
	}
	return n.Getattr(ctx, f, out)
}

// setAttr changes the attributes and keeps them, with the time of the last
// write. Who looks meanwhile sees those that were there before.
func (n *diskNode) setAttr(ctx context.Context, change func(*filetree.Attr)) (err error) {
	n.keep.Lock()
	defer n.keep.Unlock()
	n.mu.RLock()
	made, id, node := n.made(), n.id, n.node // they stay, as n.keep is held
	n.mu.RUnlock()
	kept := n.kept()
	a := kept
	was := n.mtime.Load()
	a.Modified = was
	change(&a)
	switch {
	case a == kept:
		return nil
	case n.gone:
	case made:
		err = n.fs.tree.KeepDisk(ctx, id, a, "")
	default:
		_, err = n.fs.tree.Set(ctx, node, func(kept *filetree.Attr) { *kept = a })
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // it was unlinked
		}
	}
	if err == nil {
		// A write that came meanwhile is newer than what is kept.
		n.mtime.CompareAndSwap(was, a.Modified)
		n.state.Lock()
		n.attr = a
		n.state.Unlock()
	}
	return err
}

// become lets its caller alone make or empty the file, until done is called.
func (n *diskNode) become() (done func()) {
	n.keep.Lock()
	n.mu.Lock()
	return func() {
		n.mu.Unlock()
		n.keep.Unlock()
	}
}

// kept is the attributes as they were kept last.
func (n *diskNode) kept() filetree.Attr {
	n.state.Lock()
	defer n.state.Unlock()
	return n.attr
}

// Statfs implements gofs.NodeStatfser.
func (n *diskNode) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return errnoOf(n.fs.statfs(ctx, out))
}
