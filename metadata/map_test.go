package metadata_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"openvstorage/metadata"
	"openvstorage/metadata/memstore"
	"openvstorage/sco"

	"github.com/google/uuid"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func at(t testing.TB, v *metadata.View, addr uint64) sco.Location {
	t.Helper()
	var dst [1]sco.Location
	check(t, v.Read(ctx, addr, dst[:]))
	return dst[0]
}

func drain(t testing.TB, m *metadata.Map) {
	t.Helper()
	for {
		more, err := m.Reap(ctx, 1000)
		check(t, err)
		if !more {
			return
		}
	}
}

// commit makes a checkpoint of m in its store and returns it.
func commit(t testing.TB, m *metadata.Map, store metadata.Store, from uint64, snaps ...metadata.Root) (metadata.State, int) {
	t.Helper()
	f := m.Freeze(m.Seq(), snaps)
	n := 0
	check(t, f.NewPages(ctx, from, func(number uint64, b []byte) error {
		n++
		return store.SavePages(ctx, m.Volume(), []metadata.EncodedPage{{Number: number, Bytes: b}})
	}))
	check(t, store.Flush(ctx))
	m.Committed(f)
	return f.State(), n
}

// A trim of a fully written 1 TiB costs edge pages only; what it detached is
// counted until it is reaped.
func TestFillCostsPagesNotClusters(t *testing.T) {
	m := newMap(t, tib, 64<<20)
	// One location in each 1 GiB makes 1024 subtrees.
	for i := range uint64(1024) {
		check(t, m.Set(i+1, i<<18, 1, sco.At(0, 7, int(i)+1)))
	}
	before := m.Stats().Pages
	check(t, m.Fill(2000, 3, tib-6, sco.Hole)) // neither end on an edge of a page
	if n := m.Stats().Pages - before; n > 12 {
		t.Errorf("Fill made %d pages", n)
	}
	if got := at(t, m.View(), 5<<18); got != sco.Hole {
		t.Errorf("is %v", got)
	}
	if got := at(t, m.View(), 0); got.Number() != 7 {
		t.Errorf("cluster 0 is %v", got)
	}
	s, _, err := m.Live(ctx, 7)
	if check(t, err); s.Live < 1024-4 {
		t.Errorf("live %d before Reap", s.Live)
	}
	drain(t, m)
	if s, _, err = m.Live(ctx, 7); err != nil || s.Live != 1 || s.Dead {
		t.Errorf("live %+v, %v after Reap", s, err)
	}
	check(t, m.Fill(2001, 0, tib, sco.Hole))
	drain(t, m)
	if s, _, err = m.Live(ctx, 7); err != nil || !s.Dead || s.DeadSeq != 2001 {
		t.Errorf("%+v, %v after the last", s, err)
	}
	check(t, m.Forget(7))
	if _, known, _ := m.Live(ctx, 7); known {
		t.Error("known after Forget")
	}
}

func TestManyDropsStayFew(t *testing.T) {
	store := memstore.New()
	id := uuid.UUID{1}
	m, err := metadata.New(metadata.Options{Volume: id, Origins: []uuid.UUID{id}, Clusters: 1 << 20, Cache: metadata.NewCache(4 << 20), Store: store})
	check(t, err)
	seq := uint64(0)
	for range 3 {
		for i := range uint64(1 << 11) {
			seq++
			check(t, m.Set(seq, i<<9+i%500, 5, sco.At(0, sco.Number(1+i/31), 1)))
		}
		for i := range uint64(1 << 11) {
			seq++
			check(t, m.Fill(seq, i<<9, 512, sco.Zero))
		}
	}
	s, _ := commit(t, m, store, 0)
	if len(s.Drops) > 4 {
		t.Errorf("%d drops", len(s.Drops))
	}
	m.Close()
	m, err = metadata.Open(ctx, metadata.Options{Volume: id, Origins: []uuid.UUID{id}, Cache: metadata.NewCache(4 << 20), Store: store}, s)
	check(t, err)
	drain(t, m)
	check(t, m.SCOs(ctx, func(s metadata.SCO) bool {
		if !s.Dead {
			t.Errorf("%+v", s)
		}
		return true
	}))
}

func TestCloneSharesAndDiverges(t *testing.T) {
	store, cache := memstore.New(), metadata.NewCache(8<<20)
	parentID, childID := uuid.UUID{1}, uuid.UUID{2}
	parent, err := metadata.New(metadata.Options{Volume: parentID, Origins: []uuid.UUID{parentID}, Clusters: 1 << 20, Cache: cache, Store: store})
	check(t, err)
	for i := range uint64(64) {
		check(t, parent.Set(i+1, i*10_000, 700, sco.At(0, sco.Number(i+1), 1)))
	}
	root, view := parent.Snapshot(100)
	pst, _ := commit(t, parent, store, 0, root)
	o := metadata.Options{Volume: childID, Origins: []uuid.UUID{parentID, childID}, Cache: cache, Store: store}
	child, err := metadata.NewClone(o, root, view)
	check(t, err)
	pages := cache.Stats().Pages
	var dst [700]sco.Location
	if !child.View().Lookup(20_000, dst[:]) || dst[699] != sco.At(0, 3, 700) {
		t.Fatal("the parent's pages are not shared")
	}
	if cache.Stats().Pages != pages {
		t.Error("reading a clone made pages")
	}
	check(t, child.Set(1, 20_100, 10, sco.At(1, 1, 1)))
	check(t, parent.Set(101, 20_100, 10, sco.At(0, 500, 1)))
	if got := at(t, view, 20_100); got != sco.At(0, 3, 101) {
		t.Errorf("snapshot sees %v", got)
	}
	check(t, child.Fill(2, 0, 15_000, sco.Hole))
	drain(t, child)
	cst, n := commit(t, child, store, 0)
	if n > 16 {
		t.Errorf("%d pages of a clone with two changes", n)
	}
	if len(cst.Drops) != 0 {
		t.Errorf("the clone waits to drop its parent's pages: %v", cst.Drops)
	}
	check(t, child.SCOs(ctx, func(s metadata.SCO) bool {
		if s.Number != 1 || s.Live != 10 {
			t.Errorf("the clone counts %+v", s)
		}
		return true
	}))
	if _, _, err := child.Sweep(ctx, nil, metadata.MaxPage); err != nil {
		t.Error(err)
	}
	parent.Close()
	child.Close()
	if b := cache.Stats().ResidentBytes; b != 0 {
		t.Errorf("%d bytes in memory after Close", b)
	}
	child, err = metadata.Open(ctx, o, cst)
	check(t, err)
	for addr, want := range map[uint64]sco.Location{
		0: sco.Hole, 10_100: sco.Hole, 20_099: sco.At(0, 3, 100), 20_100: sco.At(1, 1, 1), 20_110: sco.At(0, 3, 111), 630_000: sco.At(0, 64, 1),
	} {
		if got := at(t, child.View(), addr); got != want {
			t.Errorf("cluster %d of the clone is %v, not %v", addr, got, want)
		}
	}
	parent, err = metadata.Open(ctx, metadata.Options{Volume: parentID, Origins: []uuid.UUID{parentID}, Cache: cache, Store: store}, pst)
	check(t, err)
	if got := at(t, parent.View(), 20_100); got != sco.At(0, 3, 101) {
		t.Errorf("the parent's checkpoint holds %v, which came after it", got)
	}
}

func TestSweepKeepsWhatRootsReach(t *testing.T) {
	store := memstore.New()
	id := uuid.UUID{1}
	o := metadata.Options{Volume: id, Origins: []uuid.UUID{id}, Clusters: 1 << 20, Cache: metadata.NewCache(1 << 20), Store: store}
	m, err := metadata.New(o)
	check(t, err)
	write := func(seq uint64) {
		for i := range uint64(200) {
			check(t, m.Set(seq, i*4096, 512, sco.At(0, sco.Number(seq*1000+i), 1)))
		}
	}
	write(1)
	snap, _ := m.Snapshot(2)
	s, _ := commit(t, m, store, 0, snap)
	for seq := uint64(3); seq < 6; seq++ {
		write(seq)
		s, _ = commit(t, m, store, s.NextPage)
	}
	before := store.Len(id)
	set, deleted, err := m.Sweep(ctx, []metadata.Root{snap}, metadata.MaxPage)
	check(t, err)
	if deleted == 0 || store.Len(id) != before-deleted || set.Count(0, s.NextPage) != uint64(store.Len(id)) {
		t.Errorf("%d of %d pages deleted, %d live, %d left", deleted, before, set.Len(), store.Len(id))
	}
	if got := at(t, m.ViewAt(snap), 4096); got != sco.At(0, 1001, 1) {
		t.Errorf("the snapshot holds %v", got)
	}
	m.Close()
	m, err = metadata.Open(ctx, o, s)
	check(t, err)
	if got := at(t, m.View(), 4096); got != sco.At(0, 5001, 1) {
		t.Errorf("the head holds %v", got)
	}
}

func TestRecountAfterRollback(t *testing.T) {
	store := memstore.New()
	id := uuid.UUID{1}
	o := metadata.Options{Volume: id, Origins: []uuid.UUID{id}, Clusters: 1 << 18, Cache: metadata.NewCache(1 << 20), Store: store}
	m, err := metadata.New(o)
	check(t, err)
	check(t, m.Set(1, 0, 5000, sco.At(0, 1, 1)))
	check(t, m.Set(2, 100_000, 100, sco.At(0, 2, 1)))
	snap, view := m.Snapshot(3)
	check(t, m.Set(4, 0, 5000, sco.At(0, 3, 1)))
	m.Rollback(5, snap, view)
	if !m.Recounting() {
		t.Fatal("not recounting")
	}
	check(t, m.Set(6, 100_000, 100, sco.At(0, 4, 1))) // before 2 is counted
	check(t, m.Set(7, 0, 10, sco.At(0, 4, 101)))
	check(t, m.SCOs(ctx, func(s metadata.SCO) bool {
		if s.Dead {
			t.Errorf("%+v while recounting", s)
		}
		return true
	}))
	s, _ := commit(t, m, store, 0, snap)
	for range 2 { // as it went on, and as a restart goes on
		drain(t, m)
		for n, want := range map[sco.Number]metadata.SCO{
			1: {Number: 1, Live: 4990}, 2: {Number: 2, Dead: true, DeadSeq: 7}, 4: {Number: 4, Live: 110},
		} {
			got, known, err := m.Live(ctx, n)
			if check(t, err); n == 2 && !known {
				continue // after the restart nothing of it is reached
			}
			if got != want {
				t.Errorf("%+v, not %+v", got, want)
			}
		}
		check(t, m.MarkDead(3, 4))
		check(t, m.MarkDead(1, 4))
		if got, _, _ := m.Live(ctx, 3); !got.Dead || got.DeadSeq != 4 {
			t.Errorf("%+v after MarkDead", got)
		}
		if got, _, _ := m.Live(ctx, 1); got.Dead {
			t.Error("MarkDead killed a live SCO")
		}
		m.Close()
		m, err = metadata.Open(ctx, o, s)
		check(t, err)
		if !m.Recounting() {
			t.Fatal("not recounting after the restart")
		}
	}
}

// Readers run beside a writer, snapshots, checkpoints, reaping and eviction;
// each sees a location that its cluster had at some time.
func TestReadersRunBesideChanges(t *testing.T) {
	store := memstore.New()
	id := uuid.UUID{1}
	const clusters = 1 << 20
	m, err := metadata.New(metadata.Options{Volume: id, Origins: []uuid.UUID{id}, Clusters: clusters, Cache: metadata.NewCache(metadata.MinCacheBytes), Store: store})
	check(t, err)
	var wg sync.WaitGroup
	done := make(chan struct{})
	reader := func(seed uint64, v *metadata.View) {
		r := rand.New(rand.NewPCG(seed, 3))
		var dst [300]sco.Location
		for {
			select {
			case <-done:
				return
			default:
			}
			a := r.Uint64N(clusters - 300)
			if !v.Lookup(a, dst[:]) {
				if err := v.Read(ctx, a, dst[:]); err != nil {
					t.Error(err)
					return
				}
			}
			for i, l := range dst {
				// The writer puts cluster a at index a%8000 of whatever SCO.
				if l.Kind() == sco.KindData && l.Index() != int(a+uint64(i))%8000 {
					t.Errorf("cluster %d is %v", a+uint64(i), l)
					return
				}
			}
		}
	}
	for i := range 3 {
		wg.Go(func() { reader(uint64(i), m.View()) })
	}
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				if _, err := m.Reap(ctx, 10); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	r := rand.New(rand.NewPCG(9, 9))
	last := uint64(0)
	for seq := uint64(1); seq < 1600; seq++ {
		a := r.Uint64N(clusters - 600)
		n := 1 + r.IntN(min(500, 8000-int(a%8000)))
		check(t, m.Set(seq, a, n, sco.At(0, sco.Number(seq), int(a%8000))))
		switch seq % 400 {
		case 100:
			check(t, m.Fill(seq, a, min(70_000, clusters-a), sco.Zero))
		case 200:
			s, _ := commit(t, m, store, last)
			last = s.NextPage
		case 300:
			_, v := m.Snapshot(seq)
			if seq == 300 {
				wg.Go(func() { reader(77, v) })
			}
		}
	}
	close(done)
	wg.Wait()
	if c := m.Stats(); c.ResidentBytes > 2*metadata.MinCacheBytes {
		t.Errorf("%d bytes in memory", c.ResidentBytes)
	}
}

func TestBudgetHoldsForManyMaps(t *testing.T) {
	store, cache := memstore.New(), metadata.NewCache(16<<20)
	for i := range byte(10) {
		id := uuid.UUID{1 + i}
		m, err := metadata.New(metadata.Options{Volume: id, Origins: []uuid.UUID{id}, Clusters: tib, Cache: cache, Store: store})
		check(t, err)
		for seq := uint64(1); seq <= 2048; seq++ { // the pages that 4 GiB take
			check(t, m.Set(seq, tib/2+seq*512, 32, sco.At(0, sco.Number(seq/16), 1)))
			if seq%64 != 0 {
				continue
			}
			if s := cache.Stats(); s.ResidentBytes > s.LimitBytes+s.LimitBytes/8 {
				t.Fatalf("%d bytes in memory, budget %d", s.ResidentBytes, s.LimitBytes)
			}
		}
	}
	if cache.Stats().Evictions == 0 {
		t.Error("nothing was evicted")
	}
}

func TestStoreErrorsReachPrepare(t *testing.T) {
	store := memstore.New()
	id := uuid.UUID{1}
	m, err := metadata.New(metadata.Options{Volume: id, Origins: []uuid.UUID{id}, Clusters: tib, Cache: metadata.NewCache(metadata.MinCacheBytes), Store: store})
	check(t, err)
	store.SetHook(func(op memstore.Op, _ uuid.UUID, _ uint64) error { return errInjected })
	for i := range uint64(400) {
		check(t, m.Set(i, i<<9, 1, sco.At(0, 1, 1+int(i))))
	}
	if err := m.Prepare(ctx, 0, 1); !errors.Is(err, errInjected) {
		t.Errorf("Prepare over budget on a bad store: %v", err)
	}
	store.SetHook(nil)
	check(t, m.Prepare(ctx, 0, 1))
	if !m.Resident(0, 1) {
		t.Error("not resident after Prepare")
	}
	for i := range uint64(400) {
		if got := at(t, m.View(), i<<9); got != sco.At(0, 1, 1+int(i)) {
			t.Fatalf("cluster %d is %v", i<<9, got)
		}
	}
}

func TestDamagedAndMissingPagesAreToldApart(t *testing.T) {
	store := memstore.New()
	id := uuid.UUID{1}
	o := metadata.Options{Volume: id, Origins: []uuid.UUID{id}, Clusters: 100, Cache: metadata.NewCache(0), Store: store}
	m, err := metadata.New(o)
	check(t, err)
	check(t, m.Set(1, 0, 10, sco.At(0, 1, 1)))
	s, _ := commit(t, m, store, 0)
	m.Close()
	open := func() error {
		m, err := metadata.Open(ctx, o, s)
		check(t, err)
		defer m.Close()
		return m.View().Load(ctx, 0, 1)
	}
	check(t, open())
	store.Damage(id, s.Root.Page.Number())
	if err := open(); !errors.Is(err, metadata.ErrPageCorrupt) {
		t.Errorf("damaged page: %v", err)
	}
	check(t, store.DeletePages(ctx, id, 0, metadata.MaxPage))
	if err := open(); !errors.Is(err, metadata.ErrPageNotFound) {
		t.Errorf("missing page: %v", err)
	}
}

func TestArgumentsAreChecked(t *testing.T) {
	m := newMap(t, 100, 0)
	for name, err := range map[string]error{
		"set outside":    m.Set(1, 99, 2, sco.At(0, 1, 1)),
		"set wraps":      m.Set(1, ^uint64(0), 2, sco.At(0, 1, 1)),
		"set nothing":    m.Set(1, 0, 0, sco.Zero),
		"fill outside":   m.Fill(1, 50, 51, sco.Hole),
		"fill with data": m.Fill(1, 0, 1, sco.At(0, 1, 1)),
		"shrink":         m.Grow(1, 99),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := metadata.New(metadata.Options{}); err == nil {
		t.Error("no cache: no error")
	}
}
