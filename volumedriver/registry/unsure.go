package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// unsure counts the swaps that were not answered.
type unsure struct {
	sync.Mutex
	swaps   uint64 // so far
	settled uint64 // the first so many of them: each was made, or never will be
}

// Bounds of waiting for an outcome.
const (
	settleMax     = time.Minute // for one attempt to find out
	unansweredMax = 3           // swaps of one change
)

// settle returns when no swap that was not answered is under way any more.
func (r *Registry) settle(ctx context.Context) error {
	r.unsure.Lock()
	swaps, settled := r.unsure.swaps, r.unsure.settled
	r.unsure.Unlock()
	if settled == swaps {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleMax)
	defer cancel()
	if err := r.keys.Settle(ctx); err != nil {
		return fmt.Errorf("the outcome of an earlier change of the registry is not known yet: %w", err)
	}
	r.unsure.Lock()
	defer r.unsure.Unlock()
	r.unsure.settled = max(r.unsure.settled, swaps)
	return nil
}

// findOut finds out whether swaps were made that were answered with the error cause.
// They are of one sequence: all were made, or none.
func (r *Registry) findOut(ctx context.Context, swaps []Swap, cause error) (made bool, err error) {
	r.unsure.Lock()
	r.unsure.swaps++
	r.unsure.Unlock()
	unknown := func(err error) error { return fmt.Errorf("%w: %w", ErrUnknownOutcome, errors.Join(cause, err)) }
	if err := r.settle(ctx); err != nil {
		return false, unknown(err)
	}
	olds, news := true, true
	for _, s := range swaps {
		if same(s.Old, s.New) {
			continue
		}
		now, err := r.keys.Get(ctx, s.Key)
		if err != nil {
			return false, unknown(err)
		}
		olds, news = olds && same(now, s.Old), news && same(now, s.New)
	}
	if !olds && !news {
		// Somebody has changed the keys since, so that they do not tell. Nothing is under
		// way any more: the next call reads the final state.
		return false, unknown(nil)
	}
	return news, nil
}

// same compares values of keys; nil is the value of an absent key.
func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
