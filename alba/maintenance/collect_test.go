package maintenance_test

import (
	"errors"
	"testing"

	"openvstorage/alba/albatest"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/internal/gate"
)

// A repair has written a fragment and failed before its commit. The next one
// writes the same key, and commits it, when the collection has seen that no object
// names it and is about to delete it.
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
