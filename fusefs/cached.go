package fusefs

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/google/uuid"
	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs/transport"
)

// Changed tells that a vDisk may hold something else than before, all at once and
// not by its users: what the kernel has of its file in memory, for those who map
// it, is written to it and dropped. Reads and writes go past that anyway.
func (f *FS) Changed(id uuid.UUID) error {
	f.mu.Lock()
	n := f.disks[id]
	f.mu.Unlock()
	if n == nil {
		return nil // the kernel does not know it
	}
	if e := n.NotifyContent(0, 0); e != 0 && !errors.Is(e, syscall.ENOENT) {
		return fmt.Errorf("file %s%s: pages in the kernel's memory: %w", *n.name.Load(), suffix, e)
	}
	return nil
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
