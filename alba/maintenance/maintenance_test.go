package maintenance_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"openvstorage/alba/albatest"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/alba/policy"
)

var ctx = context.Background()

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fill puts n objects of two chunks each in a new namespace.
func fill(t *testing.T, b *albatest.Backend, namespace string, n int) {
	t.Helper()
	check(t, b.CreateNamespace(ctx, namespace))
	for i := range n {
		check(t, b.Namespace(namespace).Put(ctx, fmt.Sprintf("o%d", i), osdtest.Data(100_000, uint64(i))))
	}
}

// verify reads what fill put.
func verify(t *testing.T, b *albatest.Backend, namespace string, n int) {
	t.Helper()
	p := make([]byte, 100_000)
	for i := range n {
		if _, err := b.Namespace(namespace).Get(ctx, fmt.Sprintf("o%d", i), p, 0); err != nil || string(p) != string(osdtest.Data(100_000, uint64(i))) {
			t.Fatalf("object %d: %v", i, err)
		}
	}
}

func keys(t *testing.T, b *albatest.Backend, disk uint64) int {
	t.Helper()
	list, err := b.Disks[disk].Range(ctx, nil, nil, 10_000)
	check(t, err)
	return len(list)
}

// fragments is how many of the keys are fragments: each has a recovery record beside it.
func fragments(t *testing.T, b *albatest.Backend, disk uint64) (n int) {
	t.Helper()
	list, err := b.Disks[disk].Range(ctx, nil, nil, 10_000)
	check(t, err)
	for _, k := range list {
		if _, err := manifest.ParseKey(k.Key); err == nil {
			n++
		}
	}
	return n
}

var twoOne = albatest.Small(policy.Policy{K: 2, M: 1, C: 2, X: 8})

// A disk that is taken out of use is emptied, and then forgotten by all.
func TestDrain(t *testing.T) {
	b := albatest.New(t, 4, twoOne, nil)
	fill(t, b, "ns", 10)
	if keys(t, b, 2) == 0 {
		t.Fatal("nothing is on disk 2")
	}
	check(t, b.ABM.DecommissionOSD(ctx, 2))
	b.Fleet.Disk(2).SetLeaving(true)
	check(t, b.Work.Survey(ctx)) // carries, moves, deletes
	check(t, b.Work.Survey(ctx)) // forgets
	if n := keys(t, b, 2); n != 0 {
		t.Errorf("%d fragments are on it still", n)
	}
	if b.Fleet.Disk(2) != nil {
		t.Error("the fleet has it still")
	}
	list, err := b.ABM.OSDs(ctx, nil, 10, userfn.Consistent)
	if err != nil || len(list) != 3 {
		t.Errorf("the ABM has %d OSDs, %v", len(list), err)
	}
	verify(t, b, "ns", 10)
	b.Check()
}

// A disk that cannot be drained, for want of others, stays in use for reading.
func TestDrainNowhere(t *testing.T) {
	b := albatest.New(t, 3, twoOne, nil)
	fill(t, b, "ns", 3)
	check(t, b.ABM.DecommissionOSD(ctx, 1))
	b.Fleet.Disk(1).SetLeaving(true)
	check(t, b.Work.Survey(ctx))
	check(t, b.Work.Survey(ctx))
	if b.Fleet.Disk(1) == nil || keys(t, b, 1) == 0 {
		t.Fatal("a disk that could not be drained is gone")
	}
	verify(t, b, "ns", 3)
	b.AddDisk()
	check(t, b.Work.Survey(ctx))
	check(t, b.Work.Survey(ctx))
	if b.Fleet.Disk(1) != nil {
		t.Error("with another disk it was not drained")
	}
	verify(t, b, "ns", 3)
	b.Check()
}

// A disk that is given up: what it held is made again from the others.
func TestLost(t *testing.T) {
	b := albatest.New(t, 5, twoOne, nil)
	fill(t, b, "ns", 20)
	b.Take(4)
	check(t, b.ABM.LoseOSD(ctx, 4))
	b.Fleet.Remove(4)
	verify(t, b, "ns", 20)
	check(t, b.Work.Survey(ctx))
	check(t, b.Work.Survey(ctx))
	if n := b.Work.Narrow(); n != 0 {
		t.Errorf("%d objects are below full width", n)
	}
	list, err := b.ABM.OSDs(ctx, nil, 10, userfn.Consistent)
	if err != nil || len(list) != 4 {
		t.Errorf("the ABM has %d OSDs, %v", len(list), err)
	}
	b.Take(1)
	verify(t, b, "ns", 20)
	b.Return(1)
	b.Check()
}

// A namespace that is deleted leaves nothing, not even what was never committed.
func TestDeletedNamespace(t *testing.T) {
	b := albatest.New(t, 3, twoOne, nil)
	fill(t, b, "a", 5)
	fill(t, b, "b", 5)
	broken := errors.New("broken")
	var rules []*osdtest.Injected
	for _, f := range b.Faults {
		rules = append(rules, f.Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Err: broken, After: true}))
	}
	if err := b.Namespace("a").Put(ctx, "lost", osdtest.Data(100_000, 9)); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	b.Settle() // the put failed with its first chunk
	for _, r := range rules {
		r.Remove()
	}
	for n := range uint64(3) {
		b.Return(1 + n)
	}
	check(t, b.DeleteNamespace(ctx, "a"))
	check(t, b.Work.Survey(ctx))
	check(t, b.Work.Collect(ctx, 0))
	b.Check()
	verify(t, b, "b", 5)
	check(t, b.DeleteNamespace(ctx, "b"))
	check(t, b.Work.Survey(ctx))
	check(t, b.Work.Collect(ctx, 0))
	for n := range b.Disks {
		if k := keys(t, b, n); k != 0 {
			t.Errorf("disk %d has %d fragments", n, k)
		}
	}
}

// Scrub finds what no read has met: flipped bits and values that are gone.
func TestScrub(t *testing.T) {
	b := albatest.New(t, 3, twoOne, nil)
	fill(t, b, "ns", 8)
	damaged := 0
	for _, d := range b.Disks {
		list, err := d.Range(ctx, nil, nil, 1000)
		check(t, err)
		for i, info := range list {
			if i%5 == 0 && damaged < 3 {
				d.Corrupt(info.Key, rand.IntN(int(info.Size)))
				damaged++
			}
		}
		check(t, b.Work.ScrubSome(ctx, 1000))
		check(t, b.Work.Repair(ctx))
	}
	check(t, b.Work.Survey(ctx))
	if n := b.Work.Stats().Repaired; n != uint64(damaged) {
		t.Errorf("%d of %d were repaired", n, damaged)
	}
	for _, d := range b.Disks {
		if bad, _, err := d.Verify(ctx, nil, 1000); err != nil || len(bad) != 0 {
			t.Errorf("bad after scrub: %v, %v", bad, err)
		}
	}
	verify(t, b, "ns", 8)
	b.Check()
}

// Everything may be begun again after any call to a disk has failed, before or
// after it took effect.
func TestInterrupted(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := albatest.New(t, 4, twoOne, nil)
		fill(t, b, "ns", 4)
		check(t, b.Namespace("ns").Delete(ctx, []string{"o3"}, nil))
		b.Take(1)
		old := uint64(1)
		b.Replace(old)
		var rules []*osdtest.Injected
		for _, f := range b.Faults {
			rules = append(rules, f.Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Skip: r.IntN(4), Count: 1 + r.IntN(3), Err: errors.New("broken"), After: r.IntN(2) == 0}))
		}
		for range 6 { // fails here and there
			_ = b.Work.Survey(ctx)
			for n := range b.Disks {
				if b.Fleet.Disk(n) != nil {
					b.Return(n) // its rest is over
				}
			}
		}
		for _, r := range rules {
			r.Remove()
		}
		check(t, b.Work.Survey(ctx))
		check(t, b.Work.Collect(ctx, 0))
		check(t, b.Work.Survey(ctx))
		verify(t, b, "ns", 3)
		b.Check()
		if list, err := b.NSM.Degraded(ctx, 1, 10, userfn.Consistent); err != nil || len(list) != 0 {
			t.Fatalf("seed %d: %d objects are below full width, %v", seed, len(list), err)
		}
	}
}
