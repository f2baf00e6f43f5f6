package metadata

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// MinCacheBytes is the least budget: room for the pages of a few operations at once.
const MinCacheBytes = 1 << 20

// trimBatch is how many unsaved pages are saved with one call of the store.
const trimBatch = 64

// Cache bounds the memory of the pages of many maps, in bytes. It is a clock: the pages leave
// first that were not used since the hand passed them. A saved page is dropped; an unsaved one
// is saved to its store before (M1).
//
// Each operation that brings a page in makes room, before or after. So the budget is exceeded
// only by the operations that run at the same time. While a store refuses to save, it is also
// exceeded by pages that are changed; Prepare then returns the store's error.
type Cache struct {
	limit int64
	bytes atomic.Int64

	trimming sync.Mutex // one trim at a time; taken before any Map.mu

	mu        sync.Mutex // residency of every page; taken after Map.mu
	ring      []*page
	hand      int
	loads     uint64
	evictions uint64
	saves     uint64
	failures  uint64
}

// NewCache returns a cache with a budget in bytes, at least MinCacheBytes.
func NewCache(budget int64) *Cache { return &Cache{limit: max(budget, MinCacheBytes)} }

// Stats are the cache's figures.
type Stats struct {
	LimitBytes    int64
	ResidentBytes int64
	DirtyBytes    int64 // of ResidentBytes: in no store
	Pages         int
	Loads         uint64 // pages read from stores
	Evictions     uint64
	Saves         uint64 // pages written to stores to make room
	SaveFailures  uint64 // batches that a store refused
}

// Stats looks at all pages in memory, so it is for metrics and not for the data path.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{
		LimitBytes: c.limit, ResidentBytes: c.bytes.Load(), Pages: len(c.ring),
		Loads: c.loads, Evictions: c.evictions, Saves: c.saves, SaveFailures: c.failures,
	}
	for _, p := range c.ring {
		if p.unsaved() {
			s.DirtyBytes += p.cost()
		}
	}
	return s
}

// Stats returns the figures of the map's own pages in memory.
func (m *Map) Stats() Stats {
	c := m.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{LimitBytes: c.limit}
	for _, p := range c.ring {
		if p.m != &m.pager {
			continue
		}
		s.Pages++
		s.ResidentBytes += p.cost()
		if p.unsaved() {
			s.DirtyBytes += p.cost()
		}
	}
	return s
}

// add puts a page that came into memory on the ring. c.mu held.
func (c *Cache) add(p *page) {
	p.ring = len(c.ring)
	c.ring = append(c.ring, p)
	c.bytes.Add(p.cost())
}

// remove takes a page out of memory. c.mu held.
func (c *Cache) remove(p *page) {
	last := len(c.ring) - 1
	c.ring[p.ring] = c.ring[last]
	c.ring[p.ring].ring = p.ring
	c.ring[last] = nil
	c.ring = c.ring[:last]
	p.ring = -1
	p.drop()
	c.bytes.Add(-p.cost())
}

// forget takes all pages of m out of memory, unsaved ones too.
func (c *Cache) forget(m *pager) {
	c.trimming.Lock() // no save of m's pages is under way
	defer c.trimming.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.ring) - 1; i >= 0; i-- {
		if p := c.ring[i]; p.m == m {
			c.remove(p)
		}
	}
}

// trim brings the cache within its budget, or a little below it. It returns
// an error only if a store refuses to save.
func (c *Cache) trim(ctx context.Context) error {
	if c.bytes.Load() <= c.limit {
		return nil
	}
	c.trimming.Lock()
	defer c.trimming.Unlock()
	target := c.limit - c.limit/32
	c.mu.Lock()
	steps := 4*len(c.ring) + trimBatch // two rounds for pages in use, and two as children leave before parents
	c.mu.Unlock()
	var batch []*page
	for steps > 0 && c.bytes.Load() > target {
		batch = c.scan(batch[:0], target, &steps)
		if err := c.save(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// scan moves the hand, drops saved pages and collects unsaved ones. It holds the mutex for a
// bounded number of steps.
func (c *Cache) scan(batch []*page, target int64, steps *int) []*page {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := 0; n < 1024 && *steps > 0 && len(batch) < trimBatch && len(c.ring) > 0 && c.bytes.Load() > target; n++ {
		*steps--
		if c.hand >= len(c.ring) {
			c.hand = 0
		}
		p := c.ring[c.hand]
		kids := p.level > 0 && p.prune()
		switch {
		case p.hot.Load() != 0:
			p.hot.Store(0)
			c.hand++
		case kids:
			c.hand++
		case p.unsaved():
			batch = append(batch, p)
			c.hand++
		default:
			c.remove(p) // the ring's last page takes its place
			c.evictions++
		}
	}
	return batch
}

// prune forgets the handles of children that are not in memory, so that the number of handles
// is bounded by that of pages in memory. It reports whether there is an unsaved child. c.mu
// held.
func (p *page) prune() (unsaved bool) {
	in := p.inner.Load()
	for i := range in.kids {
		k := in.kids[i].Load()
		switch {
		case k == nil:
		case k.resident():
			unsaved = unsaved || k.unsaved()
		case k.wait == nil:
			in.kids[i].Store(nil)
		}
	}
	return unsaved
}

// save writes unsaved pages to the stores of their maps, and drops those that did not change
// meanwhile.
func (c *Cache) save(ctx context.Context, batch []*page) error {
	for len(batch) > 0 {
		m := batch[0].m
		n := 0 // pages of m, moved to the front
		for i, p := range batch {
			if p.m == m {
				batch[i], batch[n] = batch[n], p
				n++
			}
		}
		if err := m.save(ctx, batch[:n]); err != nil {
			return err
		}
		batch = batch[n:]
	}
	return nil
}

func (m *pager) save(ctx context.Context, pages []*page) error {
	c := m.cache
	m.mu.Lock()
	c.mu.Lock()
	enc := make([]EncodedPage, 0, len(pages))
	for _, p := range pages {
		// M1: a page with an unsaved child waits until that is saved.
		if p.ring < 0 || p.state != stateDirty || p.level > 0 && p.prune() {
			continue
		}
		p.state = stateSaving
		enc = append(enc, EncodedPage{Number: p.ref.Number(), Bytes: m.encode(nil, p)})
	}
	c.mu.Unlock()
	m.mu.Unlock()
	if len(enc) == 0 {
		return nil
	}
	err := m.store.SavePages(ctx, m.volume, enc)

	m.mu.Lock()
	defer m.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range pages {
		switch {
		case p.state != stateSaving:
		case err != nil:
			p.state = stateDirty
		default:
			p.state = stateClean
			if p.ring >= 0 {
				c.remove(p)
				c.evictions++
				c.saves++
			}
		}
	}
	if err != nil {
		c.failures++
		return fmt.Errorf("metadata: vDisk %s: save %d pages to make room: %w", m.volume, len(enc), err)
	}
	return nil
}

// encode returns p's bytes appended to dst. p is in memory and does not change.
func (m *pager) encode(dst []byte, p *page) []byte {
	return AppendPage(dst, m.volume, p.ref.Number(), PageHeader{Kind: p.kind, Level: p.level, Birth: p.birth, Seq: p.seq}, (*[fanout]uint64)(p.content()))
}
