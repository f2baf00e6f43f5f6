package volumedriver

import (
	"context"
	"sync/atomic"

	"openvstorage/metadata"
	"openvstorage/sco"
)

// bound is how many clusters may hold data, at most, if that is known.
type bound struct {
	known atomic.Uint64 // the number and one; 0: not known
}

func (b *bound) set(clusters uint64) { b.known.Store(clusters + 1) }

func (b *bound) forget() { b.known.Store(0) }

// bytes returns the bound in bytes with so many more clusters, up to size.
func (b *bound) bytes(size, more uint64) uint64 {
	n := b.known.Load()
	if n == 0 {
		return size
	}
	return min(size, (n-1+more)*sco.ClusterSize)
}

// boundMax is the size in bytes of the largest vDisk whose bounds are counted, which
// reads a page for each GiB.
const boundMax = 8 << 40

// countBounds counts what no counter tells: what a clone has of its ancestors, and
// what snapshots hold that were taken before this opening. It does one at a time;
// more says that there are others.
func (v *Volume) countBounds(ctx context.Context) (more bool) {
	if v.self > 0 && v.inherited.known.Load() == 0 {
		before := v.heads.Load()
		n, ok := v.countBound(ctx, v.head, v.size.Load())
		if ok && v.heads.Load() == before {
			v.inherited.set(n)
			if v.heads.Load() != before { // a rollback has forgotten it before it was set
				v.inherited.forget()
			}
		}
		return ok
	}
	v.mu.Lock()
	var next *snapshot
	for _, s := range v.snapshots {
		if s.held.known.Load() == 0 && s.Size <= boundMax {
			next = s
			break
		}
	}
	v.mu.Unlock()
	if next == nil {
		return false
	}
	n, ok := v.countBound(ctx, next.view, next.Size)
	if ok {
		next.held.set(n)
	}
	return ok
}

func (v *Volume) countBound(ctx context.Context, view *metadata.View, size uint64) (clusters uint64, ok bool) {
	if size > boundMax {
		return 0, false
	}
	n, err := view.Bound(ctx)
	return n, err == nil
}
