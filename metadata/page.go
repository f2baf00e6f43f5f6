package metadata

import (
	"sync/atomic"
)

// TreeKind says which tree a page belongs to. Numbers are on disk.
type TreeKind uint8

// Kinds of tree.
const (
	TreeMap  TreeKind = 0 // cluster address -> location
	TreeLive TreeKind = 1 // SCO number -> live counter
)

// words is the content of a level 0 page, and of any page as it is encoded.
type words [fanout]uint64

// inner is the content of an interior page in memory: the references, and the handles of the
// children that were asked for. A page reference with a nil handle was not asked for yet.
// References are stored before handles, so a reader that finds no handle finds the newest
// reference.
type inner struct {
	refs words
	kids [fanout]atomic.Pointer[page]
}

// saveState says whether a store holds the page as it is.
type saveState uint8

const (
	stateClean  saveState = iota // a store has it
	stateDirty                   // no store has it
	stateSaving                  // being saved; dirty again if it changes meanwhile
)

// page is the handle of one page, which is in memory or not. The trees that share pages, of
// head, snapshots and clones, share the handles too.
type page struct {
	leaf  atomic.Pointer[words] // content at level 0, nil if not in memory
	inner atomic.Pointer[inner] // content above, nil if not in memory
	hot   atomic.Uint32         // used since the cache's clock hand passed
	level uint8
	kind  TreeKind
	ref   PageRef
	m     *pager // of the map that made the handle; if the page is unsaved, of the map that owns it

	birth uint64 // generation; 0 until first in memory, then never changed
	seq   uint64 // newest that changed it; guarded by m.mu while mutable

	// state changes under m.mu and the cache's mutex; either is enough to
	// read it. The rest is guarded by the cache's mutex.
	state saveState
	ring  int           // place in the cache's ring, -1 if not in memory
	wait  chan struct{} // closed when the load under way ends
}

// Accounted size of a page in memory: content and handle.
const (
	handleBytes = 128
	leafCost    = pageBytes + handleBytes
	innerCost   = 2*pageBytes + handleBytes
)

func (p *page) cost() int64 {
	if p.level == 0 {
		return leafCost
	}
	return innerCost
}

func (p *page) resident() bool {
	if p.level == 0 {
		return p.leaf.Load() != nil
	}
	return p.inner.Load() != nil
}

// touch keeps the page in memory until the clock's hand has passed once more. Loading before
// storing lets the CPUs share the cache line.
func (p *page) touch() {
	if p.hot.Load() == 0 {
		p.hot.Store(1)
	}
}

// content returns the words as they are encoded, nil if not in memory.
func (p *page) content() *words {
	if p.level == 0 {
		return p.leaf.Load()
	}
	if in := p.inner.Load(); in != nil {
		return &in.refs
	}
	return nil
}

// unsaved reports whether no store holds the page. Pages below the last
// committed checkpoint's NextPage were saved with it.
func (p *page) unsaved() bool {
	return p.state != stateClean && p.ref.Number() >= p.m.savedBelow.Load()
}

// drop takes the content out of memory.
func (p *page) drop() {
	p.leaf.Store(nil)
	p.inner.Store(nil)
}

// root is an immutable state of a tree in memory. page is not nil if ref
// refers to a page.
type root struct {
	ref      PageRef
	page     *page
	levels   uint8
	clusters uint64
}

func (r *root) public() Root { return Root{Page: r.ref, Levels: r.levels, Clusters: r.clusters} }

// stem holds the root of a tree. It is stored under Map.mu, and loaded by anyone.
type stem struct{ atomic.Pointer[root] }

// slot is one place that holds a subtree: a word of an interior page, or a stem if in is nil.
type slot struct {
	in *inner
	i  int
	st *stem
}

func (s slot) ref() PageRef {
	if s.in == nil {
		return s.st.Load().ref
	}
	return PageRef(atomic.LoadUint64(&s.in.refs[s.i]))
}

// set puts another subtree into the slot. Map.mu and the cache's mutex held.
func (s slot) set(ref PageRef, p *page) {
	if s.in == nil {
		r := *s.st.Load()
		r.ref, r.page = ref, p
		s.st.Store(&r)
		return
	}
	atomic.StoreUint64(&s.in.refs[s.i], uint64(ref))
	s.in.kids[s.i].Store(p)
}

// handle returns the handle of the slot's page, and makes one if there is none; nil if the slot
// holds no page. The cache's mutex held.
func (s slot) handle(m *pager, level uint8, kind TreeKind) *page {
	if s.in == nil {
		return s.st.Load().page
	}
	if p := s.in.kids[s.i].Load(); p != nil {
		return p
	}
	ref := s.ref()
	if !ref.IsPage() {
		return nil
	}
	p := m.newHandle(ref, level, kind)
	s.in.kids[s.i].Store(p)
	return p
}
