package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
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

	pristine atomic.Bool // nothing was written since it was cloned

	// mu is held for reading by I/O and for writing by what changes which
	// device there is, its size, or its attributes.
	mu      sync.RWMutex
	id      uuid.UUID // nil while the file is empty and there is no vDisk
	node    uint64    // in the tree, while there is none
	attr    filetree.Attr
	clone   uuid.UUID // the vDisk that this is a clone of, if it is pristine
	opens   int
	idle    chan struct{} // closed when opens is 0 again
	dev     Device        // set while opens > 0 and id is set
	release func()
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

// diskHandle is an open file: the library tells of the release of handles only.
type diskHandle struct{ node *diskNode }

// opened counts one more open. n.mu is held, or nobody knows n yet.
func (n *diskNode) opened() {
	if n.opens++; n.opens == 1 {
		n.idle = make(chan struct{})
	}
}

// releaseWait is how long a deletion waits for closes that the kernel has not
// told about yet: it does so after close(2) has returned.
const releaseWait = 200 * time.Millisecond

// waitIdle waits for the last close, but not for long.
func (n *diskNode) waitIdle(ctx context.Context) {
	n.mu.RLock()
	idle, opens := n.idle, n.opens
	n.mu.RUnlock()
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

// attach opens the device. n.mu is held.
func (n *diskNode) attach(ctx context.Context) (err error) {
	n.dev, n.release, err = n.fs.pool.Open(ctx, *n.name.Load())
	return err
}

// detach gives the device back. n.mu is held.
func (n *diskNode) detach() {
	if n.dev != nil {
		n.release()
		n.dev, n.release = nil, nil
	}
}

// made reports whether there is a vDisk. n.mu is held.
func (n *diskNode) made() bool { return n.id != uuid.Nil }

// Release implements gofs.NodeReleaser.
func (n *diskNode) Release(ctx context.Context, _ gofs.FileHandle) syscall.Errno {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.opens--; n.opens > 0 {
		return 0
	}
	close(n.idle)
	n.detach()
	if n.attr.Modified == n.mtime.Load() {
		return 0
	}
	// Nobody hears of it if the time cannot be kept.
	return errnoOf(n.setAttr(ctx, func(*filetree.Attr) {}))
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

// info returns what the pool knows of the vDisk, whose name may have been
// changed by others. n.mu is held.
func (n *diskNode) info(ctx context.Context) (Info, error) {
	i, err := n.fs.pool.Info(ctx, *n.name.Load())
	if err == nil && i.ID == n.id || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return i, err
	}
	list, err := n.fs.pool.List(ctx)
	if err != nil {
		return i, err
	}
	for _, i := range list {
		if i.ID == n.id {
			n.name.Store(&i.Name)
			return i, nil
		}
	}
	return i, fmt.Errorf("vDisk %s: %w", *n.name.Load(), fs.ErrNotExist)
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
	a := n.attr
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
	n.mu.Lock()
	err := n.setAttr(ctx, func(a *filetree.Attr) { change(a, in) })
	n.mu.Unlock()
	if err != nil {
		return errnoOf(err)
	}
	return n.Getattr(ctx, f, out)
}

// setAttr changes the attributes and keeps them, with the time of the last
// write. n.mu is held for writing.
func (n *diskNode) setAttr(ctx context.Context, change func(*filetree.Attr)) (err error) {
	a := n.attr
	a.Modified = n.mtime.Load()
	change(&a)
	switch {
	case a == n.attr:
		return nil
	case n.made():
		err = n.fs.tree.KeepDisk(ctx, n.id, a, "")
	default:
		_, err = n.fs.tree.Set(ctx, n.node, func(kept *filetree.Attr) { *kept = a })
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // it was unlinked
		}
	}
	if err == nil {
		n.attr = a
		n.mtime.Store(a.Modified)
	}
	return err
}

// truncate sets the size, rounded up. To nothing it deletes the vDisk, and
// with it the file is empty; it fails if the vDisk is in use elsewhere or has
// snapshots or clones. To less than it is it fails otherwise.
func (n *diskNode) truncate(ctx context.Context, size int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.touch()
	if size > 0 {
		return n.resize(ctx, roundUp(size))
	}
	if !n.made() {
		return nil
	}
	i, err := n.info(ctx)
	if err != nil {
		return err
	}
	if len(i.Snapshots) > 0 {
		return fmt.Errorf("vDisk %s has snapshots and cannot be emptied: %w", i.Name, syscall.EBUSY)
	}
	return n.empty(ctx, i)
}

// empty deletes the vDisk and makes an empty file of the node. That is there
// first: a stop in between leaves the vDisk. n.mu is held for writing.
func (n *diskNode) empty(ctx context.Context, i Info) error {
	e, err := n.fs.tree.Make(ctx, i.Name+suffix, filetree.Entry{Kind: filetree.EmptyDisk, Attr: n.attr})
	if err != nil {
		return err
	}
	n.detach()
	if err := n.fs.pool.Delete(ctx, i.Name); err != nil {
		if n.opens > 0 {
			err = errors.Join(err, n.attach(ctx))
		}
		return errors.Join(err, n.fs.tree.Remove(ctx, i.Name+suffix))
	}
	if err := n.fs.tree.ForgetDisk(ctx, n.id); err != nil {
		return err
	}
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	delete(n.fs.disks, n.id)
	n.fs.empty[e.Node] = n
	n.id, n.node = uuid.Nil, e.Node
	return nil
}

// resize grows the vDisk, or makes it. n.mu is held for writing.
func (n *diskNode) resize(ctx context.Context, size int64) error {
	if size > sizeMax {
		return syscall.EFBIG
	}
	if !n.made() {
		return n.make(ctx, func(name string) error { return n.fs.pool.Create(ctx, name, size) })
	}
	have, err := n.size(ctx)
	switch {
	case err != nil || size == have:
		return err
	case size < have:
		return fmt.Errorf("vDisk %s cannot shrink: %w", *n.name.Load(), fs.ErrInvalid)
	}
	return n.fs.pool.Resize(ctx, *n.name.Load(), size)
}

// make makes the vDisk of an empty file. It is there before the file's entry
// goes: a stop in between leaves both, and the vDisk counts. n.mu is held for
// writing.
func (n *diskNode) make(ctx context.Context, do func(name string) error) error {
	file, _, there := n.fs.tree.Path(n.node)
	if !there {
		return fmt.Errorf("file %s was deleted: %w", *n.name.Load(), fs.ErrNotExist)
	}
	name := strings.TrimSuffix(file, suffix)
	if err := do(name); err != nil {
		return err
	}
	i, err := n.fs.pool.Info(ctx, name)
	if err != nil {
		return err
	}
	if err := n.fs.tree.KeepDisk(ctx, i.ID, n.attr, file); err != nil {
		return err
	}
	n.fs.mu.Lock()
	delete(n.fs.empty, n.node)
	n.fs.disks[i.ID] = n
	n.fs.mu.Unlock()
	n.id, n.node = i.ID, 0
	n.name.Store(&name)
	if n.opens > 0 {
		return n.attach(ctx)
	}
	return nil
}

// remove deletes the file, and the vDisk if there is one.
func (n *diskNode) remove(ctx context.Context) error {
	n.waitIdle(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.made() {
		if err := n.fs.pool.Delete(ctx, *n.name.Load()); err != nil {
			return err
		}
		return n.fs.tree.ForgetDisk(ctx, n.id)
	}
	return n.fs.tree.Remove(ctx, *n.name.Load()+suffix)
}

// rename moves the file to a free name.
func (n *diskNode) rename(ctx context.Context, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, _, err := n.fs.find(ctx, name)
	switch {
	case err == nil:
		return fmt.Errorf("%s: %w", name, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case n.made():
		err = n.fs.pool.Rename(ctx, *n.name.Load(), name)
	default:
		err = n.fs.tree.Move(ctx, *n.name.Load()+suffix, name+suffix, false)
	}
	if err == nil {
		n.name.Store(&name)
	}
	return err
}

// Statfs implements gofs.NodeStatfser.
func (n *diskNode) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return errnoOf(n.fs.statfs(ctx, out))
}
