package fragmentcache

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestIndexModel compares the index with a map, with so few fingerprints and
// such bad ones that chains are long and go around the table's end.
func TestIndexModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var x index
	type block struct {
		fp uint64
		n  uint32
	}
	model := map[block]location{} // where each block is
	where := func() map[block]location {
		got := map[block]location{}
		s := &x.shards[0]
		for i, l := range s.locs {
			if l == 0 {
				continue
			}
			for n := range s.runs[i].n() {
				b := block{s.fps[i], s.runs[i].first() + n}
				if _, twice := got[b]; twice {
					t.Fatalf("%v is there twice", b)
				}
				got[b] = l&^hit + location(n)
			}
		}
		return got
	}
	fp := func() uint64 { return uint64(rng.IntN(300)) | 0xffffff00*uint64(rng.IntN(2)) }
	next := uint32(1)
	for step := range 20000 {
		f := fp()
		first := uint32(rng.IntN(16))
		r := makeRun(first, 1+uint32(rng.IntN(int(16-first))))
		switch op := rng.IntN(20); {
		case op < 12:
			l := locate(rng.IntN(3), next)
			next = next%100000 + 16
			x.insert(f, r, l)
			for n := range r.n() {
				if b := (block{f, first + n}); model[b] == 0 {
					model[b] = l + location(n)
				}
			}
		case op < 16:
			x.drop(f)
			for n := range uint32(runMax) {
				delete(model, block{f, n})
			}
		case op < 19:
			claimModel(t, &x, f, func(e extent, to location) {
				for n := range e.run.n() {
					b := block{f, e.run.first() + n}
					if model[b] != e.loc+location(n) {
						t.Fatalf("%v is not at %x", b, e.loc)
					}
					delete(model, b)
					if to != 0 {
						model[b] = to + location(n)
					}
				}
			})
		case step%10 == 0:
			slot := rng.IntN(3)
			x.sweep(slot)
			for b, l := range model {
				if l.slot() == slot {
					delete(model, b)
				}
			}
		}
		if step%50 == 0 {
			got := where()
			for b, l := range model {
				if got[b] != l {
					t.Fatalf("step %d: %v at %x, not %x", step, b, got[b], l)
				}
			}
			if len(got) != len(model) {
				t.Fatalf("step %d: %d blocks, not %d", step, len(got), len(model))
			}
		}
		var mask uint32
		for n := range uint32(runMax) {
			if model[block{f, n}] != 0 {
				mask |= 1 << n
			}
		}
		if got := x.present(f); got != mask {
			t.Fatalf("step %d: blocks %b of %x, not %b", step, got, f, mask)
		}
	}
}

// claimModel claims a page's extents of segment 1, half of which were hit;
// of these it moves some and forgets others. It tells what became of each.
func claimModel(t *testing.T, x *index, fp uint64, moved func(extent, location)) {
	s := x.shard(fp)
	i, ok := s.first(fp)
	for n := 0; ok; i, ok = s.find(fp, s.next(i)) {
		if s.locs[i].slot() == 1 {
			e := extent{fp, s.runs[i], s.locs[i] &^ hit}
			s.locs[i] = e.loc
			if n%2 == 0 {
				s.locs[i] |= hit
			} else {
				moved(e, 0)
			}
			n++
		}
	}
	for n, e := range x.claim(nil, fp, locate(1, 0), blocksMax) {
		if n%2 == 0 {
			to := locate(2, 200000+e.loc.block()%10000)
			if !x.move(e, to) {
				t.Fatal("it does not move")
			}
			moved(e, to)
		} else {
			x.forget(e)
			moved(e, 0)
		}
	}
}

func TestGhosts(t *testing.T) {
	g := newGhosts(0)
	if g.bytes() < 4*ghostsMin || g.bytes() > 8*ghostsMin {
		t.Errorf("%d bytes", g.bytes())
	}
	rng := rand.New(rand.NewPCG(3, 4))
	fp := rng.Uint64()
	for i, step := range []struct {
		run  run
		seen bool
	}{{makeRun(0, 2), false}, {makeRun(2, 2), false}, {makeRun(1, 1), true}, {makeRun(0, 16), true}, {makeRun(15, 1), true}} {
		if g.seen(fp, step.run) != step.seen {
			t.Errorf("step %d: %v", i, !step.seen)
		}
	}
	wrong := 0
	for range 100_000 {
		if g.seen(rng.Uint64(), makeRun(0, 16)) {
			wrong++
		}
	}
	if wrong > 50 {
		t.Errorf("%d of 100000 that were never seen", wrong)
	}
	if g.seen(fp, makeRun(0, 1)) {
		t.Error("nothing is forgotten")
	}
}

// More pages of one set than it has room for, put round and round, each until it
// is admitted: all are in the end.
func TestGhostsOfOneSet(t *testing.T) {
	g := newGhosts(0)
	var left []uint64
	for i := range uint64(8) {
		left = append(left, 5|(i+1)<<32)
	}
	for round := 0; len(left) > 0; round++ {
		if round == 1000 {
			t.Fatalf("%d pages are never known", len(left))
		}
		left = slices.DeleteFunc(left, func(fp uint64) bool { return g.seen(fp, makeRun(0, 16)) })
	}
}
