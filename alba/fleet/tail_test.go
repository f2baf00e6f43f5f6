package fleet

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
)

// The estimate is that of a sorted list, up to the width of a bucket.
func TestTailModel(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 71))
		var est tail
		var list []time.Duration
		scale := time.Duration(1+r.IntN(2000)) * 50 * time.Microsecond
		for range tailFew + r.IntN(tailKept-tailFew-1) {
			took := tailFirst + time.Duration(r.ExpFloat64()*float64(scale))
			if r.IntN(30) == 0 {
				took *= 50
			}
			list = append(list, took)
			est.note(4096, took)
		}
		slices.Sort(list)
		want := min(list[len(list)-1-len(list)/20], tailBounds[tailBuckets-1])
		if got := est.p95(4096); got < want || float64(got) > 1.19*float64(want)+1 {
			t.Fatalf("seed %d: of %d requests 95 in 100 took up to %v, and not %v", seed, len(list), got, want)
		}
		if got := est.p95(1 << 20); got != 0 {
			t.Fatalf("of a size that nobody asked for it took %v", got)
		}
	}
}

// It follows a disk that becomes slow, and one that is well again, within as many requests as
// it keeps; with few nothing is known.
func TestTailFollows(t *testing.T) {
	var est tail
	for i := range tailFew {
		if est.p95(4096) != 0 {
			t.Fatalf("known after %d requests", i)
		}
		est.note(4096, time.Millisecond)
	}
	for _, took := range []time.Duration{time.Millisecond, 100 * time.Millisecond, 2 * time.Millisecond} {
		for range 8 * tailKept {
			est.note(4096, took)
		}
		if got := est.p95(1); got < took || got > took*5/4 {
			t.Errorf("requests take %v, and 95 in 100 are said to take up to %v", took, got)
		}
	}
}

// A request of any size has a class, and of any time a bucket.
func TestTailBounds(t *testing.T) {
	var est tail
	for _, bytes := range []int{0, 1, 4096, 4097, 16384, 1 << 20, 1 << 30} {
		for _, took := range []time.Duration{-1, 0, 1, time.Hour} {
			for range 2 * tailKept {
				est.note(bytes, took)
			}
			if got := est.p95(bytes); got < min(took, tailBounds[tailBuckets-1]) {
				t.Errorf("%d bytes in %v: %v", bytes, took, got)
			}
		}
	}
	if a, b := sizeClass(4096), sizeClass(4097); a != 0 || b != 1 {
		t.Errorf("classes %d and %d", a, b)
	}
	if n := testing.AllocsPerRun(100, func() { est.note(8192, time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A model of patience: a disk's own history, but never more than twice what is usual, between
// the bounds.
func TestPatienceModel(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct{ own, usual, bound, want time.Duration }{
		{0, 0, 0, patienceMax},
		{0, 0, 40 * ms, 40 * ms},          // only a mean is known
		{5 * ms, 0, 40 * ms, 5 * ms},      // nobody compares the disks
		{0, 5 * ms, 40 * ms, 5 * ms},      // a new disk is as the others
		{5 * ms, 5 * ms, 40 * ms, 5 * ms}, //
		{8 * ms, 5 * ms, 0, 8 * ms},       // a little slower than the others
		{500 * ms, 5 * ms, 0, 10 * ms},    // it has become slow
		{ms / 10, 5 * ms, 0, patienceMin}, // very fast
		{ms / 10, ms / 10, 0, patienceMin},
		{5 * time.Second, 4 * time.Second, 0, patienceMax},
	} {
		if got := patienceOf(c.own, c.usual, c.bound); got != c.want {
			t.Errorf("own %v, usual %v, bound %v: %v, not %v", c.own, c.usual, c.bound, got, c.want)
		}
	}
}

// A disk is suspected when others have come before it several times in a row, until it comes in
// time once, or nobody has seen it late for a while.
func TestSuspicion(t *testing.T) {
	b := newBench(t, 0)
	d := b.disks[0]
	for i := range suspectAfter {
		if d.Suspected() {
			t.Fatalf("suspected after %d", i)
		}
		d.Overtaken()
	}
	if !d.Suspected() {
		t.Fatal("not suspected")
	}
	d.InTime()
	if d.Suspected() {
		t.Error("it came in time, and is suspected")
	}
	for range suspectAfter {
		d.Overtaken()
	}
	b.clock = b.clock.Add(suspectFor)
	if d.Suspected() {
		t.Errorf("suspected %v after it was late", suspectFor)
	}
	if d.Overtaken(); !d.Suspected() {
		t.Error("it is late again, and not suspected")
	}
}

// A disk of the own node is near, then one of its zone, once Watch has looked. Nobody is near who
// does not know where he is, and nodes without a zone share none.
func TestDistance(t *testing.T) {
	b := newBench(t, 0)
	for i, at := range []struct{ node, zone string }{{"a", "x"}, {"b", "x"}, {"c", "y"}, {"d", ""}, {"e", ""}} {
		d := b.f.Add(uint64(10+i), uuid.New(), at.node, "disk")
		d.SetZone(at.zone)
	}
	for _, c := range []struct {
		node string
		want [5]Distance
	}{
		{"a", [5]Distance{SameNode, SameZone, Elsewhere, Elsewhere, Elsewhere}},
		{"c", [5]Distance{Elsewhere, Elsewhere, SameNode, Elsewhere, Elsewhere}},
		{"d", [5]Distance{Elsewhere, Elsewhere, Elsewhere, SameNode, Elsewhere}},
		{"f", [5]Distance{Elsewhere, Elsewhere, Elsewhere, Elsewhere, Elsewhere}},
	} {
		if b.f.node.Load() == nil && b.f.Distance(b.f.Disk(10)) != Elsewhere {
			t.Error("near, though nobody has told where this is")
		}
		b.f.SetNode(c.node)
		b.pass(tick)
		for i, want := range c.want {
			if got := b.f.Distance(b.f.Disk(uint64(10 + i))); got != want {
				t.Errorf("from node %s to disk %d: %d, not %d", c.node, 10+i, got, want)
			}
		}
	}
}
