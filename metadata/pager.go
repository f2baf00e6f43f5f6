package metadata

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"openvstorage/sco"

	"github.com/google/uuid"
)

// pager makes, changes and loads the pages of one map, of both of its trees.
type pager struct {
	volume  uuid.UUID
	self    sco.Origin
	origins []uuid.UUID
	cache   *Cache
	store   Store

	// savedBelow is the NextPage of the last committed checkpoint: pages
	// below it are in the store.
	savedBelow atomic.Uint64

	// mu makes changes one at a time. It is taken before the cache's mutex
	// and never held while the store is asked.
	mu   sync.Mutex
	gen  uint64 // the birth generation of pages made now, which may be changed in place
	next uint64 // next page number
	seq  uint64 // newest applied
}

func (m *pager) newHandle(ref PageRef, level uint8, kind TreeKind) *page {
	return &page{ref: ref, level: level, kind: kind, m: m, ring: -1}
}

// newPage makes a page of the head's generation: a copy of from, or if that is nil with every
// word as word. m.mu and the cache's mutex held.
func (m *pager) newPage(level uint8, kind TreeKind, word uint64, from *page) *page {
	p := m.newHandle(RefTo(m.self, m.next), level, kind)
	m.next++
	p.birth, p.seq, p.state = m.gen, m.seq, stateDirty
	if level == 0 {
		w := new(words)
		if from != nil {
			*w = *from.leaf.Load()
		} else if word != 0 {
			fill(w[:], word)
		}
		p.leaf.Store(w)
	} else {
		in := new(inner)
		if from != nil {
			old := from.inner.Load()
			in.refs = old.refs
			for i := range old.kids {
				if k := old.kids[i].Load(); k != nil {
					in.kids[i].Store(k)
				}
			}
		} else if word != 0 {
			fill(in.refs[:], word)
		}
		p.inner.Store(in)
	}
	m.cache.add(p)
	return p
}

func fill(w []uint64, word uint64) {
	for i := range w {
		w[i] = word
	}
}

// mutable reports whether p may be changed in place, as it is of the head's generation (M3).
// m.mu held and p in memory.
func (m *pager) mutable(p *page) bool {
	return p.m == m && p.birth == m.gen && p.ref.Origin() == m.self
}

// own makes the page at s one that may be changed, and that cannot leave memory until m.mu is
// released. A page that is shared is copied; if the slot holds none, one is made; in each case
// it is unsaved afterwards (M1, M2). The page that holds s must be owned already. If a page
// must be loaded first, own returns it as missing. m.mu held.
func (m *pager) own(s slot, level uint8, kind TreeKind) (p, missing *page) {
	m.cache.mu.Lock()
	defer m.cache.mu.Unlock()
	p = s.handle(m, level, kind)
	switch {
	case p == nil:
		p = m.newPage(level, kind, uint64(s.ref()), nil)
		s.set(p.ref, p)
	case !p.resident():
		return nil, p
	case !m.mutable(p):
		p = m.newPage(level, kind, 0, p)
		s.set(p.ref, p)
	default:
		p.state = stateDirty
	}
	p.touch()
	p.seq = m.seq
	return p, nil
}

// ownLeaf is own for the level 0 page of addr and all pages above it.
func (m *pager) ownLeaf(st *stem, addr uint64, kind TreeKind) (p, missing *page) {
	r := st.Load()
	level := r.levels - 1
	p = r.page
	for p != nil && level > 0 {
		in := p.inner.Load()
		if in == nil {
			break
		}
		p = in.kids[slotOf(addr, level)].Load()
		level--
	}
	// An unsaved page keeps all above it in memory and unsaved (M1).
	if p != nil && level == 0 && p.m == m && p.state == stateDirty && m.mutable(p) {
		p.touch()
		p.seq = m.seq
		return p, nil
	}
	s := slot{st: st}
	for level = r.levels - 1; ; level-- {
		if p, missing = m.own(s, level, kind); missing != nil || level == 0 {
			return p, missing
		}
		s = slot{in: p.inner.Load(), i: slotOf(addr, level)}
	}
}

// change runs f under m.mu, loads the page that f reports as missing, and runs f again, until
// none is missing. f must be able to repeat what it did before it met a missing page.
func (m *pager) change(ctx context.Context, f func() (missing *page)) error {
	for {
		m.mu.Lock()
		missing := f()
		m.mu.Unlock()
		if missing == nil {
			return nil
		}
		if err := m.fault(ctx, missing); err != nil {
			return err
		}
	}
}

// fault brings p into memory.
func (m *pager) fault(ctx context.Context, p *page) error {
	c := m.cache
	for {
		c.mu.Lock()
		if p.resident() {
			c.mu.Unlock()
			return nil
		}
		wait := p.wait
		if wait == nil {
			p.wait = make(chan struct{})
			c.mu.Unlock()
			return m.load(ctx, p)
		}
		c.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return fmt.Errorf("metadata: vDisk %s: wait for %v: %w", m.volume, p.ref, ctx.Err())
		}
	}
}

// load is fault for the one goroutine that has set p.wait.
func (m *pager) load(ctx context.Context, p *page) error {
	h, w, err := m.read(ctx, p.ref, p.level, p.kind)
	c := m.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	close(p.wait)
	p.wait = nil
	if err != nil {
		return err
	}
	if p.birth == 0 {
		p.birth, p.seq = h.Birth, h.Seq
	}
	if p.level == 0 {
		p.leaf.Store(w)
	} else {
		p.inner.Store(&inner{refs: *w})
	}
	p.hot.Store(1)
	c.loads++
	c.add(p)
	return nil
}

// read loads and decodes a page, and does not put it into the cache.
func (m *pager) read(ctx context.Context, ref PageRef, level uint8, kind TreeKind) (PageHeader, *words, error) {
	if int(ref.Origin()) >= len(m.origins) {
		return PageHeader{}, nil, fmt.Errorf("metadata: vDisk %s: %v is of no origin: %w", m.volume, ref, ErrPageCorrupt)
	}
	owner := m.origins[ref.Origin()]
	b, err := m.store.LoadPage(ctx, owner, ref.Number(), make([]byte, 0, MaxPageSize))
	if err != nil {
		return PageHeader{}, nil, fmt.Errorf("metadata: vDisk %s: load page %d of %s: %w", m.volume, ref.Number(), owner, err)
	}
	w := new(words)
	h, err := DecodePage(b, owner, ref.Number(), (*[fanout]uint64)(w))
	if err == nil && (h.Level != level || h.Kind != kind) {
		err = fmt.Errorf("%w: level %d of tree %d, not level %d of tree %d", ErrPageCorrupt, h.Level, h.Kind, level, kind)
	}
	if err != nil {
		return PageHeader{}, nil, fmt.Errorf("metadata: vDisk %s: page %d of %s: %w", m.volume, ref.Number(), owner, err)
	}
	return h, w, nil
}
