package fusefs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/google/uuid"
	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs/transport"
)

// Changed tells that a vDisk may hold something else than before, all at once and
// not by its users: what the kernel has of its file in memory, for those who map
// it, is written to it and dropped. Reads and writes go past that anyway. What it has
// written waits as any write does: who calls holds nothing that a write of the vDisk
// needs. When ctx ends Changed returns, and the kernel is told all the same.
func (f *FS) Changed(ctx context.Context, id uuid.UUID) error {
	f.mu.Lock()
	n := f.disks[id]
	f.mu.Unlock()
	if n == nil || !n.born.Load() {
		return nil // the kernel does not know it
	}
	t := n.cached.tell(n.drop)
	select {
	case <-t.done:
	case <-ctx.Done():
		select {
		case <-t.done:
		default:
			return fmt.Errorf("file %s%s: mapped pages in the kernel's memory are being written to it: %w", *n.name.Load(), suffix, ctx.Err())
		}
	}
	if t.err != nil {
		return fmt.Errorf("file %s%s: pages in the kernel's memory: %w", *n.name.Load(), suffix, t.err)
	}
	return nil
}

// drop has the kernel write back and drop what it has of the file in memory. That
// waits for the writes, and nothing ends it but their end.
func (n *diskNode) drop() error {
	if e := n.NotifyContent(0, 0); e != 0 && !errors.Is(e, syscall.ENOENT) {
		return e
	}
	return nil
}

// cached is what tells the kernel of one file: once at a time, as a call may take long
// and keeps a thread. Who comes meanwhile shares the next call: the one under way may
// have passed by what is to be told.
type cached struct {
	mu        sync.Mutex
	now, next *told // under way, and to come after that; nil: none
}

// told is one call.
type told struct {
	done chan struct{} // closed at its end
	err  error         // set before that
}

// tell returns a call that begins now or later.
func (c *cached) tell(call func() error) *told {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil {
		c.now = &told{done: make(chan struct{})}
		go c.run(c.now, call)
		return c.now
	}
	if c.next == nil {
		c.next = &told{done: make(chan struct{})}
	}
	return c.next
}

// run makes calls until none is to come.
func (c *cached) run(t *told, call func() error) {
	for t != nil {
		t.err = call()
		close(t.done)
		c.mu.Lock()
		c.now, c.next = c.next, nil
		t = c.now
		c.mu.Unlock()
	}
}

// notices take what is to be told to the kernel to the connection, which is made
// after what tells it.
type notices struct {
	conn atomic.Pointer[transport.Conn]
}

// InodeNotify implements gofs.ServerCallbacks.
func (n *notices) InodeNotify(node uint64, off, length int64) fuse.Status {
	if c := n.conn.Load(); c != nil {
		return c.InodeNotify(node, off, length)
	}
	return fuse.ENOSYS
}

// DeleteNotify implements gofs.ServerCallbacks; nothing asks for it.
func (*notices) DeleteNotify(uint64, uint64, string) fuse.Status { return fuse.ENOSYS }

// EntryNotify implements gofs.ServerCallbacks; nothing asks for it.
func (*notices) EntryNotify(uint64, string) fuse.Status { return fuse.ENOSYS }

// InodeRetrieveCache implements gofs.ServerCallbacks; nothing asks for it.
func (*notices) InodeRetrieveCache(uint64, int64, []byte) (int, fuse.Status) { return 0, fuse.ENOSYS }

// InodeNotifyStoreCache implements gofs.ServerCallbacks; nothing asks for it.
func (*notices) InodeNotifyStoreCache(uint64, int64, []byte) fuse.Status { return fuse.ENOSYS }
