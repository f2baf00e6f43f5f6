package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"openvstorage/metadata"
	"openvstorage/metadata/memstore"
	"openvstorage/sco"

	"github.com/google/uuid"
)

var ctx = context.Background()

// model is what the map must be: the dumbest twin that works.
type model struct {
	clusters uint64
	locs     map[uint64]sco.Location
}

func (m *model) clone() *model {
	c := &model{clusters: m.clusters, locs: make(map[uint64]sco.Location, len(m.locs))}
	for a, l := range m.locs {
		c.locs[a] = l
	}
	return c
}

func (m *model) set(addr uint64, run int, loc sco.Location) {
	for i := range run {
		if l := loc.Add(i); l == sco.Hole {
			delete(m.locs, addr+uint64(i))
		} else {
			m.locs[addr+uint64(i)] = l
		}
	}
}

// fill visits known clusters only for holes, so that huge ranges are cheap.
func (m *model) fill(addr, n uint64, loc sco.Location) {
	if loc == sco.Hole {
		for a := range m.locs {
			if a >= addr && a-addr < n {
				delete(m.locs, a)
			}
		}
		return
	}
	m.set(addr, int(n), loc)
}

func (m *model) live(self sco.Origin) map[sco.Number]int64 {
	out := make(map[sco.Number]int64)
	for _, l := range m.locs {
		if l.Kind() == sco.KindData && l.Origin() == self {
			out[l.Number()]++
		}
	}
	return out
}

// snapshot is one that both sides have.
type snapshot struct {
	root  metadata.Root
	view  *metadata.View // nil after a restart
	model *model
	fresh bool // no checkpoint covers it
}

// checkpoint is what a catalog would hold.
type checkpoint struct {
	state metadata.State
	model *model
	snaps []snapshot
}

// pendingCheckpoint is a checkpoint that is not committed.
type pendingCheckpoint struct {
	frozen     *metadata.Frozen
	checkpoint checkpoint
}

// world drives a map and its model side by side.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	o       metadata.Options
	store   *memstore.Store
	m       *metadata.Map
	model   *model
	snaps   []snapshot
	last    checkpoint
	pending []pendingCheckpoint // oldest first
	seq     uint64
	sco     sco.Number
	next    int // index in the open SCO
}

func newWorld(t *testing.T, seed uint64, clusters uint64, cacheBytes int64) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), store: memstore.New(), sco: 1, next: 1}
	id := uuid.UUID{15: byte(seed), 0: 1}
	w.o = metadata.Options{Volume: id, Origins: []uuid.UUID{id}, Clusters: clusters, Cache: metadata.NewCache(cacheBytes), Store: w.store}
	m, err := metadata.New(w.o)
	if err != nil {
		t.Fatal(err)
	}
	w.m, w.model = m, &model{clusters: clusters, locs: map[uint64]sco.Location{}}
	w.last = checkpoint{state: m.Freeze(0, nil).State(), model: w.model.clone()}
	return w
}

func (w *world) self() sco.Origin { return sco.Origin(len(w.o.Origins) - 1) }

// must retries while the store injects errors, as callers may.
func (w *world) must(what string, f func() error) {
	w.t.Helper()
	var err error
	for range 200 {
		if err = f(); err == nil {
			return
		}
		if !errors.Is(err, errInjected) {
			break
		}
	}
	w.t.Fatalf("seq %d: %s: %v", w.seq, what, err)
}

var errInjected = errors.New("injected")

// addr prefers a few hot regions, and edges of pages.
func (w *world) addr() uint64 {
	c := w.model.clusters
	switch w.rng.IntN(4) {
	case 0:
		return w.rng.Uint64N(c)
	case 1:
		return min(w.rng.Uint64N(c/512+1)*512, c-1)
	default:
		return min(w.rng.Uint64N(5)*(c/5)+w.rng.Uint64N(3000), c-1)
	}
}

func (w *world) alloc(n int) sco.Location {
	if w.next+n > 1000 {
		w.sco += 1 + sco.Number(w.rng.IntN(300))
		w.next = 1
		w.must("open SCO", func() error { return w.m.OpenSCO(w.sco) })
	}
	l := sco.At(w.self(), w.sco, w.next)
	w.next += n
	return l
}

func (w *world) step() {
	w.seq++
	switch k := w.rng.IntN(100); {
	case k < 60:
		a := w.addr()
		n := int(min(uint64(1+w.rng.IntN(1<<w.rng.IntN(10))), w.model.clusters-a))
		n = min(n, 900)
		loc := w.alloc(n)
		w.must("set", func() error { return w.m.Set(w.seq, a, n, loc) })
		w.model.set(a, n, loc)
	case k < 75:
		a := w.addr()
		n := min(uint64(w.rng.IntN(1<<w.rng.IntN(13))), w.model.clusters-a)
		word := sco.Hole
		if w.rng.IntN(3) == 0 {
			word = sco.Zero
		}
		w.must("fill", func() error { return w.m.Fill(w.seq, a, n, word) })
		w.model.fill(a, n, word)
	case k < 76:
		a := w.addr()
		n := w.model.clusters - a
		w.must("trim", func() error { return w.m.Fill(w.seq, a, n, sco.Hole) })
		w.model.fill(a, n, sco.Hole)
	case k < 80:
		r, v := w.m.Snapshot(w.seq)
		w.snaps = append(w.snaps, snapshot{r, v, w.model.clone(), true})
		if len(w.snaps) > 6 {
			i := w.rng.IntN(len(w.snaps))
			w.snaps = append(w.snaps[:i], w.snaps[i+1:]...)
		}
	case k < 82 && len(w.snaps) > 0:
		s := w.snaps[w.rng.IntN(len(w.snaps))]
		w.m.Rollback(w.seq, s.root, s.view)
		w.model = s.model.clone()
		w.sco, w.next = w.sco+1, 1
	case k < 84:
		c := w.model.clusters + w.rng.Uint64N(w.model.clusters/4+2)
		w.must("grow", func() error { return w.m.Grow(w.seq, c) })
		w.model.clusters = c
	case k < 89:
		w.must("reap", func() error { _, err := w.m.Reap(ctx, 1+w.rng.IntN(20)); return err })
		w.must("count", func() error { _, err := w.m.CountHeld(ctx, w.rng.IntN(2)); return err })
		w.held(false)
	case k < 91:
		w.checkpoint()
	case k < 92:
		if len(w.pending) < 4 {
			w.freeze()
		}
	case k < 93:
		w.sweep()
	case k < 94:
		w.restart()
	default:
		w.compare(w.m.View(), w.model, 20)
		if len(w.snaps) > 0 {
			s := &w.snaps[w.rng.IntN(len(w.snaps))]
			if s.view == nil {
				s.view = w.m.ViewAt(s.root)
			}
			w.compare(s.view, s.model, 20)
		}
	}
}

// freeze pins a checkpoint that may be committed later.
func (w *world) freeze() {
	var fresh []metadata.Root
	for _, s := range w.snaps {
		if s.fresh && w.rng.IntN(2) == 0 { // the map knows them anyway
			fresh = append(fresh, s.root)
		}
	}
	f := w.m.Freeze(w.seq, fresh)
	cp := checkpoint{state: f.State(), model: w.model.clone()}
	for _, s := range w.snaps {
		s.view, s.fresh = nil, false
		cp.snaps = append(cp.snaps, s)
	}
	w.pending = append(w.pending, pendingCheckpoint{f, cp})
	for range w.rng.IntN(5) { // changes go on beside it
		w.seq++
		a := w.addr()
		loc := w.alloc(1)
		w.must("set", func() error { return w.m.Set(w.seq, a, 1, loc) })
		w.model.set(a, 1, loc)
	}
}

// checkpoint commits any of those that were frozen, and with it the older ones.
func (w *world) checkpoint() {
	if len(w.pending) == 0 || len(w.pending) < 4 && w.rng.IntN(2) == 0 {
		w.freeze()
	}
	i := w.rng.IntN(len(w.pending))
	f, cp := w.pending[i].frozen, w.pending[i].checkpoint
	var pages []metadata.EncodedPage
	w.must("new pages", func() error {
		pages = pages[:0]
		return f.NewPages(ctx, w.last.state.NextPage, func(number uint64, b []byte) error {
			if len(pages) > 0 && number <= pages[len(pages)-1].Number {
				return fmt.Errorf("page %d after %d", number, pages[len(pages)-1].Number)
			}
			pages = append(pages, metadata.EncodedPage{Number: number, Bytes: append([]byte(nil), b...)})
			return nil
		})
	})
	w.must("save", func() error { return w.store.SavePages(ctx, w.o.Volume, pages) })
	w.must("flush", func() error { return w.store.Flush(ctx) })
	if w.rng.IntN(6) == 0 { // the catalog put failed
		return
	}
	w.m.Committed(f)
	w.last, w.pending = cp, w.pending[i+1:]
	among := func(list []snapshot, s snapshot) bool {
		return slices.ContainsFunc(list, func(t snapshot) bool { return s.root == t.root })
	}
	for i, s := range w.snaps {
		w.snaps[i].fresh = s.fresh && !among(cp.snaps, s)
	}
	w.last.snaps = slices.DeleteFunc(cp.snaps, func(s snapshot) bool { return !among(w.snaps, s) }) // deleted since
}

func (w *world) sweep() {
	var roots []metadata.Root
	for _, s := range append(append([]snapshot(nil), w.snaps...), w.last.snaps...) {
		roots = append(roots, s.root)
	}
	w.must("sweep", func() error { _, _, err := w.m.Sweep(ctx, roots, metadata.MaxPage); return err })
}

// restart loses what no checkpoint covers; there is no log to replay here.
func (w *world) restart() {
	w.m.Close()
	if w.rng.IntN(2) == 0 {
		w.store.Crash()
	}
	w.must("open", func() error {
		m, err := metadata.Open(ctx, w.o, w.last.state)
		w.m = m
		return err
	})
	w.model = w.last.model.clone()
	w.snaps = append([]snapshot(nil), w.last.snaps...)
	w.seq, w.pending = w.last.state.Seq, nil
	w.sco, w.next = w.sco+1, 1
}

// compare fails the test unless n random ranges of the view and of the model are the same.
func (w *world) compare(v *metadata.View, want *model, n int) {
	w.t.Helper()
	if v.Clusters() != want.clusters {
		w.t.Fatalf("seq %d: %d clusters, not %d", w.seq, v.Clusters(), want.clusters)
	}
	var dst [700]sco.Location
	for range n {
		a := w.addr()
		d := dst[:1+w.rng.IntN(len(dst))]
		if w.rng.IntN(2) == 0 {
			w.must("load", func() error { return v.Load(ctx, a, uint64(len(d))) })
		}
		if !v.Lookup(a, d) {
			w.must("read", func() error { return v.Read(ctx, a, d) })
		}
		for i, l := range d {
			if l != want.locs[a+uint64(i)] {
				w.t.Fatalf("seq %d: cluster %d is %v, not %v", w.seq, a+uint64(i), l, want.locs[a+uint64(i)])
			}
		}
	}
}

// held compares the sum of the counters, which may be too large unless exact.
func (w *world) held(exact bool) {
	w.t.Helper()
	want := uint64(0)
	for _, c := range w.model.live(w.self()) {
		want += uint64(c)
	}
	if got, known := w.m.Held(); !known && exact || known && (got < want || exact && got != want) {
		w.t.Errorf("seq %d: %d clusters are held, known %v, not %d", w.seq, got, known, want)
	}
}

// bound compares how much a view may hold at most.
func (w *world) bound(v *metadata.View, want *model) {
	w.t.Helper()
	leaves := map[uint64]bool{}
	for addr, l := range want.locs {
		if l.Kind() == sco.KindData {
			leaves[uint64(addr)/512] = true
		}
	}
	var got uint64
	w.must("bound", func() (err error) { got, err = v.Bound(ctx); return err })
	if got < uint64(len(leaves))*512 || got%512 != 0 {
		w.t.Errorf("seq %d: at most %d clusters hold data, and %d leaves do", w.seq, got, len(leaves))
	}
}

// all compares everything that extents and counters say.
func (w *world) all() {
	w.t.Helper()
	w.must("reap all", func() error {
		for {
			if more, err := w.m.Reap(ctx, 100); err != nil || !more {
				return err
			}
		}
	})
	if w.m.Recounting() {
		w.t.Fatal("still recounting")
	}
	want := w.model.live(w.self())
	got := make(map[sco.Number]int64)
	w.must("SCOs", func() error {
		clear(got)
		return w.m.SCOs(ctx, func(s metadata.SCO) bool {
			if s.Live != 0 {
				got[s.Number] = s.Live
			}
			if s.Dead && (s.Live != 0 || want[s.Number] != 0) {
				w.t.Errorf("seq %d: %s is dead", w.seq, s.Number.Name())
			}
			return true
		})
	})
	w.must("count all", func() error {
		for {
			if more, err := w.m.CountHeld(ctx, 1); err != nil || !more {
				return err
			}
		}
	})
	w.held(true)
	w.bound(w.m.View(), w.model)
	for _, s := range w.snaps {
		if s.view != nil {
			w.bound(s.view, s.model)
		}
	}
	for n, c := range want {
		if got[n] != c {
			w.t.Errorf("seq %d: %s has %d live clusters, not %d", w.seq, n.Name(), got[n], c)
		}
	}
	for n, c := range got {
		if want[n] == 0 {
			w.t.Errorf("seq %d: %s has %d live clusters, not 0", w.seq, n.Name(), c)
		}
	}
	w.compare(w.m.View(), w.model, 50)
	w.must("extents", func() error {
		a, found := uint64(0), 0
		last := sco.Kind(9)
		err := w.m.View().Extents(ctx, 0, w.model.clusters, func(k sco.Kind, run uint64) bool {
			if k == last {
				w.t.Errorf("seq %d: extents at %d not merged", w.seq, a)
			}
			last = k
			if k != sco.KindHole {
				for i := range run {
					if w.model.locs[a+i].Kind() != k {
						w.t.Errorf("seq %d: cluster %d is no %d", w.seq, a+i, k)
						return false
					}
				}
				found += int(run)
			}
			a += run
			return true
		})
		if err == nil && (a != w.model.clusters || found != len(w.model.locs)) {
			w.t.Errorf("seq %d: extents end at %d with %d, not %d with %d", w.seq, a, found, w.model.clusters, len(w.model.locs))
		}
		return err
	})
	if w.t.Failed() {
		w.t.FailNow()
	}
}

func TestModel(t *testing.T) {
	seeds := 24
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			clusters := []uint64{1, 600, 20_000, 300_000, 1 << 28}[seed%5]
			w := newWorld(t, uint64(seed), clusters, metadata.MinCacheBytes)
			if seed%2 == 1 {
				hookRNG := rand.New(rand.NewPCG(uint64(seed), 2))
				w.store.SetHook(func(op memstore.Op, _ uuid.UUID, _ uint64) error {
					if op != memstore.Load && hookRNG.IntN(10) == 0 || hookRNG.IntN(200) == 0 {
						return fmt.Errorf("%s: %w", op, errInjected)
					}
					return nil
				})
			}
			for i := range 1500 {
				w.step()
				if i%250 == 249 {
					w.all()
				}
			}
			if s := w.o.Cache.Stats(); clusters == 1<<28 && (s.Evictions == 0 || s.Loads == 0 || s.Saves == 0) {
				t.Errorf("the cache was never short: %+v", s)
			}
		})
	}
}
