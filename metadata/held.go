package metadata

import (
	"context"
	"math"

	"openvstorage/sco"
)

// held is the sum of the live counters. Each change of a counter changes it too. The counters
// of a checkpoint are added by CountHeld, page by page and once.
type held struct {
	clusters int64
	below    uint64 // the counters of SCOs below this number are in clusters; allCounted: all are
}

const allCounted = math.MaxUint64

// follow adds a change of n's counter, unless CountHeld has yet to add that counter. m.mu held.
func (h *held) follow(n sco.Number, delta int64) {
	if uint64(n) < h.below {
		h.clusters += delta
	}
}

// Held is how many clusters of the head are in SCOs of the vDisk's own: never less than the
// truth (M5). Its cost does not depend on the size of the vDisk. known is false until CountHeld
// is done, and after a rollback until Reap has counted.
func (m *Map) Held() (clusters uint64, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held.below != allCounted || m.recount.running() {
		return 0, false
	}
	return uint64(max(m.held.clusters, 0)), true
}

// CountHeld adds up to budget pages of a checkpoint's counters, and returns whether there are
// more. A page has the counters of 512 SCOs.
func (m *Map) CountHeld(ctx context.Context, budget int) (more bool, err error) {
	for ; budget > 0; budget-- {
		done := false
		if err := m.change(ctx, func() (missing *page) {
			done, missing = m.countHeld()
			return missing
		}); err != nil {
			return true, err
		}
		if done {
			return false, nil
		}
	}
	return true, nil
}

// countHeld adds one page of counters. m.mu held.
func (m *Map) countHeld() (done bool, missing *page) {
	h := &m.held
	if h.below == allCounted {
		return true, nil
	}
	r := m.live.Load()
	if !r.holds(h.below) {
		h.below = allCounted
		return true, nil
	}
	w, end, missing := m.seek(r, h.below, TreeLive)
	if missing != nil {
		return false, missing
	}
	if w != nil {
		for _, word := range w {
			live, _, _ := counterOf(word)
			h.clusters += live
		}
	}
	h.below = end
	return false, nil
}

// Bound is an upper limit of how many clusters of the view hold data: for each leaf page that
// exists, all of its clusters count. It reads the pages above the leaves, one for each GiB, and
// keeps none of them in memory.
func (v *View) Bound(ctx context.Context) (clusters uint64, err error) {
	r := v.st.Load()
	if r.page == nil {
		return 0, nil
	}
	leaves, err := v.m.leaves(ctx, r.page, r.ref, r.levels-1)
	return leaves * fanout, err
}

// leaves counts the leaves of the subtree whose page has the level. p is its handle,
// nil if there is none in memory.
func (m *pager) leaves(ctx context.Context, p *page, ref PageRef, level uint8) (n uint64, err error) {
	if err := ctx.Err(); err != nil || level == 0 {
		return 1, err
	}
	var refs words
	var kids [fanout]*page
	if in := resident(p); in != nil {
		m.cache.mu.Lock()
		for i := range refs {
			refs[i], kids[i] = uint64(slot{in: in, i: i}.ref()), in.kids[i].Load()
		}
		m.cache.mu.Unlock()
	} else {
		_, w, err := m.read(ctx, ref, level, TreeMap)
		if err != nil {
			return 0, err
		}
		refs = *w
	}
	for i, word := range refs {
		if !PageRef(word).IsPage() {
			continue
		}
		if level == 1 {
			n++
			continue
		}
		below, err := m.leaves(ctx, kids[i], PageRef(word), level-1)
		if err != nil {
			return 0, err
		}
		n += below
	}
	return n, nil
}

// resident returns the content of a page above leaves that is in memory, else nil.
func resident(p *page) *inner {
	if p == nil {
		return nil
	}
	return p.inner.Load()
}
