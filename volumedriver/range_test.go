package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"syscall"
	"testing"

	"openvstorage/device"
	"openvstorage/internal/disk/crashdisk"
)

// outsides are ranges that a device of modelDisk bytes does not have.
var outsides = []struct{ off, n int64 }{
	{modelDisk, 1}, {modelDisk, 4096}, {modelDisk - 4096, 8192}, {modelDisk - 1, 2}, {modelDisk + 4096, 4096}, {modelDisk + 1, 0},
	{0, modelDisk + 4096}, {SizeMax, 4096}, {math.MaxInt64, 1}, {math.MaxInt64 - 4095, 4096}, {math.MaxInt64 - 100, 4096},
	{-1, 1}, {-4096, 4096}, {-4096, 8192}, {math.MinInt64, 4096}, {math.MinInt64, 0},
}

// wrongLengths are more of them, that no slice can have.
var wrongLengths = []struct{ off, n int64 }{
	{0, -1}, {4096, -4096}, {0, math.MinInt64}, {-1, -1}, {4096, math.MaxInt64}, {1, math.MaxInt64}, {0, math.MaxInt64}, {math.MaxInt64, math.MaxInt64},
}

// What lies outside of a device is refused by an error that says so, changes nothing
// and halts nothing, whatever front ends have checked before.
func TestOutsideChangesNothing(t *testing.T) {
	ctx := context.Background()
	r, d := newRig(t, crashdisk.New(), modelDisk, nil)
	write(t, d, 0, 8, 1)
	write(t, d, modelDisk/4096-8, 8, 1)
	_, err := r.host.SnapshotCreate(ctx, "v", "s")
	must(t, err)
	v := volumeOf(t, r, "v")
	seq := v.buf.Written()
	for _, name := range []string{"v", "v@s"} {
		d, release, err := r.host.OpenDevice(ctx, name)
		must(t, err)
		disk, writable := d.(device.Device)
		never := func(device.Extent) bool { t.Errorf("%s: an extent of nothing", name); return false }
		refused := func(what string, off, n int64, want syscall.Errno, err error) {
			t.Helper()
			if off < 0 || n < 0 {
				want = syscall.EINVAL
			}
			if !errors.Is(err, want) {
				t.Errorf("%s: %s of %d bytes at %d: %v, not %v", name, what, n, off, err, want)
			}
			if v.Err() != nil || v.buf.Written() != seq {
				t.Fatalf("%s: %s of %d bytes at %d: halted: %v; written to %d, not %d", name, what, n, off, v.Err(), v.buf.Written(), seq)
			}
		}
		for _, o := range outsides {
			p := make([]byte, o.n)
			refused("read", o.off, o.n, syscall.EINVAL, d.Read(ctx, p, o.off))
			refused("try to read", o.off, o.n, syscall.EINVAL, d.TryRead(p, o.off))
			if !writable {
				continue
			}
			refused("write", o.off, o.n, syscall.ENOSPC, disk.Write(ctx, []device.Span{{Off: o.off, Data: p}}))
			refused("try to write", o.off, o.n, syscall.ENOSPC, disk.TryWrite([]device.Span{{Off: o.off, Data: p}}))
			// Nothing of a batch is written of which a part is outside.
			batch := []device.Span{{Data: pattern(9, 1)}, {Off: o.off, Data: p}, {Off: 4096, Data: pattern(9, 1)}}
			refused("write in a batch", o.off, o.n, syscall.ENOSPC, disk.Write(ctx, batch))
			refused("try to write in a batch", o.off, o.n, syscall.ENOSPC, disk.TryWrite(batch))
		}
		for _, o := range append(outsides, wrongLengths...) {
			if writable {
				refused("trim", o.off, o.n, syscall.EINVAL, disk.Trim(ctx, o.off, o.n))
				refused("zero", o.off, o.n, syscall.ENOSPC, disk.Zero(ctx, o.off, o.n, false))
				refused("allocate zeros", o.off, o.n, syscall.ENOSPC, disk.Zero(ctx, o.off, o.n, true))
			}
			refused("extents", o.off, o.n, syscall.EINVAL, d.Extents(ctx, o.off, o.n, never))
			refused("prefetch", o.off, o.n, syscall.EINVAL, d.Prefetch(ctx, o.off, o.n))
		}
		holdsPattern(t, d, 0, 8, 1)
		holdsPattern(t, d, modelDisk/4096-8, 8, 1)
		release()
	}
}

// Ranges of nothing, and those that end where the device ends, are within it.
func TestWithinTheEnd(t *testing.T) {
	ctx := context.Background()
	r, d := newRig(t, crashdisk.New(), modelDisk, nil)
	v := volumeOf(t, r, "v")
	for _, o := range []struct{ off, n int64 }{{0, 0}, {modelDisk, 0}, {1, 0}, {modelDisk - 4096, 4096}, {modelDisk - 1, 1}, {0, modelDisk}} {
		p := make([]byte, o.n)
		for what, err := range map[string]error{
			"write":    d.Write(ctx, []device.Span{{Off: o.off, Data: p}}),
			"read":     d.Read(ctx, p, o.off),
			"trim":     d.Trim(ctx, o.off, o.n),
			"zero":     d.Zero(ctx, o.off, o.n, true),
			"extents":  d.Extents(ctx, o.off, o.n, func(device.Extent) bool { return true }),
			"prefetch": d.Prefetch(ctx, o.off, o.n),
		} {
			if err != nil {
				t.Errorf("%s of %d bytes at %d: %v", what, o.n, o.off, err)
			}
		}
		for what, err := range map[string]error{"try to write": d.TryWrite([]device.Span{{Off: o.off, Data: p}}), "try to read": d.TryRead(p, o.off)} {
			if err != nil && err != device.ErrWouldBlock && err != device.ErrUnderWay {
				t.Errorf("%s %d bytes at %d: %v", what, o.n, o.off, err)
			}
		}
	}
	// A span of nothing beside others.
	if err := d.TryWrite([]device.Span{{}, {Data: pattern(1, 1)}, {Off: 4096}}); err != nil && err != device.ErrWouldBlock {
		t.Error(err)
	}
	if v.Err() != nil {
		t.Fatal(v.Err())
	}
}

// Writes at an end that moves are refused or done, and done ones are there.
func TestWritesWhileItGrows(t *testing.T) {
	ctx := context.Background()
	r, d := newRig(t, crashdisk.New(), modelDisk, nil)
	v := volumeOf(t, r, "v")
	const steps = 20
	var all sync.WaitGroup
	failed := make(chan error, steps)
	for i := range steps {
		all.Go(func() {
			at := modelDisk/4096 + i
			for {
				err := d.TryWrite([]device.Span{{Off: int64(at) * 4096, Data: pattern(at, 1)}})
				if err == device.ErrWouldBlock {
					err = d.Write(ctx, []device.Span{{Off: int64(at) * 4096, Data: pattern(at, 1)}})
				}
				if err == nil || !errors.Is(err, syscall.ENOSPC) {
					failed <- err
					return
				}
			}
		})
	}
	for i := range steps {
		if err := r.host.Resize(ctx, "v", uint64(modelDisk+(i+1)*4096)); err != nil {
			t.Error(err)
		}
	}
	all.Wait()
	for range steps {
		if err := <-failed; err != nil {
			t.Fatal(fmt.Errorf("a write in the end: %w", err))
		}
	}
	must(t, v.Err())
	for i := range steps {
		at := modelDisk/4096 + i
		holdsPattern(t, d, at, 1, at)
	}
}
