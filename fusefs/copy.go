package fusefs

import (
	"context"
	"errors"
	"math"
	"syscall"

	"github.com/google/uuid"
	gofs "github.com/hanwen/go-fuse/v2/fs"
)

var _ gofs.NodeCopyFileRanger = (*diskNode)(nil)

const (
	// copyPiece is copied at once, and copyMax by one call.
	copyPiece = 1 << 20
	copyMax   = 64 << 20

	// copyWhole is the longest range that the kernel asks for: its MAX_RW_COUNT.
	copyWhole = math.MaxInt32 &^ 0xfff
)

// CopyFileRange implements gofs.NodeCopyFileRanger. A copy of all of a vDisk
// onto an empty file makes a clone, which costs nothing. That is a range from
// the start of both that reaches the end, or is as long as the kernel lets a
// range be: who copies a larger vDisk whole begins like this. What he asks for
// next is there then. Every other range is copied, holes as holes.
func (n *diskNode) CopyFileRange(ctx context.Context, _ gofs.FileHandle, offIn uint64, out *gofs.Inode, _ gofs.FileHandle, offOut, length, flags uint64) (uint32, syscall.Errno) {
	to, ok := out.Operations().(*diskNode)
	switch {
	case !ok:
		return 0, syscall.EXDEV // the caller copies by reads and writes
	case flags != 0:
		return 0, syscall.EINVAL
	case offIn > sizeMax || offOut > sizeMax:
		return 0, syscall.EFBIG
	}
	n.mu.RLock()
	made, id := n.made(), n.id
	size, err := n.size(ctx)
	n.mu.RUnlock()
	if err != nil || !made || int64(offIn) >= size {
		return 0, errnoOf(err)
	}
	length = min(length, uint64(size)-offIn)
	if offIn == offOut && n != to {
		cloned, err := to.cloneOf(ctx, n, id, offIn == 0 && (length == uint64(size) || length >= copyWhole))
		if err != nil {
			return 0, errnoOf(err)
		}
		if cloned {
			return uint32(min(length, copyWhole)), 0
		}
	}
	return n.copyTo(ctx, to, int64(offIn), int64(offOut), int64(min(length, copyMax)))
}

// cloneOf reports whether the file is a clone of another one's vDisk that
// nothing was written to since; make says that an empty one is to become that.
func (n *diskNode) cloneOf(ctx context.Context, from *diskNode, id uuid.UUID, make bool) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.made() || !make {
		return n.made() && n.clone == id && n.pristine.Load(), nil
	}
	err := n.make(ctx, func(name string) error {
		// What was written to the source before is in the clone: a snapshot
		// has all writes that returned (rule O9).
		return n.fs.pool.Clone(ctx, *from.name.Load(), name)
	})
	if err != nil {
		return false, err
	}
	n.clone = id
	n.pristine.Store(true)
	return true, nil
}

// copyTo copies a range.
func (n *diskNode) copyTo(ctx context.Context, to *diskNode, offIn, offOut, length int64) (uint32, syscall.Errno) {
	if offIn&(clusterSize-1) != offOut&(clusterSize-1) || n == to && offIn < offOut+length && offOut < offIn+length {
		return 0, syscall.EXDEV // not worth it, or overlapping: by reads and writes
	}
	buf := make([]byte, copyPiece)
	done := int64(0)
	for done < length {
		piece, hole, err := n.run(ctx, offIn+done, min(copyPiece, length-done), buf)
		if err == nil {
			err = to.put(ctx, offOut+done, buf[:piece], hole)
		}
		if err != nil {
			if done > 0 {
				break
			}
			return 0, errnoOf(err)
		}
		done += piece
	}
	return uint32(done), 0
}

// run reads up to length bytes that are one run of data into buf, or finds how
// long a hole is.
func (n *diskNode) run(ctx context.Context, off, length int64, buf []byte) (piece int64, hole bool, err error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.dev == nil {
		return 0, false, syscall.EIO
	}
	err = n.dev.Extents(ctx, off, length, func(e Extent) bool {
		if piece == 0 {
			hole = e.Hole
		}
		if e.Hole == hole {
			piece += e.Length
		}
		return e.Hole == hole
	})
	piece = min(max(piece, 1), length)
	if err == nil && !hole {
		err = n.dev.Read(ctx, buf[:piece], off)
	}
	return piece, hole, err
}

// put writes a run, a hole as one.
func (n *diskNode) put(ctx context.Context, off int64, data []byte, hole bool) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if e := n.reach(ctx, off+int64(len(data))); e != 0 {
		return e
	}
	n.touch()
	if hole {
		return n.dev.Trim(ctx, off, int64(len(data)))
	}
	batch := [1]Span{{Off: off, Data: data}}
	err := n.dev.TryWrite(batch[:])
	if errors.Is(err, ErrWouldBlock) || errors.Is(err, ErrUnderWay) {
		err = n.dev.Write(ctx, batch[:])
	}
	return err
}
