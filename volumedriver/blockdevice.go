package volumedriver

import (
	"context"

	"openvstorage/device"
	"openvstorage/writebuffer"
)

// Device is a vDisk as its front ends see it, a device.Device: the requests that read
// and change its live state.
type Device struct {
	*core
	reader *reader
	waits  *diskWaits

	batches chan *writebuffer.Batch // free ones
	rmw     chan struct{}           // full while a partial cluster is written, one at a time
}

func newDevice(r *reader) *Device {
	return &Device{core: r.core, reader: r, waits: r.waits, batches: make(chan *writebuffer.Batch, 64), rmw: make(chan struct{}, 1)}
}

// Size is the vDisk's size in bytes.
func (d *Device) Size() int64 { return int64(d.size.Load()) }

// TryRead fills p from off if nothing slower than memory is needed. Otherwise it
// returns device.ErrWouldBlock.
func (d *Device) TryRead(p []byte, off int64) error {
	return d.reader.tryRead(d.head, d.size.Load(), p, off)
}

// Read fills p from off, waiting for what it takes. Every byte was verified
// against the checksum made when it was written (P2).
func (d *Device) Read(ctx context.Context, p []byte, off int64) error {
	return d.reader.read(ctx, d.head, d.size.Load(), p, off)
}

// Extents reports the allocation of [off, off+n) in order.
func (d *Device) Extents(ctx context.Context, off, n int64, fn func(device.Extent) bool) error {
	return d.reader.extents(ctx, d.head, d.size.Load(), off, n, fn)
}

// Prefetch brings the map of the range into memory.
func (d *Device) Prefetch(ctx context.Context, off, n int64) error {
	return d.reader.prefetch(ctx, d.head, d.size.Load(), off, n)
}
