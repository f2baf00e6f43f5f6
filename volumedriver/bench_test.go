package volumedriver

import (
	"context"
	"testing"

	"openvstorage/device"
	"openvstorage/internal/disk/crashdisk"
)

// warm is a vDisk of which everything is in memory and in the write buffer.
func warm(tb testing.TB) device.Device {
	r, err := openRig(crashdisk.New(), nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = r.close() })
	if _, err := r.host.Create(context.Background(), "d", modelDisk); err != nil {
		tb.Fatal(err)
	}
	d, release, err := r.host.OpenDevice(context.Background(), "d")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(release)
	dev := d.(device.Device)
	if err := dev.Write(context.Background(), []device.Span{{Data: make([]byte, modelDisk)}}); err != nil {
		tb.Fatal(err)
	}
	return dev
}

// requests are what a front end asks for most often.
var requests = []struct {
	name string
	do   func(d device.Device, p []byte) error
}{
	{"TryRead4K", func(d device.Device, p []byte) error { return d.TryRead(p[:4096], 8192) }},
	{"TryRead1M", func(d device.Device, p []byte) error { return d.TryRead(p, 8192) }},
	{"Read4K", func(d device.Device, p []byte) error { return d.Read(context.Background(), p[:4096], 8192) }},
	{"Read1M", func(d device.Device, p []byte) error { return d.Read(context.Background(), p, 8192) }},
	{"Flush", func(d device.Device, _ []byte) error { return d.Flush(context.Background()) }},
}

// TestRequestsAllocateNothing: the driver adds no allocation to a read or a flush.
func TestRequestsAllocateNothing(t *testing.T) {
	d, p := warm(t), make([]byte, 1<<20)
	for _, r := range requests {
		n := testing.AllocsPerRun(50, func() {
			if err := r.do(d, p); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%v allocations for %s", n, r.name)
		}
	}
}

// BenchmarkRequests shows what the driver takes of requests that wait for nothing.
func BenchmarkRequests(b *testing.B) {
	d, p := warm(b), make([]byte, 1<<20)
	all := append(requests[:len(requests):len(requests)], []struct {
		name string
		do   func(d device.Device, p []byte) error
	}{
		{"TryWrite4K", func(d device.Device, p []byte) error {
			return d.TryWrite([]device.Span{{Off: 8192, Data: p[:4096]}})
		}},
		{"Write4K", func(d device.Device, p []byte) error {
			return d.Write(context.Background(), []device.Span{{Off: 8192, Data: p[:4096]}})
		}},
	}...)
	for _, r := range all {
		b.Run(r.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := r.do(d, p); err != nil && err != device.ErrWouldBlock {
					b.Fatal(err)
				}
			}
		})
	}
}
