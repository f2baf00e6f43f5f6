package metadata

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"

	"openvstorage/sco"
)

// View reads one state of the map: a snapshot, or the head with every change to it. A View
// that Snapshot returns shares its pages with the head. A View costs a handle, and is not
// closed. All methods are safe for concurrent use with each other and with changes. A read
// beside a change of the same cluster sees the old or the new location.
type View struct {
	m  *Map
	st *stem
}

// View returns the view of the head.
func (m *Map) View() *View { return &View{m: m, st: &m.head} }

// ViewAt returns a view of a snapshot's root. Keep the View while the snapshot is read: each
// call of ViewAt may begin with no page in memory.
func (m *Map) ViewAt(r Root) *View {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := &View{m: m, st: new(stem)}
	v.st.Store(m.rootAt(r, TreeMap, nil))
	return v
}

// Root returns the root that the view reads now. The root of the head changes; only Snapshot
// and Freeze return one that does not.
func (v *View) Root() Root { return v.st.Load().public() }

// Clusters returns the size of the viewed state.
func (v *View) Clusters() uint64 { return v.st.Load().clusters }

// Lookup fills dst with the locations of consecutive clusters from addr on; a cluster outside
// of the vDisk is Hole. It takes no lock, allocates nothing and does not wait. It returns
// false, with dst partly filled, if a page is not in memory; Load and Read wait for pages.
func (v *View) Lookup(addr uint64, dst []sco.Location) bool {
	r := v.st.Load()
	for len(dst) > 0 {
		n, ok := lookup(r, addr, dst)
		if !ok {
			return false
		}
		dst = dst[n:]
		addr += uint64(n)
	}
	return true
}

// lookup fills the part of dst that lies in one leaf or uniform subtree.
func lookup(r *root, addr uint64, dst []sco.Location) (n int, ok bool) {
	if !r.holds(addr) {
		clear(dst)
		return len(dst), true
	}
	p, level := r.page, r.levels-1
	if p == nil {
		return uniform(dst, r.ref, addr, r.levels), true
	}
	for level > 0 {
		in := p.inner.Load()
		if in == nil {
			return 0, false
		}
		p.touch()
		i := slotOf(addr, level)
		if p = in.kids[i].Load(); p == nil {
			ref := PageRef(atomic.LoadUint64(&in.refs[i]))
			if ref.IsPage() {
				return 0, false
			}
			return uniform(dst, ref, addr, level), true
		}
		level--
	}
	w := p.leaf.Load()
	if w == nil {
		return 0, false
	}
	p.touch()
	i := int(addr & (fanout - 1))
	n = min(len(dst), fanout-i)
	from := w[i : i+n]
	dst = dst[:n]
	for j := range from {
		dst[j] = sco.Location(atomic.LoadUint64(&from[j]))
	}
	return n, true
}

// uniform fills dst up to the end of the uniform subtree of 512^level addresses that addr is
// in, and returns how many words that are.
func uniform(dst []sco.Location, ref PageRef, addr uint64, level uint8) int {
	left := span(level) - addr&(span(level)-1)
	n := int(min(uint64(len(dst)), left))
	for i := range dst[:n] {
		dst[i] = sco.Location(ref)
	}
	return n
}

// holds reports whether addr is within the tree's capacity.
func (r *root) holds(addr uint64) bool { return bits.Len64(addr) <= fanoutLog2*int(r.levels) }

// Read is Lookup that waits for pages.
func (v *View) Read(ctx context.Context, addr uint64, dst []sco.Location) error {
	for len(dst) > 0 {
		w, ref, end, err := v.m.find(ctx, v.st, addr, TreeMap)
		if err != nil {
			return err
		}
		n := int(min(uint64(len(dst)), end-addr))
		for i := range dst[:n] {
			if w == nil {
				dst[i] = sco.Location(ref)
			} else {
				dst[i] = sco.Location(atomic.LoadUint64(&w[int(addr&(fanout-1))+i]))
			}
		}
		dst = dst[n:]
		addr += uint64(n)
	}
	return nil
}

// Load brings the pages for n clusters from addr on into memory. They are all there
// afterwards only if the cache has room for all.
func (v *View) Load(ctx context.Context, addr, n uint64) error {
	for end := addr + n; addr < end; {
		_, _, next, err := v.m.find(ctx, v.st, addr, TreeMap)
		if err != nil {
			return err
		}
		addr = next
	}
	return nil
}

// Extents calls fn with the kinds of n clusters from addr on, in order and with equal
// neighbours merged, until fn returns false. A subtree of holes or zeros is one step.
func (v *View) Extents(ctx context.Context, addr, n uint64, fn func(kind sco.Kind, run uint64) bool) error {
	var kind sco.Kind
	var run uint64
	emit := func(k sco.Kind, n uint64) bool {
		if k != kind && run > 0 {
			if !fn(kind, run) {
				return false
			}
			run = 0
		}
		kind = k
		run += n
		return true
	}
	for end := addr + n; addr < end; {
		w, ref, next, err := v.m.find(ctx, v.st, addr, TreeMap)
		if err != nil {
			return err
		}
		next = min(next, end)
		if w == nil {
			if !emit(sco.Location(ref).Kind(), next-addr) {
				return nil
			}
		} else {
			for a := addr; a < next; a++ {
				if !emit(sco.Location(atomic.LoadUint64(&w[a&(fanout-1)])).Kind(), 1) {
					return nil
				}
			}
		}
		addr = next
	}
	if run > 0 {
		fn(kind, run)
	}
	return nil
}

// find is descend from the root that st holds now. A slow reader may follow a reference that
// the head no longer has, to a page that Sweep has deleted meanwhile. It begins again at the
// root, where there is another reference by now.
func (m *pager) find(ctx context.Context, st *stem, addr uint64, kind TreeKind) (w *words, ref PageRef, end uint64, err error) {
	for range 3 {
		w, ref, end, err = m.descend(ctx, st.Load(), addr, kind)
		if err == nil || !errors.Is(err, ErrPageNotFound) {
			break
		}
	}
	return w, ref, end, err
}

// descend finds the words of the leaf that holds addr, or the uniform reference above it, and
// the address where that ends. It loads pages that are not in memory. The words may be read
// even after the page has left memory.
func (m *pager) descend(ctx context.Context, r *root, addr uint64, kind TreeKind) (w *words, ref PageRef, end uint64, err error) {
	if !r.holds(addr) {
		return nil, HoleRef, ^uint64(0), nil
	}
	p, level, ref := r.page, r.levels-1, r.ref
	for end = span(r.levels); p != nil; level-- {
		if level == 0 {
			if w, err = leafOf(ctx, m, p); err != nil {
				return nil, 0, 0, err
			}
			return w, 0, addr&^(fanout-1) + fanout, nil
		}
		in, err := innerOf(ctx, m, p)
		if err != nil {
			return nil, 0, 0, err
		}
		end = addr&^(span(level)-1) + span(level)
		if p, ref = m.kid(in, slotOf(addr, level), level-1, kind); p == nil && ref.IsPage() {
			return nil, 0, 0, fmt.Errorf("metadata: vDisk %s: no handle for %v", m.volume, ref)
		}
	}
	return nil, ref, end, nil
}

// kid returns the handle of a child, or nil and its uniform reference.
func (m *pager) kid(in *inner, i int, level uint8, kind TreeKind) (*page, PageRef) {
	if p := in.kids[i].Load(); p != nil {
		return p, p.ref
	}
	m.cache.mu.Lock()
	defer m.cache.mu.Unlock()
	s := slot{in: in, i: i}
	return s.handle(m, level, kind), s.ref()
}

// innerOf returns p's content, and loads it if it is not in memory. The caller may read it
// even after the page has left memory.
func innerOf(ctx context.Context, m *pager, p *page) (*inner, error) {
	for {
		if in := p.inner.Load(); in != nil {
			p.touch()
			return in, nil
		}
		if err := m.faultAndTrim(ctx, p); err != nil {
			return nil, err
		}
	}
}

// leafOf is innerOf at level 0.
func leafOf(ctx context.Context, m *pager, p *page) (*words, error) {
	for {
		if w := p.leaf.Load(); w != nil {
			p.touch()
			return w, nil
		}
		if err := m.faultAndTrim(ctx, p); err != nil {
			return nil, err
		}
	}
}

// faultAndTrim is fault for readers. A read is not refused because the cache could not be
// brought back within its budget; Prepare returns that error to writers.
func (m *pager) faultAndTrim(ctx context.Context, p *page) error {
	if err := m.fault(ctx, p); err != nil {
		return err
	}
	_ = m.cache.trim(ctx)
	return nil
}
