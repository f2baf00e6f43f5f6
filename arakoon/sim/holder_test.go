package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"openvstorage/arakoon"

	"github.com/google/uuid"
)

const (
	leaseName = "the lease"
	leaseTTL  = 400 * time.Millisecond
)

// holder wants a lease that others want too, and writes under its fence. It is often so late
// that it has lost the lease, and does not know.
type holder struct {
	*client
	owner uuid.UUID
}

func newHolder(g *group, number int) *holder {
	h := &holder{client: newClient(g, 200+number)}
	h.owner[0] = byte(number + 1)
	return h
}

func (h *holder) run() {
	for h.group.wait(time.Duration(h.rng.Int64N(int64(leaseTTL)))) {
		if one, ok := h.acquire(); ok {
			h.hold(one)
		}
	}
}

// ask asks a member for something. What a life has done that is over is not known.
func (h *holder) ask(do func(ctx context.Context, n *arakoon.Node) error) (err error) {
	n, l := h.reached()
	if n == nil {
		h.at = nil
		return arakoon.ErrNotLeader
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err = do(ctx, n); err == nil && l.over() {
		err = arakoon.ErrUnknownOutcome
	}
	var refused *arakoon.Error
	if err != nil && !errors.As(err, &refused) {
		h.elsewhere(n)
	}
	return err
}

func (h *holder) acquire() (one arakoon.Lease, ok bool) {
	began := h.group.watch.now()
	err := h.ask(func(ctx context.Context, n *arakoon.Node) (err error) {
		one, err = n.Acquire(ctx, leaseName, h.owner, leaseTTL)
		return err
	})
	if err == nil {
		h.group.leases.had(one.Fence, h.owner, began, h.group.watch.now())
	}
	return one, err == nil
}

// hold writes under a lease, and renews it, until that is lost or given back.
func (h *holder) hold(one arakoon.Lease) {
	for h.group.wait(time.Duration(h.rng.Int64N(int64(leaseTTL)))) {
		var err error
		began := h.group.watch.now()
		switch p := h.rng.IntN(10); {
		case p < 5:
			err = h.ask(func(ctx context.Context, n *arakoon.Node) error {
				s := new(arakoon.Sequence).AssertLease(leaseName, one.Fence).Set([]byte("held"), fmt.Appendf(nil, "%d", one.Fence))
				index, _, err := n.Write(ctx, s)
				if err == nil {
					h.group.leases.passed(one.Fence, index)
				}
				return err
			})
		case p < 8:
			err = h.ask(func(ctx context.Context, n *arakoon.Node) (err error) {
				_, err = n.Renew(ctx, one)
				return err
			})
			if err == nil {
				h.group.leases.had(one.Fence, h.owner, began, h.group.watch.now())
			}
		case p < 9:
			h.group.leases.gave(one.Fence)
			_ = h.ask(func(ctx context.Context, n *arakoon.Node) error { return n.Release(ctx, one) })
			return
		default:
			h.group.wait(leaseTTL)
		}
		if errors.Is(err, arakoon.ErrLeaseLost) {
			return
		}
	}
}

// leases are what holders saw of one lease.
type leases struct {
	mu    sync.Mutex
	held  map[uint64]*tenure // by fence
	under map[uint64]uint64  // the fence of each write, by its index
	bad   error
}

// tenure is a lease under one fence.
type tenure struct {
	owner   uuid.UUID
	granted time.Duration // at the latest
	kept    time.Duration // when the last call began that granted or renewed it
	free    bool          // its owner may have given it back
}

func newLeases() *leases {
	return &leases{held: map[uint64]*tenure{}, under: map[uint64]uint64{}}
}

// had notes that an owner was granted a lease, or renewed it.
func (l *leases) had(fence uint64, owner uuid.UUID, began, ended time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.held[fence]
	if t == nil {
		t = &tenure{owner: owner, granted: ended}
		l.held[fence] = t
	}
	if t.owner != owner {
		l.bad = fmt.Errorf("two owners have the lease under fence %d", fence)
	}
	t.granted, t.kept = min(t.granted, ended), max(t.kept, began)
}

// gave notes that an owner is about to give the lease back.
func (l *leases) gave(fence uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.held[fence]; t != nil {
		t.free = true
	}
}

// passed notes that a write under a fence was done.
func (l *leases) passed(fence, index uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.under[index] = fence
}

// judge says what is wrong: of two fences one was there before the other, in the order of
// writes too, and each for its time to live unless it was given back.
func (l *leases) judge() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bad != nil {
		return l.bad
	}
	var indexes, fences []uint64
	for index := range l.under {
		indexes = append(indexes, index)
	}
	slices.Sort(indexes)
	last := uint64(0)
	for _, index := range indexes {
		if fence := l.under[index]; fence < last || fence > index {
			return fmt.Errorf("index %d was written under fence %d, and a write before it under fence %d", index, fence, last)
		}
		last = l.under[index]
	}
	for fence := range l.held {
		fences = append(fences, fence)
	}
	slices.Sort(fences)
	for i, fence := range fences {
		for _, older := range fences[:i] {
			if was, now := l.held[older], l.held[fence]; !was.free && now.granted < was.kept+leaseTTL {
				return fmt.Errorf("the lease was kept under fence %d at %v, and granted under fence %d by %v: it was to be kept for %v", older, was.kept, fence, now.granted, leaseTTL)
			}
		}
	}
	return nil
}
