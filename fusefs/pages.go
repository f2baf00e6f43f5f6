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

// mappedPages are the pages of one file in the kernel's memory, which those who map the
// file have. The kernel is told of a change one call at a time: a call may take long,
// and keeps a thread.
type mappedPages struct {
	linked atomic.Bool // the kernel may know the file: it has the library's part

	mu        sync.Mutex
	now, next *told // the call under way, and the one after it; nil: none
}

// Changed tells that a vDisk may hold something else than before, all at once and
// not by its users. What the kernel has of its file in memory, for those who map
// it, is written to the vDisk and dropped: reads and writes go past that memory anyway.
// The kernel's writes wait as any write does, so the caller must hold nothing that a write
// of the vDisk needs. When ctx ends Changed returns, and the kernel is told all the same.
func (f *FS) Changed(ctx context.Context, id uuid.UUID) error {
	n := f.nodes.known(id)
	if n == nil || !n.pages.linked.Load() {
		return nil // the kernel does not know it
	}
	t := n.pages.tell(n.drop)
	select {
	case <-t.done:
	case <-ctx.Done():
		select {
		case <-t.done:
		default:
			return fmt.Errorf("file %s%s: mapped pages in the kernel's memory are being written to it: %w", *n.file.name.Load(), suffix, ctx.Err())
		}
	}
	if t.err != nil {
		return fmt.Errorf("file %s%s: pages in the kernel's memory: %w", *n.file.name.Load(), suffix, t.err)
	}
	return nil
}

// drop has the kernel write back and drop what it has of the file in memory. It waits
// for the writes, and only their end ends it.
func (n *diskNode) drop() error {
	if e := n.NotifyContent(0, 0); e != 0 && !errors.Is(e, syscall.ENOENT) {
		return e
	}
	return nil
}

// told is one call.
type told struct {
	done chan struct{} // closed at its end
	err  error         // set before that
}

// tell returns a call that begins now or later. A call that is under way already may have
// passed by what is to be told: whoever comes meanwhile shares the next one.
func (c *mappedPages) tell(call func() error) *told {
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
func (c *mappedPages) run(t *told, call func() error) {
	for t != nil {
		t.err = call()
		close(t.done)
		c.mu.Lock()
		c.now, c.next = c.next, nil
		t = c.now
		c.mu.Unlock()
	}
}

// notices hand what is to be told to the kernel on to the connection, which does not
// exist yet when the library's tree is made.
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
