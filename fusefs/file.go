package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs/filetree"
	"openvstorage/fusefs/transport"
	"openvstorage/internal/ctxlock"
)

// fileNode is a small file. While it is open its content is in memory. fsync and every
// close store what differs from what is stored.
type fileNode struct {
	gofs.Inode
	labels
	fs   *FS
	node uint64

	// storing is held over stores by whoever opens, changes or stores the content. It is
	// taken before mu. What mu guards, last apart, changes only while both are held.
	// Whoever looks takes mu alone, and waits for memory only.
	storing ctxlock.Lock

	mu      sync.Mutex
	last    filetree.Entry // as it was last seen, for when it is unlinked
	opens   int
	content []byte
	dirty   bool
	first   int // piece that differs from what is stored
	end     int // the last of these
}

var (
	_ gofs.NodeOpener    = (*fileNode)(nil)
	_ gofs.NodeReleaser  = (*fileNode)(nil)
	_ gofs.NodeFlusher   = (*fileNode)(nil)
	_ gofs.NodeGetattrer = (*fileNode)(nil)
	_ gofs.NodeSetattrer = (*fileNode)(nil)
	_ gofs.NodeReader    = (*fileNode)(nil)
	_ gofs.NodeWriter    = (*fileNode)(nil)
	_ gofs.NodeFsyncer   = (*fileNode)(nil)
	_ gofs.NodeAllocater = (*fileNode)(nil)
	_ gofs.NodeStatfser  = (*fileNode)(nil)
)

// fileHandle is an open small file: the library tells of the release of handles
// only.
type fileHandle struct{ node *fileNode }

// filePiece is the unit in which changes of a content are noted.
const filePiece = 64 << 10

// open reads the content, once for all who have the file open.
func (n *fileNode) open(ctx context.Context) error {
	if err := n.storing.Take(ctx); err != nil {
		return err
	}
	defer n.storing.Give()
	return n.openLocked(ctx)
}

// openLocked is open; n.storing is held.
func (n *fileNode) openLocked(ctx context.Context) error {
	content := n.content
	if n.opens == 0 {
		var err error
		if content, err = n.fs.tree.Load(ctx, n.node); err != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.content = content
	n.opens++
	return nil
}

// change lets only its caller change the content, until done is called.
func (n *fileNode) change(ctx context.Context) (done func(), err error) {
	if err := n.storing.Take(ctx); err != nil {
		return nil, err
	}
	n.mu.Lock()
	return func() {
		n.mu.Unlock()
		n.storing.Give()
	}, nil
}

// Open implements gofs.NodeOpener.
func (n *fileNode) Open(ctx context.Context, _ uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if err := n.open(ctx); err != nil {
		return nil, 0, errnoOf(err)
	}
	return &fileHandle{n}, 0, 0
}

// Release implements gofs.NodeReleaser. What no close could store is lost: each of them
// has said so.
func (n *fileNode) Release(ctx context.Context, _ gofs.FileHandle) syscall.Errno {
	if err := n.storing.Take(context.WithoutCancel(ctx)); err != nil {
		return errnoOf(err)
	}
	defer n.storing.Give()
	err := n.store(ctx)
	n.closed()
	return errnoOf(err)
}

// closed counts one open less. The last one drops the content. n.storing is held.
func (n *fileNode) closed() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.opens--; n.opens == 0 {
		n.content, n.dirty = nil, false
	}
}

// show fills in attributes.
func (n *fileNode) show(out *fuse.Attr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.showLocked(out)
}

func (n *fileNode) showLocked(out *fuse.Attr) {
	_, e, there := n.fs.tree.Path(n.node)
	if there {
		if n.dirty {
			e.Modified = max(e.Modified, n.last.Modified)
		}
		n.last = e
	}
	size := n.last.Size
	if n.opens > 0 {
		size = int64(len(n.content))
	}
	attrs(out, syscall.S_IFREG, n.last.Attr, size, size)
	if !there {
		out.Nlink = 0
	}
}

// Getattr implements gofs.NodeGetattrer.
func (n *fileNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.show(&out.Attr)
	out.SetTimeout(attrTimeout)
	return 0
}

// Setattr implements gofs.NodeSetattrer.
func (n *fileNode) Setattr(ctx context.Context, f gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if err := n.truncate(ctx, size); err != nil {
			return errnoOf(err)
		}
	}
	if err := n.setAttr(ctx, in); err != nil {
		return errnoOf(err)
	}
	return n.Getattr(ctx, f, out)
}

// setAttr changes the attributes. If a time of modification is asked for, what was
// written before is stored first: otherwise the next close would set the time anew.
func (n *fileNode) setAttr(ctx context.Context, in *fuse.SetAttrIn) error {
	if err := n.storing.Take(ctx); err != nil {
		return err
	}
	defer n.storing.Give()
	if _, _, there := n.fs.tree.Path(n.node); !there {
		return nil
	}
	if _, ok := in.GetMTime(); ok {
		if err := n.store(ctx); err != nil {
			return err
		}
	}
	_, err := n.fs.tree.Set(ctx, n.node, func(a *filetree.Attr) { change(a, in) })
	return err
}

// truncate sets the size. If the file is not open the new size is stored at once.
func (n *fileNode) truncate(ctx context.Context, size uint64) error {
	if size > filetree.MaxFile {
		return syscall.EFBIG
	}
	if err := n.storing.Take(ctx); err != nil {
		return err
	}
	defer n.storing.Give()
	if err := n.openLocked(ctx); err != nil {
		return err
	}
	defer n.closed()
	n.mu.Lock()
	same := int64(size) == int64(len(n.content))
	err := n.resize(int64(size))
	n.mu.Unlock()
	if same { // it counts as modified all the same
		_, err = n.fs.tree.Set(ctx, n.node, func(a *filetree.Attr) {
			a.Modified = time.Now().UnixNano()
			a.Changed = a.Modified
		})
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // it was unlinked
		}
		return err
	}
	if n.opens > 1 || err != nil {
		return err
	}
	return n.store(ctx)
}

// resize makes the content longer or shorter. Both locks are held.
func (n *fileNode) resize(size int64) error {
	was := int64(len(n.content))
	if size == was {
		return nil
	}
	if err := n.fs.tree.Room(was, size); err != nil {
		return err
	}
	if size < was {
		clear(n.content[size:])
		n.content = n.content[:size]
	} else {
		n.content = append(n.content, make([]byte, size-was)...)
	}
	n.differs(min(size, was), max(size, was))
	return nil
}

// differs notes that the bytes from..to differ from what is stored. Both locks are held.
func (n *fileNode) differs(from, to int64) {
	first, end := int(from/filePiece), int((to-1)/filePiece)
	if !n.dirty {
		n.first, n.end = first, end
	}
	n.dirty, n.first, n.end = true, min(n.first, first), max(n.end, end)
	n.last.Modified = time.Now().UnixNano()
}

// store stores what differs. After an error it still differs. n.storing is held.
func (n *fileNode) store(ctx context.Context) error {
	if !n.dirty {
		return nil
	}
	n.mu.Lock()
	modified := n.last.Modified
	n.mu.Unlock()
	if err := n.fs.tree.Store(ctx, n.node, n.content, n.first, n.end, time.Unix(0, modified)); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dirty = false
	return nil
}

// Read implements gofs.NodeReader.
func (n *fileNode) Read(_ context.Context, _ gofs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if off >= int64(len(n.content)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(dest[:copy(dest, n.content[off:])]), 0
}

// Write implements gofs.NodeWriter.
func (n *fileNode) Write(ctx context.Context, _ gofs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if !transport.MayWait(ctx) {
		return 0, syscall.EAGAIN // a store may hold n.storing
	}
	if len(data) == 0 {
		return 0, 0
	}
	done, err := n.change(ctx)
	if err != nil {
		return 0, errnoOf(err)
	}
	defer done()
	end := off + int64(len(data))
	if off < 0 || end > filetree.MaxFile {
		return 0, syscall.EFBIG
	}
	if end > int64(len(n.content)) {
		if err := n.resize(end); err != nil {
			return 0, errnoOf(err)
		}
	}
	copy(n.content[off:], data)
	n.differs(off, end)
	return uint32(len(data)), 0
}

// Fsync implements gofs.NodeFsyncer.
func (n *fileNode) Fsync(ctx context.Context, _ gofs.FileHandle, _ uint32) syscall.Errno {
	if err := n.storing.Take(ctx); err != nil {
		return errnoOf(err)
	}
	defer n.storing.Give()
	return errnoOf(n.store(ctx))
}

// Flush implements gofs.NodeFlusher. Every close stores.
func (n *fileNode) Flush(ctx context.Context, f gofs.FileHandle) syscall.Errno {
	return n.Fsync(ctx, f, 0)
}

// Allocate implements gofs.NodeAllocater: growing, and zeros.
func (n *fileNode) Allocate(ctx context.Context, _ gofs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	if off > filetree.MaxFile || size > filetree.MaxFile || off+size > filetree.MaxFile {
		return syscall.EFBIG
	}
	done, err := n.change(ctx)
	if err != nil {
		return errnoOf(err)
	}
	defer done()
	end := int64(off + size)
	switch mode {
	case 0, fallocZeroRange:
		if end > int64(len(n.content)) {
			if err := n.resize(end); err != nil {
				return errnoOf(err)
			}
		}
	case fallocKeepSize, fallocKeepSize | fallocPunchHole, fallocKeepSize | fallocZeroRange:
	default:
		return syscall.EOPNOTSUPP
	}
	if end = min(end, int64(len(n.content))); mode&^fallocKeepSize != 0 && int64(off) < end {
		clear(n.content[off:end])
		n.differs(int64(off), end)
	}
	return 0
}

// Statfs implements gofs.NodeStatfser.
func (n *fileNode) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return errnoOf(n.fs.statfs(ctx, out))
}
