package maintenance_test

import (
	"fmt"
	"testing"

	"openvstorage/alba/abm"
	"openvstorage/alba/albatest"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd/osdtest"
)

// settle surveys until nothing is moved any more, and returns how many fragments were.
func settle(t *testing.T, work *maintenance.Maintenance) uint64 {
	t.Helper()
	for range 50 {
		before := work.Stats().Moved
		work.Refresh(ctx)
		check(t, work.Survey(ctx))
		check(t, work.Survey(ctx))
		if now := work.Stats().Moved; now == before {
			return now
		}
	}
	t.Fatal("moving does not end")
	return 0
}

// A disk that comes new to the backend takes its share, and then moving ends. What was moved
// reads back, without the disks that it has left.
func TestNewDiskTakesItsShare(t *testing.T) {
	b := albatest.New(t, 4, twoOne, nil)
	fill(t, b, "a", 30)
	fill(t, b, "b", 30)
	o := b.WorkOptions()
	o.Balance = 0.001 // of 512 MiB
	work := maintenance.New(o)
	if n := settle(t, work); n > 40 {
		t.Errorf("%d fragments were moved of what was even", n)
	}
	before := work.Stats().Moved
	number := b.AddDisk()
	moved := settle(t, work) - before
	share := 60 * 2 * 3 / 5
	if n := fragments(t, b, number); n == 0 || n > share || int(moved) != n {
		t.Errorf("the new disk has %d fragments, its share is %d; %d were moved", n, share, moved)
	}
	verify(t, b, "a", 30)
	verify(t, b, "b", 30)
	check(t, b.Work.Collect(ctx, 0))
	b.Check()
}

// When nodes and zones come to the backend, the fragments of each chunk are spread over
// them, so that a zone may die. Then nothing is moved any more, for whatever sake.
func TestSpreadOverNewNodes(t *testing.T) {
	b := albatest.New(t, 6, twoOne, nil)
	fill(t, b, "ns", 20)
	for _, zone := range []string{"b", "c"} {
		for range 2 {
			b.AddDiskOn("node "+zone, zone)
		}
	}
	o := b.WorkOptions()
	o.Balance = 0.001
	work := maintenance.New(o)
	settle(t, work)
	for i := range 20 {
		obj, err := b.NSM.Get(ctx, 1, fmt.Sprintf("o%d", i), userfn.Consistent)
		check(t, err)
		for _, c := range obj.Chunks {
			zones := make(map[string]int)
			for _, f := range c.Fragments {
				zones[b.Fleet.Disk(f.OSD).Zone()]++
			}
			if len(zones) != 3 {
				t.Fatalf("object %d lies in zones %v", i, zones)
			}
		}
	}
	check(t, b.Work.Collect(ctx, 0))
	b.Check()
	for n := uint64(1); n <= 6; n++ {
		b.Take(n)
	}
	verify(t, b, "ns", 20)
}

// Agents share this work too: one of them has it at a time, and it ends.
func TestAgentsBalance(t *testing.T) {
	b := albatest.New(t, 4, twoOne, nil)
	fill(t, b, "ns", 40)
	g := newTeam(b, 2, func(o *maintenance.Options) { o.Balance = 0.001 })
	number := b.AddDisk()
	for range 10 {
		for _, w := range g.works {
			w.Refresh(ctx)
			check(t, w.Survey(ctx))
		}
	}
	if n := fragments(t, b, number); n == 0 {
		t.Error("the new disk has nothing")
	}
	left, err := (abm.Queue{Client: b.ABM}).WorkTotals(ctx, userfn.Consistent)
	if err != nil || left.Items != 0 {
		t.Errorf("%d items are left, %v", left.Items, err)
	}
	verify(t, b, "ns", 40)
	b.Check()
}

// A fragment that only moves is read where it is, once, and not made from others.
func TestMoveReadsOnce(t *testing.T) {
	b := albatest.New(t, 4, twoOne, nil)
	fill(t, b, "ns", 10)
	held := fragments(t, b, 2)
	check(t, b.ABM.DecommissionOSD(ctx, 2))
	b.Fleet.Disk(2).SetLeaving(true)
	reads := func(n uint64) int { return b.Faults[n].Counted(osdtest.Read).Calls }
	from, others := reads(2), reads(1)+reads(3)+reads(4)
	f := b.Faults[2]
	check(t, b.Work.Survey(ctx))
	if n := f.Counted(osdtest.Read).Calls - from; n != held {
		t.Errorf("%d reads of %d fragments", n, held)
	}
	if n := reads(1) + reads(3) + reads(4) - others; n != 0 {
		t.Errorf("%d reads of other disks", n)
	}
	check(t, b.Work.Survey(ctx))
	verify(t, b, "ns", 10)
	b.Check()
}
