package fusefs

import (
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/device"
	"openvstorage/fusefs/transport"
)

// Modes of fallocate(2) that are offered, and of lseek(2).
const (
	fallocKeepSize  = 0x01
	fallocPunchHole = 0x02
	fallocZeroRange = 0x10

	seekData = 3
	seekHole = 4
)

// readDevice fills dest, shorter at the end of the device.
func readDevice(ctx context.Context, dev device.Reader, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	dest = dest[:max(0, min(int64(len(dest)), dev.Size()-off))]
	if len(dest) == 0 {
		return fuse.ReadResultData(nil), 0
	}
	err := dev.TryRead(dest, off)
	if err == device.ErrWouldBlock || err == device.ErrUnderWay {
		if !transport.MayWait(ctx) {
			return nil, syscall.EAGAIN
		}
		err = dev.Read(ctx, dest, off)
	}
	if err != nil {
		return nil, errnoOf(err)
	}
	return fuse.ReadResultData(dest), 0
}

// lockShared takes n.mu for reading, unless it would have to wait for it and may
// not, or not any more.
func (n *diskNode) lockShared(ctx context.Context) bool {
	return n.mu.TryRLock() || transport.MayWait(ctx) && n.share(ctx) == nil
}

// unshared is what a request answers for which lockShared took no lock.
func (n *diskNode) unshared(ctx context.Context) syscall.Errno {
	if !transport.MayWait(ctx) {
		return syscall.EAGAIN
	}
	return errnoOf(ctx.Err())
}

// use takes n.mu for reading, with the vDisk open: where it is not, an emptying of
// the file was given up that had closed it, and the vDisk is there all the same.
// There is no device then if the file is empty. After an error n.mu is not held.
func (n *diskNode) use(ctx context.Context) syscall.Errno {
	for {
		if !n.lockShared(ctx) {
			return n.unshared(ctx)
		}
		if n.dev != nil || !n.made() {
			return 0
		}
		n.mu.RUnlock()
		if !transport.MayWait(ctx) {
			return syscall.EAGAIN
		}
		if err := n.reopen(ctx); err != nil {
			if ctx.Err() != nil {
				return errnoOf(ctx.Err())
			}
			return syscall.EIO
		}
	}
}

// reopen opens the vDisk for those who have the file open.
func (n *diskNode) reopen(ctx context.Context) error {
	if err := until(ctx, n.mu.TryLock); err != nil {
		return err
	}
	defer n.mu.Unlock()
	switch {
	case n.dev != nil || !n.made():
		return nil
	case !n.inUse():
		return syscall.EIO // nobody would close it
	}
	return n.attach(ctx)
}

// Read implements gofs.NodeReader.
func (n *diskNode) Read(ctx context.Context, _ gofs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if e := n.use(ctx); e != 0 {
		return nil, e
	}
	defer n.mu.RUnlock()
	if n.dev == nil {
		return nil, n.noDevice(0)
	}
	return readDevice(ctx, n.dev, dest, off)
}

// noDevice is what an empty file answers, or EIO of a vDisk that cannot be opened.
// n.mu is held.
func (n *diskNode) noDevice(empty syscall.Errno) syscall.Errno {
	if n.made() {
		return syscall.EIO
	}
	return empty
}

// Write implements gofs.NodeWriter. A write past the end grows the vDisk
// first.
func (n *diskNode) Write(ctx context.Context, _ gofs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if len(data) == 0 {
		return 0, 0
	}
	if e := n.shareTo(ctx, off+int64(len(data))); e != 0 {
		return 0, e
	}
	defer n.mu.RUnlock()
	if off%clusterSize == 0 && len(data)%clusterSize == 0 && transport.Gather(ctx, n, off, data) {
		return 0, transport.Gathered
	}
	batch := [1]device.Span{{Off: off, Data: data}}
	err := n.dev.TryWrite(batch[:])
	if err == device.ErrWouldBlock || err == device.ErrUnderWay {
		if !transport.MayWait(ctx) {
			return 0, syscall.EAGAIN
		}
		err = n.dev.Write(ctx, batch[:])
	}
	if err != nil {
		return 0, errnoOf(err)
	}
	n.touch()
	return uint32(len(data)), 0
}

// WriteGathered implements transport.Writer: writes of a round, whole clusters,
// are one append.
func (n *diskNode) WriteGathered(batch []device.Span) syscall.Errno {
	if !n.mu.TryRLock() {
		return syscall.EAGAIN
	}
	defer n.mu.RUnlock()
	for _, w := range batch {
		if n.dev == nil || w.Off+int64(len(w.Data)) > n.dev.Size() {
			return syscall.EAGAIN // it was emptied meanwhile: each finds out
		}
	}
	err := n.dev.TryWrite(batch)
	if err == device.ErrWouldBlock || err == device.ErrUnderWay {
		return syscall.EAGAIN
	}
	if err == nil {
		n.touch()
	}
	return errnoOf(err)
}

// shareTo takes n.mu for reading, when there is a device and it reaches to end: it is
// made to. After an error n.mu is not held.
func (n *diskNode) shareTo(ctx context.Context, end int64) syscall.Errno {
	if end > sizeMax {
		return syscall.EFBIG
	}
	for {
		if e := n.use(ctx); e != 0 {
			return e
		}
		if n.dev != nil && n.dev.Size() >= end {
			return 0
		}
		n.mu.RUnlock()
		if !transport.MayWait(ctx) {
			return syscall.EAGAIN
		}
		if err := n.reachAlone(ctx, end); err != nil {
			return errnoOf(err)
		}
	}
}

// reachAlone makes the vDisk reach to end.
func (n *diskNode) reachAlone(ctx context.Context, end int64) error {
	done, err := n.become(ctx)
	if err != nil {
		return err
	}
	defer done()
	if size, err := n.size(ctx); err != nil || size >= end {
		return err
	}
	return n.resize(ctx, roundUp(end))
}

// Fsync implements gofs.NodeFsyncer.
func (n *diskNode) Fsync(ctx context.Context, _ gofs.FileHandle, _ uint32) syscall.Errno {
	if e := n.use(ctx); e != 0 {
		return e
	}
	defer n.mu.RUnlock()
	if n.dev == nil {
		return n.noDevice(0)
	}
	return errnoOf(n.dev.Flush(ctx))
}

// Allocate implements gofs.NodeAllocater. Space is never set aside: plain
// fallocate only grows.
func (n *diskNode) Allocate(ctx context.Context, _ gofs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	if off > sizeMax || size > sizeMax || off+size > sizeMax {
		return syscall.EFBIG
	}
	start, end := int64(off), int64(off+size)
	switch mode {
	case 0, fallocZeroRange:
		if e := n.shareTo(ctx, end); e != 0 {
			return e
		}
		defer n.mu.RUnlock()
	case fallocKeepSize, fallocKeepSize | fallocPunchHole, fallocKeepSize | fallocZeroRange:
		if e := n.use(ctx); e != 0 {
			return e
		}
		defer n.mu.RUnlock()
		if n.dev == nil {
			return n.noDevice(0)
		}
		end = min(end, n.dev.Size())
	default:
		return syscall.EOPNOTSUPP
	}
	if start >= end || mode&^fallocKeepSize == 0 {
		return 0
	}
	n.touch()
	if mode&fallocPunchHole != 0 {
		return errnoOf(n.dev.Trim(ctx, start, end-start))
	}
	return errnoOf(n.dev.Zero(ctx, start, end-start, true))
}

// Lseek implements gofs.NodeLseeker.
func (n *diskNode) Lseek(ctx context.Context, _ gofs.FileHandle, off uint64, whence uint32) (uint64, syscall.Errno) {
	if e := n.use(ctx); e != 0 {
		return 0, e
	}
	defer n.mu.RUnlock()
	if n.dev == nil {
		return 0, n.noDevice(syscall.ENXIO)
	}
	return seekDevice(ctx, n.dev, off, whence)
}

// seekDevice finds the next byte at or after off that is in data, or in a hole; the
// end of the device is a hole, and so is what reads as zeros and takes no room: data
// is what Info.Allocated counts.
func seekDevice(ctx context.Context, dev device.Reader, off uint64, whence uint32) (uint64, syscall.Errno) {
	if whence != seekData && whence != seekHole {
		return 0, syscall.EINVAL
	}
	size := dev.Size()
	if off >= uint64(size) {
		return 0, syscall.ENXIO
	}
	at, found := int64(off), false
	err := dev.Extents(ctx, at, size-at, func(e device.Extent) bool {
		if found = (e.Hole || e.Zero) == (whence == seekHole); found {
			return false
		}
		at += e.Length
		return true
	})
	switch {
	case err != nil:
		return 0, errnoOf(err)
	case found:
		return uint64(at), 0
	case whence == seekData:
		return 0, syscall.ENXIO
	}
	return uint64(size), 0
}
