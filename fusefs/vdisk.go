package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs/filetree"
	"openvstorage/fusefs/transport"
	"openvstorage/internal/ctxlock"
)

// diskNode is the file of a vDisk: what the library calls, and what needs more than one
// of its parts.
//
// Locks, in the order in which they may be taken: file.changing, open.mu and
// directories.moving. The others, of opens, attrs, pages and labels, are held for a moment.
type diskNode struct {
	gofs.Inode
	fs     *FS
	ino    uint64
	file   diskFile
	open   openDevice
	attrs  diskAttrs
	copied copied
	pages  mappedPages
	labels labels
}

// diskHandle is an open file: the library tells of the release of handles only.
type diskHandle struct{ node *diskNode }

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

const (
	openFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
)

// newDiskNode makes a node, and ties its parts. kept is what is stored of it.
func newDiskNode(f *FS, ino uint64, is which, kept filetree.DiskAttr) *diskNode {
	n := &diskNode{fs: f, ino: ino}
	n.file.pool, n.file.tree, n.file.changing = f.pool, f.tree, ctxlock.New()
	n.file.which.Store(&is)
	n.open.file = &n.file
	n.attrs.file, n.attrs.tree, n.attrs.owner, n.attrs.copiers, n.attrs.attr = &n.file, f.tree, f.owner, &f.copiers, kept
	return n
}

// Open implements gofs.NodeOpener. All opens of a file share one device.
func (n *diskNode) Open(ctx context.Context, _ uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if err := n.open.open(ctx); err != nil {
		return nil, 0, n.file.errnoAt(ctx, err)
	}
	return &diskHandle{n}, openFlags, 0
}

// Release implements gofs.NodeReleaser.
func (n *diskNode) Release(ctx context.Context, _ gofs.FileHandle) syscall.Errno {
	if !n.open.close() {
		return 0
	}
	// Nobody hears of it if the time cannot be stored.
	return errnoOf(n.attrs.store(ctx))
}

// Getattr implements gofs.NodeGetattrer. A vDisk that is deleted by others has no
// links, to those who still have its file.
func (n *diskNode) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if !n.file.made() {
		n.attrs.show(ctx, &out.Attr, Info{})
		return 0
	}
	i, err := n.file.info(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist) && n.file.made():
		n.attrs.show(ctx, &out.Attr, Info{})
		out.Nlink = 0
	case errors.Is(err, fs.ErrNotExist):
		n.attrs.show(ctx, &out.Attr, Info{}) // emptied meanwhile
	case err != nil:
		return errnoOf(err)
	default:
		n.attrs.show(ctx, &out.Attr, i)
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
	asked := func(a *filetree.Attr) { change(a, in) }
	if f != nil || sized {
		if err := n.attrs.set(ctx, asked); err != nil {
			return errnoOf(err)
		}
	} else if e := n.attrs.setFound(ctx, asked); e != 0 {
		return e
	}
	return n.Getattr(ctx, f, out)
}

// Statfs implements gofs.NodeStatfser.
func (n *diskNode) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return errnoOf(n.fs.statfs(ctx, out))
}
