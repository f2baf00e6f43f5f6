package maintenance_test

import (
	"fmt"
	"testing"
	"time"

	"openvstorage/alba/albatest"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/alba/policy"
)

var twoTwo = albatest.Small(policy.Policy{K: 2, M: 2, C: 2, X: 8})

// The objects of all namespaces are one queue: whatever their namespace and whatever ails
// them, those that may lose the least are repaired first.
func TestRepairGoesBySafety(t *testing.T) {
	b := albatest.New(t, 8, twoTwo, nil)
	for _, ns := range []string{"a", "b", "c"} {
		fill(t, b, ns, 20)
	}
	// Two disks die, of which the backend knows.
	b.Settle() // fragments that were late are entered
	for _, n := range []uint64{1, 2} {
		b.Take(n)
		check(t, b.ABM.LoseOSD(ctx, n))
		b.Fleet.Remove(n)
	}
	at := make(map[string]int) // how many more disks each object outlives
	for number := uint64(1); number <= 3; number++ {
		for i := range 20 {
			name := fmt.Sprintf("o%d", i)
			o, err := b.NSM.Get(ctx, number, name, userfn.Consistent)
			check(t, err)
			least := 9
			for _, c := range o.Chunks {
				there := 0
				for _, f := range c.Fragments {
					if f.OSD > 2 {
						there++
					}
				}
				least = min(least, there-2)
			}
			at[fmt.Sprint(number, name)] = least
		}
	}
	var order []int
	o := b.WorkOptions()
	seen := make(map[string]bool)
	o.Invalidate = func(ns uint64, name string) {
		b.Client.Invalidate(ns, name)
		if k := fmt.Sprint(ns, name); !seen[k] {
			seen[k] = true
			order = append(order, at[k])
		}
	}
	check(t, maintenance.New(o).Survey(ctx))
	want := 0
	for _, least := range at {
		if least < 2 {
			want++
		}
	}
	if len(order) != want || order[0] != 0 || order[len(order)-1] != 1 {
		t.Fatalf("%d objects were repaired, %d were to be: %v", len(order), want, order)
	}
	for i := 1; i < len(order); i++ {
		if order[i] < order[i-1] {
			t.Fatalf("an object that outlives %d more came before one of %d: %v", order[i-1], order[i], order)
		}
	}
	check(t, b.Work.Survey(ctx))
	b.Check()
}

// A disk that comes back in the middle of the repair of what it held ends that repair.
func TestReturnStopsTheRepair(t *testing.T) {
	b := albatest.New(t, 5, twoOne, nil)
	fill(t, b, "ns", 30)
	now := time.Unix(1, 0)
	o := b.WorkOptions()
	o.RebuildAfter, o.Tick = time.Minute, time.Nanosecond
	o.Now = func() time.Time { return now }
	repaired := 0
	o.Invalidate = func(ns uint64, name string) {
		b.Client.Invalidate(ns, name)
		if repaired++; repaired == 3 {
			b.Return(2)
		}
		now = now.Add(time.Second)
	}
	work := maintenance.New(o)
	b.Take(2)
	work.Refresh(ctx)
	check(t, work.Survey(ctx))
	if repaired != 0 {
		t.Fatal("a disk that was away for a moment was given up")
	}
	now = now.Add(2 * time.Minute)
	held := keys(t, b, 2)
	check(t, work.Survey(ctx))
	if repaired < 3 || repaired > 6 {
		t.Fatalf("%d changes, it was back after 3", repaired)
	}
	if keys(t, b, 2) < held/2 {
		t.Errorf("of %d fragments %d are left on it", held, keys(t, b, 2))
	}
	check(t, work.Survey(ctx))
	verify(t, b, "ns", 30)
	b.Check()
}

// What a survey keeps in memory does not grow with the number of namespaces: it asks for
// them by the page, and remembers of them what has a bound.
func TestManyNamespaces(t *testing.T) {
	const many = 1200
	b := albatest.New(t, 3, twoOne, nil)
	b.Take(3)
	for i := range many {
		name := fmt.Sprintf("ns%d", i)
		check(t, b.CreateNamespace(ctx, name))
		check(t, b.Namespace(name).Put(ctx, "o", osdtest.Data(10_000, uint64(i))))
	}
	o := b.WorkOptions()
	now := time.Unix(1, 0)
	o.Now = func() time.Time { // every look takes so long that it is worth remembering
		now = now.Add(time.Second)
		return now
	}
	work := maintenance.New(o)
	for range 2 {
		check(t, work.Survey(ctx))
		if n := work.Stats().NoPlace; n != many {
			t.Errorf("%d objects of %d have no place", n, many)
		}
		if n := work.Remembered(); n == 0 || n > maintenance.RememberedMax {
			t.Errorf("%d listings are remembered of %d namespaces, %d is the most", n, many, maintenance.RememberedMax)
		}
	}
	b.Return(3)
	check(t, work.Survey(ctx))
	if n := work.Narrow(); n != 0 {
		t.Errorf("%d objects are narrow", n)
	}
	b.Check()
}
