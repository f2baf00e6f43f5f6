package volumedriver

import (
	"context"

	"openvstorage/device"
)

// SnapshotDevice is the device of a snapshot, which is read-only.
type SnapshotDevice struct {
	reader *reader
	s      *snapshot
}

// Size is the size of the vDisk when the snapshot was taken, in bytes.
func (d *SnapshotDevice) Size() int64 { return int64(d.s.Size) }

// TryRead is Device.TryRead of the snapshot.
func (d *SnapshotDevice) TryRead(p []byte, off int64) error {
	return d.reader.tryRead(d.s.view, d.s.Size, p, off)
}

// Read is Device.Read of the snapshot.
func (d *SnapshotDevice) Read(ctx context.Context, p []byte, off int64) error {
	return d.reader.read(ctx, d.s.view, d.s.Size, p, off)
}

// Extents reports the snapshot's allocation.
func (d *SnapshotDevice) Extents(ctx context.Context, off, n int64, fn func(device.Extent) bool) error {
	return d.reader.extents(ctx, d.s.view, d.s.Size, off, n, fn)
}

// Prefetch brings the snapshot's map of the range into memory.
func (d *SnapshotDevice) Prefetch(ctx context.Context, off, n int64) error {
	return d.reader.prefetch(ctx, d.s.view, d.s.Size, off, n)
}
