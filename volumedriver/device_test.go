package volumedriver

import (
	"bytes"
	"context"
	"testing"

	"openvstorage/device"
	"openvstorage/device/devicetest"
	"openvstorage/internal/disk/crashdisk"
)

// A vDisk is a device.
func TestVolumeIsADevice(t *testing.T) {
	devicetest.Run(t, devicetest.Even, func(t testing.TB, size int64) device.Device {
		r, err := openRig(crashdisk.New(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := r.close(); err != nil {
				t.Error(err)
			}
		})
		ctx := context.Background()
		if _, err := r.host.Create(ctx, "v", uint64(size)); err != nil {
			t.Fatal(err)
		}
		d, release, err := openDisk(ctx, r.host, "v")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(release)
		return d
	})
}

// A snapshot is one that can only be read, and stays what it was.
func TestSnapshotIsADevice(t *testing.T) {
	ctx := context.Background()
	r, d := newRig(t, crashdisk.New(), modelDisk, nil)
	defer func() { must(t, r.close()) }()
	holds := make([]byte, modelDisk)
	for _, at := range []int{0, 5, 6, 7, 200, 900} {
		write(t, d, at, 2, at)
		copy(holds[at*4096:], pattern(at, 2))
	}
	must(t, d.Write(ctx, []device.Span{{Off: 100_001, Data: []byte("not aligned")}}))
	copy(holds[100_001:], "not aligned")
	must(t, d.Zero(ctx, 6*4096, 4096, true))
	clear(holds[6*4096 : 7*4096])
	_, err := r.host.SnapshotCreate(ctx, "v", "s")
	must(t, err)
	must(t, d.Write(ctx, []device.Span{{Data: bytes.Repeat([]byte("later"), 100_000)}}))
	s, release, err := r.host.OpenDevice(ctx, "v@s")
	must(t, err)
	defer release()
	devicetest.Read(t, s, holds)
}
