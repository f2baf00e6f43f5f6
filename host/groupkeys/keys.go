package groupkeys

import (
	"bytes"
	"context"
	"errors"
	"time"

	"openvstorage/arakoon"
	"openvstorage/internal/keyswap"
	"openvstorage/trust"
)

// Keys are those of a group, over a member of it. Reads are consistent; a swap is one sequence
// of assertions and replacements. All methods are safe for concurrent use, and errors are those
// of package arakoon. The caller closes the node after whoever uses the keys.
type Keys struct {
	Node Node
}

// Node is what Keys needs of a member: an *arakoon.Node.
type Node interface {
	Get(ctx context.Context, c arakoon.Consistency, key []byte) ([]byte, error)
	Prefix(ctx context.Context, c arakoon.Consistency, prefix []byte, limit int, fn func(key, value []byte) bool) error
	Do(ctx context.Context, seq *arakoon.Sequence) ([]arakoon.Result, error)
}

var (
	_ Node        = (*arakoon.Node)(nil)
	_ trust.Store = (*Keys)(nil)
)

// SwapTime bounds how long a swap waits for its answer, though whoever asked for it waits no
// more: a full disk can make it wait.
const SwapTime = time.Minute

// Get returns a key's value, nil if it is absent.
func (k *Keys) Get(ctx context.Context, key []byte) (value []byte, err error) {
	err = arakoon.Patiently(ctx, func() error {
		value, err = k.Node.Get(ctx, arakoon.Consistent, key)
		return err
	})
	var absent *arakoon.ErrNotFound
	if errors.As(err, &absent) {
		return nil, nil
	}
	return value, err
}

// Range calls fn for the keys with a prefix, ascending, until it returns false. fn may keep
// what it gets.
func (k *Keys) Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error {
	return arakoon.Patiently(ctx, func() error {
		return k.Node.Prefix(ctx, arakoon.Consistent, prefix, 0, fn)
	})
}

// Swap gives keys their new values if all have their old ones, nil for absent, and reports
// whether it did. Once it has begun, the end of ctx does not end it: a caller that gives up
// waiting must not leave it open what has happened. A swap whose outcome is not known is not
// tried again, because the retry would find its own values in place of the old ones. Any other
// error says that nothing was done.
func (k *Keys) Swap(ctx context.Context, swaps []keyswap.Swap) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	seq := new(arakoon.Sequence)
	for _, s := range swaps {
		seq.Assert(s.Key, s.Old)
	}
	for _, s := range swaps {
		if !bytes.Equal(s.Old, s.New) || (s.Old == nil) != (s.New == nil) {
			seq.Replace(s.Key, s.New)
		}
	}
	err := arakoon.Patiently(ctx, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), SwapTime)
		defer cancel()
		_, err := k.Node.Do(ctx, seq)
		return err
	})
	var other *arakoon.ErrAssert
	if errors.As(err, &other) {
		return false, nil
	}
	return err == nil, err
}

// Settle does a sequence of no steps, which comes behind all that was proposed before it.
// What is not in the log by then never gets there.
func (k *Keys) Settle(ctx context.Context) error {
	return arakoon.Patiently(ctx, func() error {
		_, err := k.Node.Do(ctx, new(arakoon.Sequence))
		return err
	})
}
