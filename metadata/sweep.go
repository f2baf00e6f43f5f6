package metadata

import (
	"context"
	"fmt"
	"math/bits"
)

// Sweep deletes pages of the vDisk from the store that no root reaches. It looks at pages below
// the NextPage of the newest committed checkpoint, or below the given number if that is less.
// snapshots are the roots of all snapshots. The map itself knows the other roots: the newest
// checkpoint, each Frozen that is not committed, the head, and those of Reap's work. While it
// runs no snapshot may be deleted and no Rollback made. It reads interior pages only.
//
// It returns the set of live pages and how many it deleted. By the set the caller finds page
// objects in the backend that hold no live page.
func (m *Map) Sweep(ctx context.Context, snapshots []Root, below uint64) (*PageSet, int, error) {
	trees, below := m.sweepRoots(snapshots, below)
	set := new(PageSet)
	w := walker{m: m, visited: make(map[uint64]struct{}), leaf: func(ref PageRef, _ *page) { set.Add(ref.Number()) }}
	for _, t := range trees {
		if err := w.walk(ctx, t); err != nil {
			return nil, 0, fmt.Errorf("metadata: vDisk %s: mark live pages: %w", m.volume, err)
		}
	}
	deleted := 0
	for from := uint64(0); from < below; {
		dead, n, next, err := m.deadPages(ctx, set, from, below)
		if err != nil {
			return nil, deleted, err
		}
		for _, r := range dead {
			if err := m.store.DeletePages(ctx, m.volume, r[0], r[1]); err != nil {
				return nil, deleted, fmt.Errorf("metadata: vDisk %s: delete dead pages %d to %d: %w", m.volume, r[0], r[1], err)
			}
		}
		deleted += n
		from = next
	}
	return set, deleted, nil
}

// sweepRoots returns every root whose pages must stay. It pins the present state, so that the
// trees do not change while they are walked (M2).
func (m *Map) sweepRoots(snapshots []Root, below uint64) ([]tree, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gen++
	trees := []tree{{m.head.Load(), TreeMap}}
	trees = append(trees, m.counterTrees()...)
	for _, f := range m.frozen {
		trees = append(trees, f.trees...)
	}
	trees = append(trees, m.pinnedTrees()...)
	for _, s := range append(snapshots[:len(snapshots):len(snapshots)], m.committed.Root) {
		trees = append(trees, tree{m.rootAt(s, TreeMap, nil), TreeMap})
	}
	trees = append(trees, tree{m.rootAt(m.committed.Live, TreeLive, nil), TreeLive})
	for _, d := range m.committed.Drops {
		trees = append(trees, tree{m.rootAt(Root{Page: d.Page, Levels: d.Level + 1}, TreeMap, nil), TreeMap})
	}
	return trees, min(below, m.committed.NextPage)
}

// deadPages lists a bounded number of ranges without live pages.
func (m *Map) deadPages(ctx context.Context, set *PageSet, from, below uint64) (ranges [][2]uint64, n int, next uint64, err error) {
	const rangesMax = 4096
	open := false // the last range may grow
	next = below
	err = m.store.ListPages(ctx, m.volume, from, below, func(number uint64) bool {
		if set.Has(number) {
			open = false
			return true
		}
		if !open && len(ranges) == rangesMax {
			next = number
			return false
		}
		if !open {
			ranges = append(ranges, [2]uint64{number, 0})
			open = true
		}
		ranges[len(ranges)-1][1] = number + 1
		n++
		return true
	})
	if err != nil {
		return nil, 0, 0, fmt.Errorf("metadata: vDisk %s: list pages: %w", m.volume, err)
	}
	return ranges, n, next, nil
}

// PageSet is a set of page numbers.
type PageSet struct {
	chunks map[uint64]*[64]uint64 // by number / 4096
	n      uint64
}

// Add puts a number in.
func (s *PageSet) Add(number uint64) {
	if s.chunks == nil {
		s.chunks = make(map[uint64]*[64]uint64)
	}
	c := s.chunks[number>>12]
	if c == nil {
		c = new([64]uint64)
		s.chunks[number>>12] = c
	}
	word, bit := &c[number>>6&63], uint64(1)<<(number&63)
	if *word&bit == 0 {
		*word |= bit
		s.n++
	}
}

// Has reports whether the number is in the set.
func (s *PageSet) Has(number uint64) bool {
	c := s.chunks[number>>12]
	return c != nil && c[number>>6&63]>>(number&63)&1 == 1
}

// Len returns how many numbers the set has.
func (s *PageSet) Len() uint64 { return s.n }

// Count returns how many numbers of the set are in [first, end).
func (s *PageSet) Count(first, end uint64) uint64 {
	n := uint64(0)
	for first < end {
		base := first &^ 63
		mask := ^uint64(0) << (first - base)
		next := base + 64
		if next > end {
			mask &= 1<<(end-base) - 1
		}
		c := s.chunks[first>>12]
		switch {
		case c == nil:
			next = first&^4095 + 4096
		default:
			n += uint64(bits.OnesCount64(c[first>>6&63] & mask))
		}
		first = next
	}
	return n
}
