package fusefs

import (
	"context"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// diskNode is the file of a vDisk.
type diskNode struct {
	gofs.Inode
	fs    *FS
	ino   uint64
	name  atomic.Pointer[string]
	mtime atomic.Int64 // nanoseconds; kept until the unmount

	// mu is held for reading by I/O and for writing by what changes which
	// device there is, or its size.
	mu      sync.RWMutex
	id      string // "" while the file is empty and there is no vDisk
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
	_ gofs.NodeFsyncer     = (*diskNode)(nil)
	_ gofs.NodeAllocater   = (*diskNode)(nil)
	_ gofs.NodeLseeker     = (*diskNode)(nil)
	_ gofs.NodeStatfser    = (*diskNode)(nil)
	_ gofs.NodeOnForgetter = (*diskNode)(nil)
)

const (
	fileMode  = syscall.S_IFREG | 0o600
	openFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
)

func (n *diskNode) touch() { n.mtime.Store(time.Now().UnixNano()) }

// Open implements gofs.NodeOpener. All opens of a file share one device.
func (n *diskNode) Open(ctx context.Context, _ uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.id != "" && n.dev == nil {
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

// Release implements gofs.NodeReleaser.
func (n *diskNode) Release(context.Context, gofs.FileHandle) syscall.Errno {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.opens--; n.opens == 0 {
		close(n.idle)
		n.detach()
	}
	return 0
}

// OnForget implements gofs.NodeOnForgetter.
func (n *diskNode) OnForget() {
	n.mu.RLock()
	id := n.id
	n.mu.RUnlock()
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	if n.fs.disks[id] == n {
		delete(n.fs.disks, id)
	}
}

// size is the current size. n.mu is held.
func (n *diskNode) size(ctx context.Context) (int64, error) {
	if n.dev != nil {
		return n.dev.Size(), nil
	}
	if n.id == "" {
		return 0, nil
	}
	i, err := n.fs.pool.Info(ctx, *n.name.Load())
	return i.Size, err
}

// Getattr implements gofs.NodeGetattrer.
func (n *diskNode) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.mu.RLock()
	defer n.mu.RUnlock()
	size, err := n.size(ctx)
	if err != nil {
		return errnoOf(err)
	}
	n.fs.attrs(&out.Attr, fileMode, size, n.mtime.Load())
	return 0
}

// Setattr implements gofs.NodeSetattrer: sizes and times; owners and modes are
// those of the mount (EPERM).
func (n *diskNode) Setattr(ctx context.Context, f gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if mode, ok := in.GetMode(); ok && mode&0o7777 != fileMode&0o7777 {
		return syscall.EPERM
	}
	if uid, ok := in.GetUID(); ok && uid != n.fs.opt.UID {
		return syscall.EPERM
	}
	if gid, ok := in.GetGID(); ok && gid != n.fs.opt.GID {
		return syscall.EPERM
	}
	if size, ok := in.GetSize(); ok {
		if size > sizeMax {
			return syscall.EFBIG
		}
		if err := n.truncate(ctx, int64(size)); err != nil {
			return errnoOf(err)
		}
	}
	if t, ok := in.GetMTime(); ok {
		n.mtime.Store(t.UnixNano())
	}
	return n.Getattr(ctx, f, out)
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
	if n.id == "" {
		return nil
	}
	name := *n.name.Load()
	i, err := n.fs.pool.Info(ctx, name)
	if err != nil {
		return err
	}
	if len(i.Snapshots) > 0 {
		return fmt.Errorf("vDisk %s has snapshots and cannot be emptied: %w", name, syscall.EBUSY)
	}
	n.detach()
	if err := n.fs.pool.Delete(ctx, name); err != nil {
		if n.opens > 0 {
			if again := n.attach(ctx); again != nil {
				return again
			}
		}
		return err
	}
	n.fs.mu.Lock()
	delete(n.fs.disks, n.id)
	n.fs.empty[name] = n
	n.fs.mu.Unlock()
	n.id = ""
	return nil
}

// resize grows the vDisk, or makes it. n.mu is held for writing.
func (n *diskNode) resize(ctx context.Context, size int64) error {
	name := *n.name.Load()
	if size > sizeMax {
		return syscall.EFBIG
	}
	if n.id != "" {
		have, err := n.size(ctx)
		switch {
		case err != nil || size == have:
			return err
		case size < have:
			return fmt.Errorf("vDisk %s cannot shrink: %w", name, fs.ErrInvalid)
		}
		return n.fs.pool.Resize(ctx, name, size)
	}
	n.fs.mu.Lock()
	unlinked := n.fs.empty[name] != n
	n.fs.mu.Unlock()
	if unlinked {
		return fmt.Errorf("file %s was deleted: %w", name, fs.ErrNotExist)
	}
	if err := n.fs.pool.Create(ctx, name, size); err != nil {
		return err
	}
	i, err := n.fs.pool.Info(ctx, name)
	if err != nil {
		return err
	}
	n.id = i.ID
	n.fs.mu.Lock()
	n.fs.disks[n.id] = n
	delete(n.fs.empty, name)
	n.fs.mu.Unlock()
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
	name := *n.name.Load()
	if n.id != "" {
		return n.fs.pool.Delete(ctx, name)
	}
	n.fs.mu.Lock()
	delete(n.fs.empty, name)
	n.fs.mu.Unlock()
	return nil
}

// rename moves the file to a free name.
func (n *diskNode) rename(ctx context.Context, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := *n.name.Load()
	if old == name {
		return nil
	}
	if taken, err := n.fs.exists(ctx, name); err != nil {
		return err
	} else if taken {
		return fmt.Errorf("%s: %w", name, fs.ErrExist)
	}
	if n.id != "" {
		if err := n.fs.pool.Rename(ctx, old, name); err != nil {
			return err
		}
	} else {
		n.fs.mu.Lock()
		delete(n.fs.empty, old)
		n.fs.empty[name] = n
		n.fs.mu.Unlock()
	}
	n.name.Store(&name)
	return nil
}

// Statfs implements gofs.NodeStatfser.
func (n *diskNode) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return errnoOf(n.fs.statfs(ctx, out))
}
