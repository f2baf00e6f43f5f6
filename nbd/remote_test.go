package nbd_test

import (
	"context"
	"testing"

	"openvstorage/device"
	"openvstorage/device/devicetest"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// remote is a device on the other side of a connection.
type remote struct{ *nbdclient.Client }

func (r remote) ReadOnly() bool { return r.Flags()&nbd.ReadOnly != 0 }

func (r remote) TryRead([]byte, int64) error { return device.ErrWouldBlock }

func (r remote) Read(_ context.Context, p []byte, off int64) error {
	_, err := r.ReadAt(p, off)
	return err
}

func (r remote) TryWrite([]device.Span) error { return device.ErrWouldBlock }

func (r remote) Write(_ context.Context, batch []device.Span) error {
	for _, s := range batch {
		if _, err := r.WriteAt(s.Data, s.Off); err != nil {
			return err
		}
	}
	return nil
}

func (r remote) Flush(context.Context) error { return r.Client.Flush() }

func (r remote) Trim(_ context.Context, off, n int64) error { return r.Client.Trim(off, n) }

func (r remote) Zero(_ context.Context, off, n int64, allocate bool) error {
	if allocate {
		return r.Client.Zero(off, n, nbd.FlagNoHole)
	}
	return r.Client.Zero(off, n, 0)
}

// Extents needs one answer only: the suite's devices are small.
func (r remote) Extents(_ context.Context, off, n int64, fn func(device.Extent) bool) error {
	if !r.HasExtents() {
		fn(device.Extent{Length: n})
		return nil
	}
	es, err := r.BlockStatus(off, n)
	for _, e := range es {
		if !fn(e) {
			break
		}
	}
	return err
}

func (r remote) Prefetch(_ context.Context, off, n int64) error { return r.Cache(off, n) }

// TestDeviceOverTheWire: a device keeps its contract through server and client.
func TestDeviceOverTheWire(t *testing.T) {
	modes(t, func(t *testing.T, m mode) {
		devicetest.Run(t, devicetest.Odd, func(t testing.TB, size int64) device.Device {
			return remote{serve(t, nbdtest.NewMemory(size), nbd.Limits{}).client(m.client())}
		})
	})
}
