package volumedriver

import (
	"context"
	"sync/atomic"

	"openvstorage/metadata"
	"openvstorage/sco"
)

// bound is how many clusters hold data at most, if that is known.
type bound struct {
	known atomic.Uint64 // the number plus one; 0: not known
}

func (b *bound) set(clusters uint64) { b.known.Store(clusters + 1) }

func (b *bound) forget() { b.known.Store(0) }

// bytes is the bound and more clusters, in bytes; at most size, which it is too if the
// bound is not known.
func (b *bound) bytes(size, more uint64) uint64 {
	n := b.known.Load()
	if n == 0 {
		return size
	}
	return min(size, (n-1+more)*sco.ClusterSize)
}

// boundMax is the size in bytes of the largest vDisk whose bounds are counted: counting
// reads a page of the map for each GiB.
const boundMax = 8 << 40

// bounds tells how much of a vDisk and of its snapshots is allocated, at most. The map
// counts what the vDisk has written itself; the rest is counted here, once.
type bounds struct {
	*core
	tree *snapshotTree

	inherited bound         // what a clone has of its ancestors
	heads     atomic.Uint64 // counts rollbacks
}

// rollingBack and rolledBack are called before and after the map rolls back: what was
// counted of the live state, or is being counted, holds no longer.
func (b *bounds) rollingBack() { b.inherited.forget() }

func (b *bounds) rolledBack() {
	b.heads.Add(1)
	b.inherited.forget()
}

// count counts what no counter tells: what a clone has of its ancestors, and what
// snapshots hold that were taken before this opening. It counts one of them; more says
// that there are others.
func (b *bounds) count(ctx context.Context) (more bool) {
	if b.self > 0 && b.inherited.known.Load() == 0 {
		before := b.heads.Load()
		n, ok := b.countOne(ctx, b.head, b.size.Load())
		if ok && b.heads.Load() == before {
			b.inherited.set(n)
			if b.heads.Load() != before { // a rollback has forgotten it before it was set
				b.inherited.forget()
			}
		}
		return ok
	}
	next := b.tree.first(func(s *snapshot) bool { return s.held.known.Load() == 0 && s.Size <= boundMax })
	if next == nil {
		return false
	}
	n, ok := b.countOne(ctx, next.view, next.Size)
	if ok {
		next.held.set(n)
	}
	return ok
}

// countOne counts the clusters of a view of size bytes. ok is false if it could not.
func (b *bounds) countOne(ctx context.Context, view *metadata.View, size uint64) (clusters uint64, ok bool) {
	if size > boundMax {
		return 0, false
	}
	n, err := view.Bound(ctx)
	return n, err == nil
}

// allocated is Stat.Allocated, of a vDisk of size bytes.
func (b *bounds) allocated(size uint64) uint64 {
	if b.m == nil {
		return size
	}
	clusters, known := b.m.Held()
	switch {
	case !known:
		return size
	case b.self > 0:
		return b.inherited.bytes(size, clusters) // ancestors' have no counters
	}
	return min(size, clusters*sco.ClusterSize)
}

// countHeld has the map count what its last checkpoint holds. It is tried again by
// each step of the storer.
func (b *bounds) countHeld(ctx context.Context) (more bool) {
	more, err := b.m.CountHeld(ctx, reapPages)
	return more && err == nil
}
