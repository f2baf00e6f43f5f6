package metadata

import (
	"context"
	"math"

	"openvstorage/sco"
)

// held is the sum of the live counters. It follows each change of one; what a
// checkpoint brought is added page by page once, by CountHeld.
type held struct {
	clusters int64
	below    uint64 // counters of SCOs below are in it; allCounted: all are
}

const allCounted = math.MaxUint64

// follow adds a change of n's counter, unless CountHeld will come by it. m.mu held.
func (h *held) follow(n sco.Number, delta int64) {
	if uint64(n) < h.below {
		h.clusters += delta
	}
}

// Held is how many clusters of the head are in SCOs of the vDisk's own: never
// less than the truth (M5). It costs the same whatever the size. known is false
// until CountHeld is done, and after a rollback until Reap has counted.
func (m *Map) Held() (clusters uint64, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held.below != allCounted || m.recount.running() {
		return 0, false
	}
	return uint64(max(m.held.clusters, 0)), true
}

// CountHeld adds up to budget pages of counters that a checkpoint brought, and
// returns whether there are more. A page has the counters of 512 SCOs.
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
