package datadir

import (
	"testing"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
)

// The reserve is made when there is much room, given up in steps when there is
// none, and whole for the one name that it has.
func TestReserve(t *testing.T) {
	faults := faultdisk.New(crashdisk.New())
	d, err := Open(faults, "/data")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	size := func() int64 {
		info, err := faults.Stat("/data/reserve")
		if err != nil {
			return 0
		}
		return info.Size()
	}
	q := faults.Limit("/data", reserveBytes*reserveShare-1).Disk(1 << 30)
	if err := d.KeepReserve(); err != nil || size() != 0 {
		t.Fatalf("with little room: %v, %d bytes", err, size())
	}
	q.Grow(1)
	if err := d.KeepReserve(); err != nil || size() != reserveBytes {
		t.Fatalf("with much room: %v, %d bytes", err, size())
	}
	if d.GiveReserve(false) {
		t.Fatal("given up with much room")
	}
	q.Grow(-q.Left())
	for n := int64(1); n <= reserveBytes/reserveStep; n++ {
		if !d.GiveReserve(false) || size() != reserveBytes-n*reserveStep {
			t.Fatalf("step %d: %d bytes", n, size())
		}
		q.Grow(-q.Left()) // somebody takes it
	}
	if d.GiveReserve(false) {
		t.Fatal("given up twice")
	}
	q.Grow(1 << 30)
	if err := d.KeepReserve(); err != nil || size() != reserveBytes {
		t.Fatalf("made again: %v, %d bytes", err, size())
	}
	q.Names(0)
	if !d.GiveReserve(false) || size() != 0 {
		t.Fatalf("no name left: %d bytes", size())
	}
}
