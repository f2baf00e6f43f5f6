package maintenance_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"openvstorage/alba/albatest"
	"openvstorage/alba/client"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/alba/policy"
	"openvstorage/internal/gate"
)

// A repair has written a fragment and failed before its commit. A collection sees that no
// object names the key, and is about to delete it. Then the next repair writes the same key
// and commits it.
func TestCollectAndRepairOfOneKey(t *testing.T) {
	b := albatest.New(t, 3, twoOne, nil)
	b.Take(3)
	fill(t, b, "ns", 1)
	b.Return(3)
	broken := b.Faults[3].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Err: errors.New("broken"), After: true, Count: 1})
	_ = b.Work.Survey(ctx)
	if broken.Hits() != 1 || keys(t, b, 3) == 0 {
		t.Fatal("no repair was cut off behind its write")
	}
	broken.Remove()

	door := gate.New()
	b.Faults[3].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Gate: door, Count: 1})
	collected := make(chan error, 1)
	go func() { collected <- b.Work.Collect(ctx, 0) }()
	check(t, door.Arrived(ctx, 1)) // the delete
	b.Return(3)                    // its rest is over
	check(t, b.Work.Survey(ctx))
	if b.Work.Narrow() != 0 {
		t.Fatal("it was not repaired")
	}
	door.Open()
	check(t, <-collected)
	b.Check()
	b.Take(1)
	verify(t, b, "ns", 1)
}

// Puts, repairs, collections and deletions of two processes at once, with disks that
// fail before and after they have done what was asked: nothing that an object names
// is deleted, and nothing is left that no object names.
func TestCollectBesideAll(t *testing.T) {
	for seed := range uint64(12) {
		b := albatest.New(t, 4, albatest.Small(policy.Policy{K: 2, M: 1, C: 2, X: 8}), func(o *client.Options) { o.Patience = time.Millisecond })
		check(t, b.CreateNamespace(ctx, "ns"))
		var rules []*osdtest.Injected
		r := rand.New(rand.NewPCG(seed, 5))
		for _, f := range b.Faults {
			for i := range 20 {
				rules = append(rules, f.Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Skip: 3*i + r.IntN(5), Count: 1, Err: errBroken, After: r.IntN(4) > 0}))
			}
		}
		stop := make(chan struct{})
		var workers sync.WaitGroup
		for range 2 {
			work := maintenance.New(b.WorkOptions())
			step := func(do func() error) {
				workers.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							_ = do()
							rested(b)
						}
					}
				})
			}
			step(func() error { return work.Survey(ctx) })
			step(func() error { return work.Collect(ctx, 0) })
		}
		there := make(map[string]uint64)
		for i := range uint64(30) {
			name := fmt.Sprint("o", i)
			if b.Namespace("ns").Put(ctx, name, osdtest.Data(30_000, i)) == nil {
				there[name] = i
			}
			if i%5 == 4 {
				old := fmt.Sprint("o", i-3)
				check(t, b.Namespace("ns").Delete(ctx, []string{old}, nil))
				delete(there, old)
			}
		}
		close(stop)
		workers.Wait()
		b.Settle()
		for _, rule := range rules {
			rule.Remove()
		}
		rested(b)
		for range 3 {
			check(t, b.Work.Survey(ctx))
			check(t, b.Work.Collect(ctx, 0))
		}
		if n := b.Work.Narrow(); n != 0 {
			t.Errorf("seed %d: %d objects are below full width", seed, n)
		}
		b.Check()
		for name, i := range there {
			p := make([]byte, 30_000)
			if _, err := b.Namespace("ns").Get(ctx, name, p, 0); err != nil || string(p) != string(osdtest.Data(30_000, i)) {
				t.Errorf("seed %d: %s: %v", seed, name, err)
			}
		}
	}
}
