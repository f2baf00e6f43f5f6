package metadata

import (
	"context"
	"fmt"
	"sync/atomic"

	"openvstorage/sco"
)

// Resident reports whether Set for n clusters from addr on would find every page in memory,
// including those with the counters of the SCOs that lose clusters by it.
func (m *Map) Resident(addr uint64, n int) bool {
	var buf [64]sco.Location
	v := View{m: m, st: &m.head}
	for n > 0 {
		dst := buf[:min(n, len(buf))]
		if !v.Lookup(addr, dst) {
			return false
		}
		last := ^uint64(0)
		for _, l := range dst {
			if !m.counted(l) || uint64(l.Number())>>fanoutLog2 == last {
				continue
			}
			last = uint64(l.Number()) >> fanoutLog2
			var one [1]sco.Location
			if _, ok := lookup(m.live.Load(), uint64(l.Number()), one[:]); !ok {
				return false
			}
		}
		addr += uint64(len(dst))
		n -= len(dst)
	}
	return true
}

// Prepare makes Set for n clusters from addr on cheap: it loads the pages that are not in
// memory, and brings the cache within its budget. Call it before a write is appended if
// Resident is false, and otherwise from time to time. Its error means that the map can take
// no more changes now. As it comes before the append, the write is refused or waits, and is
// not lost.
func (m *Map) Prepare(ctx context.Context, addr uint64, n int) error {
	if err := m.cache.trim(ctx); err != nil {
		return err
	}
	for end := addr + uint64(n); addr < end; {
		w, _, next, err := m.find(ctx, &m.head, addr, TreeMap)
		if err != nil {
			return err
		}
		last := ^uint64(0)
		for ; w != nil && addr < min(next, end); addr++ {
			l := sco.Location(atomic.LoadUint64(&w[addr&(fanout-1)]))
			if !m.counted(l) || uint64(l.Number())>>fanoutLog2 == last {
				continue
			}
			last = uint64(l.Number()) >> fanoutLog2
			if _, _, _, err := m.find(ctx, &m.live, uint64(l.Number()), TreeLive); err != nil {
				return err
			}
		}
		addr = next
	}
	return nil
}

// Set maps run consecutive clusters from addr on to consecutive locations from loc on; if loc
// is Zero or Hole, all to loc. It waits for pages that are not in memory. After an error a
// part may have been done, and the same call may be repeated.
func (m *Map) Set(seq, addr uint64, run int, loc sco.Location) error {
	if run <= 0 || addr+uint64(run) > m.Clusters() || addr+uint64(run) < addr {
		return fmt.Errorf("metadata: vDisk %s: set %d clusters at %d: outside of %d", m.volume, run, addr, m.Clusters())
	}
	// The log holds this change already, so it is made even if the cache stays over its
	// budget.
	_ = m.cache.trim(context.Background())
	for run > 0 {
		n := min(run, fanout-int(addr&(fanout-1)))
		m.mu.Lock()
		missing := m.setLeaf(seq, addr, n, loc)
		m.mu.Unlock()
		if missing != nil {
			if err := m.fault(context.Background(), missing); err != nil {
				return err
			}
			continue
		}
		addr += uint64(n)
		loc = loc.Add(n)
		run -= n
	}
	return nil
}

// setLeaf is Set within one leaf. Nothing has changed if a page is missing.
func (m *Map) setLeaf(seq, addr uint64, n int, loc sco.Location) (missing *page) {
	m.advance(seq)
	p, missing := m.ownLeaf(&m.head, addr, TreeMap)
	if missing != nil {
		return missing
	}
	i := int(addr & (fanout - 1))
	w := p.leaf.Load()[i : i+n]
	if missing := m.ownCounters(w, loc); missing != nil {
		return missing
	}
	// The new locations are counted first: an SCO whose clusters are replaced by others
	// of its own must not count as dead in between.
	if m.counted(loc) {
		m.adjust(loc.Number(), int64(n))
	}
	m.uncount(w)
	for j := range w {
		atomic.StoreUint64(&w[j], uint64(loc.Add(j)))
	}
	return nil
}

// Pass notes that seq is an entry that does not change the map.
func (m *Map) Pass(seq uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(seq)
}

// advance notes that seq is being applied. m.mu held.
func (m *pager) advance(seq uint64) {
	if seq > m.seq {
		m.seq = seq
	}
}

// Grow sets the size of the vDisk. New clusters are holes.
func (m *Map) Grow(seq, clusters uint64) error {
	if clusters < m.Clusters() || clusters > span(maxLevels) {
		return fmt.Errorf("metadata: vDisk %s: grow from %d to %d clusters: out of range", m.volume, m.Clusters(), clusters)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(seq)
	m.raise(&m.head, TreeMap, levelsFor(clusters))
	r := *m.head.Load()
	r.clusters = clusters
	m.head.Store(&r)
	return nil
}

// raise puts pages above a root until the tree has the height. m.mu held.
func (m *pager) raise(st *stem, kind TreeKind, levels uint8) {
	m.cache.mu.Lock()
	defer m.cache.mu.Unlock()
	r := *st.Load()
	for ; r.levels < levels; r.levels++ {
		if r.ref == HoleRef {
			continue
		}
		p := m.newPage(r.levels, kind, 0, nil)
		slot{in: p.inner.Load()}.set(r.ref, r.page)
		r.ref, r.page = p.ref, p
	}
	st.Store(&r)
}

// Snapshot pins the head as it is and returns its root and a view of it. The
// root is durable with the next checkpoint that is frozen after it.
func (m *Map) Snapshot(seq uint64) (Root, *View) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(seq)
	r := m.head.Load()
	m.pin(r)
	v := &View{m: m, st: new(stem)}
	v.st.Store(r)
	return r.public(), v
}

// pin starts a new generation, so that r never changes (M2). It also keeps the handle of r,
// which leads to unsaved pages, so that rootAt finds it by the reference. m.mu held.
func (m *Map) pin(r *root) {
	m.gen++
	if r.page != nil && r.page.ref.Origin() == m.self && r.page.ref.Number() >= m.savedBelow.Load() {
		m.pinned[r.ref] = r.page
	}
}

// Rollback replaces the head by r, the size of the vDisk included. view may be nil, or a view
// of r. The counters start anew, and Reap counts r from here on (M5).
func (m *Map) Rollback(seq uint64, r Root, view *View) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(seq)
	m.gen++
	m.head.Store(m.rootAt(r, TreeMap, view))
	for i := range m.drops {
		m.drops[i].init(uint8(i))
	}
	m.resetLive()
	m.startRecount(seq, m.head.Load())
}
