package metadata

import (
	"context"
	"sync/atomic"
)

// recount is the counting of a root after a rollback.
type recount struct {
	seq    uint64 // of the rollback; 0 if no recount is under way
	root   *root  // immutable; nil when it is counted, and SCOs without clusters are still to be declared dead
	cursor uint64 // next address of root, or next SCO number
}

// running reports whether counts may still be too low.
func (r *recount) running() bool { return r.root != nil }

// startRecount begins to count r, of which nothing is counted yet. m.mu held, or nobody else
// knows the map.
func (m *Map) startRecount(seq uint64, r *root) { m.recount = recount{seq: max(seq, 1), root: r} }

// Recounting reports whether the counters are not complete since a rollback.
func (m *Map) Recounting() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.recount.seq != 0
}

// Reap does background work on the live counters, for up to budget pages: it subtracts the
// subtrees that Fill has detached, and counts the root that Rollback has restored. It returns
// whether there is more to do. Changes may be made at the same time, between two pages.
func (m *Map) Reap(ctx context.Context, budget int) (more bool, err error) {
	for ; budget > 0; budget-- {
		if err := ctx.Err(); err != nil {
			return true, err
		}
		idle := false
		if err := m.change(ctx, func() (missing *page) {
			idle, missing = m.reapPage()
			return missing
		}); err != nil {
			return true, err
		}
		if idle {
			return false, nil
		}
		if err := m.cache.trim(ctx); err != nil {
			return true, err
		}
	}
	return m.Reapable(), nil
}

// Reapable reports whether Reap has anything to do.
func (m *Map) Reapable() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.drops {
		if m.drops[i].st.Load().ref != HoleRef {
			return true
		}
	}
	return m.recount.seq != 0
}

// reapPage does one page of work. m.mu held.
func (m *Map) reapPage() (idle bool, missing *page) {
	for i := range m.drops {
		d := &m.drops[i]
		if d.st.Load().ref == HoleRef {
			continue
		}
		if missing := m.reapLeaf(slot{st: &d.st}, uint8(i)+1); missing != nil {
			return false, missing
		}
		d.n = -1
		return false, nil
	}
	switch {
	case m.recount.seq == 0:
		return true, nil
	case m.recount.running():
		return false, m.recountPage()
	}
	return false, m.declareDead()
}

// recountPage adds one leaf of the recounted root.
func (m *Map) recountPage() (missing *page) {
	c := &m.recount
	if !c.root.holds(c.cursor) || c.cursor >= c.root.clusters {
		c.root, c.cursor = nil, 0
		return nil
	}
	w, end, missing := m.seek(c.root, c.cursor, TreeMap)
	if missing != nil {
		return missing
	}
	if w != nil {
		if missing := m.ownCounters(w[:], 0); missing != nil {
			return missing
		}
		m.count(w[:], +1)
	}
	c.cursor = end
	return nil
}

// declareDead notes for one page of counters that SCOs with no cluster are dead. During the
// recount a count of zero did not mean that.
func (m *Map) declareDead() (missing *page) {
	c := &m.recount
	r := m.live.Load()
	if !r.holds(c.cursor) {
		*c = recount{}
		return nil
	}
	w, end, missing := m.seek(r, c.cursor, TreeLive)
	if missing != nil {
		return missing
	}
	if w != nil {
		p, missing := m.ownLeaf(&m.live, c.cursor, TreeLive)
		if missing != nil {
			return missing
		}
		w = p.leaf.Load()
		for i := range w {
			if w[i] == liveWord(0) {
				atomic.StoreUint64(&w[i], deadWord(m.seq))
			}
		}
	}
	c.cursor = end
	return nil
}

// seek finds the leaf of addr, or the end of the subtree there that has no page of the vDisk's
// own. m.mu held.
func (m *pager) seek(r *root, addr uint64, kind TreeKind) (w *words, end uint64, missing *page) {
	p, level := r.page, r.levels-1
	end = span(r.levels)
	for p != nil && p.ref.Origin() == m.self {
		if level == 0 {
			if w = p.leaf.Load(); w == nil {
				return nil, 0, p
			}
			return w, end, nil
		}
		in := p.inner.Load()
		if in == nil {
			return nil, 0, p
		}
		end = addr&^(span(level)-1) + span(level)
		p, _ = m.kid(in, slotOf(addr, level), level-1, kind)
		level--
	}
	return nil, end, nil
}
