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

// Read implements gofs.NodeReader.
func (n *diskNode) Read(ctx context.Context, _ gofs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	dev, e := n.open.use(ctx)
	if e != 0 {
		return nil, e
	}
	defer n.open.unshare()
	if dev == nil {
		return nil, 0
	}
	return readDevice(ctx, dev, dest, off)
}

// Write implements gofs.NodeWriter. A write past the end grows the vDisk
// first.
func (n *diskNode) Write(ctx context.Context, _ gofs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if len(data) == 0 {
		return 0, 0
	}
	dev, e := n.useTo(ctx, off+int64(len(data)))
	if e != 0 {
		return 0, e
	}
	defer n.open.unshare()
	if off%clusterSize == 0 && len(data)%clusterSize == 0 && transport.Gather(ctx, n, off, data) {
		return 0, transport.Gathered
	}
	batch := [1]device.Span{{Off: off, Data: data}}
	err := dev.TryWrite(batch[:])
	if err == device.ErrWouldBlock || err == device.ErrUnderWay {
		if !transport.MayWait(ctx) {
			return 0, syscall.EAGAIN
		}
		err = dev.Write(ctx, batch[:])
	}
	if err != nil {
		return 0, errnoOf(err)
	}
	n.copied.touch()
	return uint32(len(data)), 0
}

// WriteGathered implements transport.Writer. The writes of a round, all of whole
// clusters, are one append.
func (n *diskNode) WriteGathered(batch []device.Span) syscall.Errno {
	dev, ok := n.open.tryUse()
	if !ok {
		return syscall.EAGAIN
	}
	defer n.open.unshare()
	for _, w := range batch {
		if w.Off+int64(len(w.Data)) > dev.Size() {
			return syscall.EAGAIN // it was emptied meanwhile: each write finds out by itself
		}
	}
	err := dev.TryWrite(batch)
	if err == device.ErrWouldBlock || err == device.ErrUnderWay {
		return syscall.EAGAIN
	}
	if err == nil {
		n.copied.touch()
	}
	return errnoOf(err)
}

// useTo makes the vDisk reach to end, if it does not, and is openDevice.use then: there
// is always a device. The caller calls unshare, but not after an error.
func (n *diskNode) useTo(ctx context.Context, end int64) (device.Device, syscall.Errno) {
	if end > sizeMax {
		return nil, syscall.EFBIG
	}
	for {
		dev, e := n.open.use(ctx)
		if e != 0 {
			return nil, e
		}
		if dev != nil && dev.Size() >= end {
			return dev, 0
		}
		n.open.unshare()
		if !transport.MayWait(ctx) {
			return nil, syscall.EAGAIN
		}
		if err := n.reach(ctx, end); err != nil {
			return nil, errnoOf(err)
		}
	}
}

// reach makes the vDisk reach to end.
func (n *diskNode) reach(ctx context.Context, end int64) error {
	done, err := n.become(ctx)
	if err != nil {
		return err
	}
	defer done()
	if size, err := n.open.size(ctx); err != nil || size >= end {
		return err
	}
	return n.resize(ctx, roundUp(end))
}

// Fsync implements gofs.NodeFsyncer.
func (n *diskNode) Fsync(ctx context.Context, _ gofs.FileHandle, _ uint32) syscall.Errno {
	dev, e := n.open.use(ctx)
	if e != 0 {
		return e
	}
	defer n.open.unshare()
	if dev == nil {
		return 0
	}
	return errnoOf(dev.Flush(ctx))
}

// Allocate implements gofs.NodeAllocater. Space is never set aside: plain
// fallocate only grows.
func (n *diskNode) Allocate(ctx context.Context, _ gofs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	if off > sizeMax || size > sizeMax || off+size > sizeMax {
		return syscall.EFBIG
	}
	start, end := int64(off), int64(off+size)
	var dev device.Device
	var e syscall.Errno
	switch mode {
	case 0, fallocZeroRange:
		dev, e = n.useTo(ctx, end)
	case fallocKeepSize, fallocKeepSize | fallocPunchHole, fallocKeepSize | fallocZeroRange:
		dev, e = n.open.use(ctx)
	default:
		return syscall.EOPNOTSUPP
	}
	if e != 0 {
		return e
	}
	defer n.open.unshare()
	if dev == nil {
		return 0
	}
	if end = min(end, dev.Size()); start >= end || mode&^fallocKeepSize == 0 {
		return 0
	}
	n.copied.touch()
	if mode&fallocPunchHole != 0 {
		return errnoOf(dev.Trim(ctx, start, end-start))
	}
	return errnoOf(dev.Zero(ctx, start, end-start, true))
}

// Lseek implements gofs.NodeLseeker.
func (n *diskNode) Lseek(ctx context.Context, _ gofs.FileHandle, off uint64, whence uint32) (uint64, syscall.Errno) {
	dev, e := n.open.use(ctx)
	if e != 0 {
		return 0, e
	}
	defer n.open.unshare()
	if dev == nil {
		return 0, syscall.ENXIO
	}
	return seekDevice(ctx, dev, off, whence)
}

// seekDevice finds the next byte at or after off that is in data, or in a hole. The end
// of the device is a hole, and so is what reads as zeros and takes no room: data is what
// Info.Allocated counts.
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
