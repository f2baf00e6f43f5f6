package metadata

import (
	"context"
	"fmt"
	"sync/atomic"

	"openvstorage/sco"
)

// Fill maps n clusters from addr on to Hole or Zero. It changes only the pages along the two
// edges of the range, however long that is: subtrees inside are detached whole, and their
// locations stay counted until Reap has subtracted them (M5). After an error a part may have
// been done, and the same call may be repeated.
func (m *Map) Fill(seq, addr, n uint64, word sco.Location) error {
	if word != sco.Hole && word != sco.Zero {
		return fmt.Errorf("metadata: vDisk %s: fill with %v: neither hole nor zero", m.volume, word)
	}
	size := m.Clusters()
	if addr > size || n > size-addr {
		return fmt.Errorf("metadata: vDisk %s: fill %d clusters at %d: outside of %d", m.volume, n, addr, size)
	}
	if n == 0 {
		return nil
	}
	end := addr + n
	if word == sco.Hole && end == size {
		end = span(m.head.Load().levels) // beyond the size there are holes anyway
	}
	_ = m.cache.trim(context.Background())
	return m.change(context.Background(), func() *page {
		m.advance(seq)
		return m.fillSlot(slot{st: &m.head}, m.head.Load().levels, 0, addr, end, word)
	})
}

// fillSlot fills the part of [from, to) that lies in the subtree at s. That begins at base and
// covers 512^level addresses; its page has level level-1. After a missing page fillSlot may be
// called again, and passes over the parts that it has filled already.
func (m *Map) fillSlot(s slot, level uint8, base, from, to uint64, word sco.Location) (missing *page) {
	ref := s.ref()
	if ref == PageRef(word) {
		return nil
	}
	if from <= base && base+span(level) <= to {
		return m.detach(s, level-1, word)
	}
	level--
	p, missing := m.own(s, level, TreeMap)
	if missing != nil {
		return missing
	}
	lo, hi := 0, fanout-1
	if from > base {
		lo = int((from - base) >> (fanoutLog2 * uint(level)))
	}
	if last := (to - 1 - base) >> (fanoutLog2 * uint(level)); last < fanout {
		hi = int(last)
	}
	if level == 0 {
		w := p.leaf.Load()[lo : hi+1]
		if missing := m.ownCounters(w, word); missing != nil {
			return missing
		}
		m.uncount(w)
		for i := range w {
			atomic.StoreUint64(&w[i], uint64(word))
		}
		return nil
	}
	in := p.inner.Load()
	for i := lo; i <= hi; i++ {
		if missing := m.fillSlot(slot{in: in, i: i}, level, base+uint64(i)<<(fanoutLog2*uint(level)), from, to, word); missing != nil {
			return missing
		}
	}
	return nil
}

// detach puts a uniform subtree at s, and adds the one that was there to the drops. The page
// that holds s is owned.
func (m *Map) detach(s slot, level uint8, word sco.Location) (missing *page) {
	m.cache.mu.Lock()
	p := s.handle(&m.pager, level, TreeMap)
	m.cache.mu.Unlock()
	// M4: a page of an ancestor holds nothing that is counted here.
	if p != nil && p.ref.Origin() == m.self {
		if missing := m.drop(level, p.ref, p); missing != nil {
			return missing
		}
	}
	m.hang(s, PageRef(word), nil)
	return nil
}

// hang is slot.set with the cache's mutex.
func (m *pager) hang(s slot, ref PageRef, p *page) {
	m.cache.mu.Lock()
	s.set(ref, p)
	m.cache.mu.Unlock()
}

// drops collects detached subtrees of one level in a page of the level above. When that page
// is full, it is added to the drops of its own level as one detached subtree. So there is one
// page for each level to remember, however much waits to be reaped, and all of it may leave
// memory.
type drops struct {
	st stem
	n  int // words in use, from the left; -1 if not known yet
}

// init empties the collection of subtrees whose page has the level.
func (d *drops) init(level uint8) {
	d.st.Store(&root{levels: level + 2})
	d.n = 0
}

func (d *drops) reopen(m *pager, s Drop) {
	d.st.Store(&root{ref: s.Page, page: m.newHandle(s.Page, s.Level, TreeMap), levels: s.Level + 1})
	d.n = -1
}

// drop adds a detached subtree. m.mu held.
func (m *Map) drop(level uint8, ref PageRef, p *page) (missing *page) {
	d := &m.drops[level]
	top, missing := m.own(slot{st: &d.st}, level+1, TreeMap)
	if missing != nil {
		return missing
	}
	if d.n < 0 {
		d.n = used(top.inner.Load())
	}
	if d.n == fanout {
		if int(level)+1 == len(m.drops) {
			return nil // 512^3 whole vDisks wait already: to count this for ever is safe (M5)
		}
		if missing := m.drop(level+1, top.ref, top); missing != nil {
			return missing
		}
		d.init(level)
		if top, missing = m.own(slot{st: &d.st}, level+1, TreeMap); missing != nil {
			return missing
		}
	}
	m.hang(slot{in: top.inner.Load(), i: d.n}, ref, p)
	d.n++
	return nil
}

// used returns how many words there are up to the last that is not a hole.
func used(in *inner) int {
	n := fanout
	for n > 0 && in.refs[n-1] == uint64(HoleRef) {
		n--
	}
	return n
}

// reapLeaf subtracts the rightmost leaf of a dropped subtree from the counters and takes it out
// of the subtree, so that at any time what is left in the subtree is what is still counted.
// m.mu held, and the page that holds s owned.
func (m *Map) reapLeaf(s slot, level uint8) (missing *page) {
	ref := s.ref()
	if !ref.IsPage() || ref.Origin() != m.self {
		m.hang(s, HoleRef, nil)
		return nil
	}
	if level == 0 {
		m.cache.mu.Lock()
		p := s.handle(&m.pager, 0, TreeMap)
		m.cache.mu.Unlock()
		w := p.leaf.Load()
		if w == nil {
			return p
		}
		if missing := m.ownCounters(w[:], sco.Hole); missing != nil {
			return missing
		}
		m.uncount(w[:])
		m.hang(s, HoleRef, nil)
		return nil
	}
	p, missing := m.own(s, level, TreeMap)
	if missing != nil {
		return missing
	}
	in := p.inner.Load()
	for n := used(in); n > 0; n-- {
		child := slot{in: in, i: n - 1}
		if ref := child.ref(); ref.IsPage() && ref.Origin() == m.self {
			return m.reapLeaf(child, level-1)
		}
		m.hang(child, HoleRef, nil)
	}
	m.hang(s, HoleRef, nil)
	return nil
}
