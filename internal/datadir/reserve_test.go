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

// Where a file system may run out of files, some are kept in reserve too. They are
// given up in steps, before the reserve of room is.
func TestReserveOfNames(t *testing.T) {
	faults := faultdisk.New(crashdisk.New())
	d, err := Open(faults, "/data")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	kept := func() int {
		names, _ := faults.ReadDir("/data/" + namesDir)
		return len(names)
	}
	q := faults.Limit("/data", 1<<40).Disk(1 << 40).Names(namesKept*namesShare - 1)
	if err := d.KeepReserve(); err != nil || kept() != 0 {
		t.Fatalf("with few names: %v, %d", err, kept())
	}
	q.Names(1 << 20)
	for range 2 {
		if err := d.KeepReserve(); err != nil || kept() != namesKept {
			t.Fatalf("with many names: %v, %d", err, kept())
		}
	}
	for n := namesKept - namesStep; n >= 0; n -= namesStep {
		q.Names(0) // somebody takes them
		if _, err := faults.Stat("/data/reserve"); !d.GiveReserve(false) || kept() != n || err != nil {
			t.Fatalf("%d are left, not %d: %v", kept(), n, err)
		}
	}
	q.Names(0)
	if _, err := faults.Stat("/data/reserve"); !d.GiveReserve(false) || err != nil {
		t.Fatalf("the last name: %v", err)
	}
	q.Names(0)
	if d.GiveReserve(false) {
		t.Fatal("given up twice")
	}
	q.Names(1 << 20)
	if err := d.KeepReserve(); err != nil || kept() != namesKept {
		t.Fatalf("made again: %v, %d", err, kept())
	}
}
