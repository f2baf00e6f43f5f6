package fusefs

import (
	"context"
	"errors"
	"math"
	"syscall"

	"github.com/google/uuid"
	gofs "github.com/hanwen/go-fuse/v2/fs"

	"openvstorage/device"
)

var (
	_ gofs.NodeCopyFileRanger = (*diskNode)(nil)
	_ gofs.NodeCopyFileRanger = (*snapFile)(nil)
)

const (
	// copyPiece is copied at once, and copyMax by one call.
	copyPiece = 1 << 20
	copyMax   = 64 << 20

	// copyWhole is the longest range that the kernel asks for: its MAX_RW_COUNT.
	copyWhole = math.MaxInt32 &^ 0xfff
)

// source is what is copied from: a vDisk, or a snapshot.
type source struct {
	id    content
	disk  *diskNode // nil if it is a snapshot
	size  int64
	run   func(ctx context.Context, off, length int64, buf []byte) (piece int64, hole bool, err error)
	clone func(ctx context.Context, naming Naming) error
}

// content is what a clone begins as: a vDisk, or with a name a snapshot of it.
type content struct {
	disk uuid.UUID
	snap string
}

// CopyFileRange implements gofs.NodeCopyFileRanger. A copy of all of a vDisk
// onto an empty file makes a clone, which costs nothing. Such a copy is a range from
// the start of both that reaches the end, or is as long as the kernel lets a
// range be: a copy of a larger vDisk begins like this. The ranges that its program asks
// for next are there already. Every other range is copied, holes as holes.
func (n *diskNode) CopyFileRange(ctx context.Context, _ gofs.FileHandle, offIn uint64, out *gofs.Inode, _ gofs.FileHandle, offOut, length, flags uint64) (uint32, syscall.Errno) {
	if err := n.open.share(ctx); err != nil {
		return 0, errnoOf(err)
	}
	made, id := n.file.made(), n.file.id()
	size, err := n.open.size(ctx)
	n.open.unshare()
	if err != nil || !made {
		return 0, errnoOf(err)
	}
	from := source{
		id: content{disk: id}, disk: n, size: size, run: n.run,
		// What was written to the source before is in the clone: a snapshot has
		// all writes that returned (rule O9).
		clone: func(ctx context.Context, naming Naming) error {
			return n.fs.pool.named(ctx, id, func(name string) error { return n.fs.pool.CloneAs(ctx, name, naming) })
		},
	}
	return from.copyRange(ctx, offIn, out, offOut, length, flags)
}

// CopyFileRange implements gofs.NodeCopyFileRanger: as from a vDisk, a copy of
// the whole is a clone of the snapshot.
func (s *snapFile) CopyFileRange(ctx context.Context, f gofs.FileHandle, offIn uint64, out *gofs.Inode, _ gofs.FileHandle, offOut, length, flags uint64) (uint32, syscall.Errno) {
	dev := f.(*snapHandle).dev
	from := source{
		id: content{s.disk, s.snap.Name}, size: dev.Size(),
		run: func(ctx context.Context, off, length int64, buf []byte) (int64, bool, error) {
			return runOf(ctx, dev, off, length, buf)
		},
		clone: func(ctx context.Context, naming Naming) error {
			return s.named(ctx, func(name string) error { return s.fs.pool.CloneAs(ctx, name, naming) })
		},
	}
	return from.copyRange(ctx, offIn, out, offOut, length, flags)
}

// copyRange copies a range of a source, or makes a clone of it.
func (from source) copyRange(ctx context.Context, offIn uint64, out *gofs.Inode, offOut, length, flags uint64) (uint32, syscall.Errno) {
	to, ok := out.Operations().(*diskNode)
	switch {
	case !ok:
		return 0, syscall.EXDEV // the kernel copies by reads and writes
	case flags != 0:
		return 0, syscall.EINVAL
	case offIn > sizeMax || offOut > sizeMax:
		return 0, syscall.EFBIG
	case int64(offIn) >= from.size:
		return 0, 0
	}
	length = min(length, uint64(from.size)-offIn)
	if offIn == offOut && from.disk != to {
		told := int64(min(length, copyWhole))
		cloned, err := to.cloneOf(ctx, from, int64(offIn), told, offIn == 0 && (length == uint64(from.size) || length >= copyWhole))
		if err != nil {
			return 0, errnoOf(err)
		}
		if cloned {
			return uint32(told), 0
		}
	}
	return from.copyTo(ctx, to, int64(offIn), int64(offOut), int64(min(length, copyMax)))
}

// cloneOf reports whether a range of the source is in the file already, as the
// next range of the copy that made it a clone. make says that an empty file is to
// become a clone.
func (n *diskNode) cloneOf(ctx context.Context, from source, off, length int64, make bool) (bool, error) {
	done, err := n.become(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	if n.file.made() || !make {
		return n.copied.goesOn(from.id, off, length, from.size), nil
	}
	if err := n.make(ctx, func(naming Naming) error { return from.clone(ctx, naming) }); err != nil {
		return false, err
	}
	n.copied.begin(from.id, length, from.size)
	return true, nil
}

// copyTo copies a range.
func (from source) copyTo(ctx context.Context, to *diskNode, offIn, offOut, length int64) (uint32, syscall.Errno) {
	if offIn&(clusterSize-1) != offOut&(clusterSize-1) || from.disk == to && offIn < offOut+length && offOut < offIn+length {
		return 0, syscall.EXDEV // not worth it, or overlapping: by reads and writes
	}
	buf := make([]byte, copyPiece)
	done := int64(0)
	for done < length {
		piece, hole, err := from.run(ctx, offIn+done, min(copyPiece, length-done), buf)
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
	dev, e := n.open.use(ctx)
	if e != 0 {
		return 0, false, e
	}
	defer n.open.unshare()
	if dev == nil {
		return 0, false, syscall.EIO // it was emptied meanwhile
	}
	return runOf(ctx, dev, off, length, buf)
}

// runOf is run for a device.
func runOf(ctx context.Context, dev device.Reader, off, length int64, buf []byte) (piece int64, hole bool, err error) {
	err = dev.Extents(ctx, off, length, func(e device.Extent) bool {
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
		err = dev.Read(ctx, buf[:piece], off)
	}
	return piece, hole, err
}

// put writes a run, a hole as one.
func (n *diskNode) put(ctx context.Context, off int64, data []byte, hole bool) error {
	dev, e := n.useTo(ctx, off+int64(len(data)))
	if e != 0 {
		return e
	}
	defer n.open.unshare()
	n.copied.touch()
	if hole {
		return dev.Trim(ctx, off, int64(len(data)))
	}
	batch := [1]device.Span{{Off: off, Data: data}}
	err := dev.TryWrite(batch[:])
	if errors.Is(err, device.ErrWouldBlock) || errors.Is(err, device.ErrUnderWay) {
		err = dev.Write(ctx, batch[:])
	}
	return err
}
