package metadata

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"openvstorage/sco"

	"github.com/google/uuid"
)

// Options says which map is meant and what it lives on.
type Options struct {
	Volume   uuid.UUID
	Origins  []uuid.UUID // origin table; the last entry is Volume
	Clusters uint64      // size of the vDisk; Open and NewClone take it from the root
	Cache    *Cache      // shared by the maps of a host
	Store    Store       // pages of this vDisk and of its origins
}

func (o *Options) validate() error {
	switch {
	case o.Cache == nil || o.Store == nil:
		return errors.New("metadata: Options without Cache or Store")
	case len(o.Origins) == 0 || len(o.Origins) > int(sco.MaxOrigin)+1:
		return fmt.Errorf("metadata: vDisk %s has %d origins, not 1 to %d", o.Volume, len(o.Origins), int(sco.MaxOrigin)+1)
	case o.Origins[len(o.Origins)-1] != o.Volume:
		return fmt.Errorf("metadata: vDisk %s is not the last of its origins", o.Volume)
	}
	return nil
}

// Map is the map of one vDisk. All methods are safe for concurrent use;
// changes must come in the order of their seq (O9).
type Map struct {
	volume  uuid.UUID
	self    sco.Origin
	origins []uuid.UUID
	cache   *Cache
	store   Store

	head stem // tree of locations
	live stem // tree of counters

	// savedBelow is the NextPage of the last committed checkpoint: pages
	// below it are in the store.
	savedBelow atomic.Uint64

	// mu makes changes one at a time. It is taken before the cache's mutex
	// and never held while the store is asked.
	mu         sync.Mutex
	gen        uint64 // pages born now carry it and may change in place
	next       uint64 // next page number
	seq        uint64 // newest applied
	drops      [maxLevels + 2]drops
	recount    recount
	pinned     map[PageRef]*page // roots of snapshots that no checkpoint covers yet
	frozen     []*Frozen         // not committed, oldest first
	committed  State             // of the newest checkpoint
	liveRecent *page             // counter page used last
	liveBase   uint64            // its first SCO number
	held       held
}

// New makes the map of a new, empty vDisk.
func New(o Options) (*Map, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	return newMap(o, State{NextPage: 1, Root: Root{Levels: levelsFor(o.Clusters), Clusters: o.Clusters}}, nil), nil
}

// NewClone makes the map of a clone of a snapshot of the vDisk before it in
// the origin table. root is the snapshot's; view, if not nil, is a view of it
// in the parent's map, whose pages in memory are then shared. The snapshot
// must be covered by a checkpoint of the parent before the clone outlives the
// parent's map.
func NewClone(o Options, r Root, view *View) (*Map, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if r.Page.IsPage() && int(r.Page.Origin()) >= len(o.Origins)-1 {
		return nil, fmt.Errorf("metadata: vDisk %s: root %v of its parent is of no ancestor", o.Volume, r.Page)
	}
	return newMap(o, State{NextPage: 1, Root: r}, view), nil
}

// Open makes the map of a checkpoint. Pages that the vDisk saved after it,
// which no checkpoint covers, are deleted from the store; entries after
// State.Seq are for the caller to replay with Set, Fill, Grow, Snapshot and
// Rollback.
func Open(ctx context.Context, o Options, s State) (*Map, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	for _, r := range []Root{s.Root, s.Live} {
		if r.Levels > maxLevels || r.Page.IsPage() && (int(r.Page.Origin()) >= len(o.Origins) || r.Levels == 0) {
			return nil, fmt.Errorf("metadata: vDisk %s: checkpoint at seq %d has no valid root (%v, %d levels)", o.Volume, s.Seq, r.Page, r.Levels)
		}
	}
	for _, d := range s.Drops {
		if !d.Page.IsPage() || d.Level == 0 || int(d.Level) > maxLevels+2 {
			return nil, fmt.Errorf("metadata: vDisk %s: checkpoint at seq %d has no valid drop (%v, level %d)", o.Volume, s.Seq, d.Page, d.Level)
		}
	}
	if err := o.Store.DeletePages(ctx, o.Volume, s.NextPage, math.MaxUint64); err != nil {
		return nil, fmt.Errorf("metadata: vDisk %s: delete pages after the checkpoint: %w", o.Volume, err)
	}
	return newMap(o, s, nil), nil
}

func newMap(o Options, s State, view *View) *Map {
	m := &Map{
		volume: o.Volume, origins: o.Origins, self: sco.Origin(len(o.Origins) - 1),
		cache: o.Cache, store: o.Store,
		gen: s.Generation + 1, next: max(s.NextPage, 1), seq: s.Seq,
		pinned: make(map[PageRef]*page), committed: s,
	}
	m.savedBelow.Store(m.next)
	if s.Root.Levels == 0 {
		s.Root.Levels = levelsFor(s.Root.Clusters)
	}
	m.head.Store(m.rootAt(s.Root, TreeMap, view))
	for i := range m.drops {
		m.drops[i].init(uint8(i))
	}
	m.resetLive()
	if s.Recount != 0 {
		// How far the recount had come is not recorded: count the checkpoint's
		// root again from nothing. Its drops are not reached by that root.
		m.startRecount(s.Recount, m.head.Load())
		return m
	}
	if s.Live.Levels > 0 {
		m.live.Store(m.rootAt(s.Live, TreeLive, nil))
		if s.Live.Page.IsPage() {
			m.held.below = 0
		}
	}
	for _, d := range s.Drops {
		m.drops[d.Level-1].reopen(m, d)
	}
	return m
}

// Close takes the map's pages out of the cache. Nothing is saved. The map and
// its views must not be used afterwards; clones that share pages go on, and
// load them again.
func (m *Map) Close() { m.cache.forget(m) }

// Volume returns the vDisk's id.
func (m *Map) Volume() uuid.UUID { return m.volume }

// Seq returns the newest seq applied.
func (m *Map) Seq() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seq
}

// Clusters returns the size of the vDisk.
func (m *Map) Clusters() uint64 { return m.head.Load().clusters }

// rootAt returns r with a handle: the view's or a pinned one if it is that
// page's, so that unsaved pages are found, a new one otherwise.
func (m *Map) rootAt(r Root, kind TreeKind, view *View) *root {
	out := &root{ref: r.Page, levels: r.Levels, clusters: r.Clusters}
	if !r.Page.IsPage() {
		return out
	}
	if view != nil && view.m.cache == m.cache {
		if v := view.st.Load(); v.ref == r.Page {
			out.page = v.page
			return out
		}
	}
	if out.page = m.pinned[r.Page]; out.page == nil {
		out.page = m.newHandle(r.Page, r.Levels-1, kind)
	}
	return out
}

func (m *Map) newHandle(ref PageRef, level uint8, kind TreeKind) *page {
	return &page{ref: ref, level: level, kind: kind, m: m, ring: -1}
}

// newPage makes a page of the head's generation, with the content given or
// with every word as word. m.mu and the cache's mutex held.
func (m *Map) newPage(level uint8, kind TreeKind, word uint64, from *page) *page {
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

// mutable reports whether p is of the head's generation, and so M3 lets it be
// changed in place. m.mu held and p in memory.
func (m *Map) mutable(p *page) bool {
	return p.m == m && p.birth == m.gen && p.ref.Origin() == m.self
}

// own makes the page at s one that may be changed and that cannot leave
// memory until m.mu is released: copied if it is shared, made if the slot
// holds none, unsaved in any case (M1, M2). The page that holds s must be
// owned already. If a page must be loaded first, own returns it as missing.
// m.mu held.
func (m *Map) own(s slot, level uint8, kind TreeKind) (p, missing *page) {
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
func (m *Map) ownLeaf(st *stem, addr uint64, kind TreeKind) (p, missing *page) {
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

// change runs f under m.mu until it misses no page. What f has done before it
// misses one must be fit to be done again.
func (m *Map) change(ctx context.Context, f func() (missing *page)) error {
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
func (m *Map) fault(ctx context.Context, p *page) error {
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

// load is fault for the one goroutine that put p.wait there.
func (m *Map) load(ctx context.Context, p *page) error {
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

// read loads and decodes a page past the cache.
func (m *Map) read(ctx context.Context, ref PageRef, level uint8, kind TreeKind) (PageHeader, *words, error) {
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
