package trustkeys

import (
	"bytes"
	"context"
	"errors"
	"time"

	"openvstorage/arakoon"
	"openvstorage/internal/keyswap"
	"openvstorage/trust"
)

// Keys implements trust.Store over a member of an Arakoon group. Reads are consistent; a
// swap is one sequence of assertions and replacements. It is safe for concurrent use.
type Keys struct {
	node Node
}

// Node is what Keys needs of a member: an *arakoon.Node.
type Node interface {
	Get(ctx context.Context, c arakoon.Consistency, key []byte) ([]byte, error)
	Prefix(ctx context.Context, c arakoon.Consistency, prefix []byte, limit int, fn func(key, value []byte) bool) error
	Do(ctx context.Context, seq *arakoon.Sequence) ([]arakoon.Result, error)
}

var (
	_ trust.Store = (*Keys)(nil)
	_ Node        = (*arakoon.Node)(nil)
)

// New makes the keys of a node, which the caller closes after whoever uses the keys.
func New(n Node) *Keys { return &Keys{node: n} }

// swapTimeout bounds how long a swap waits for its answer: a full disk can make it wait.
const swapTimeout = time.Minute

// Get implements trust.Store.
func (k *Keys) Get(ctx context.Context, key []byte) (value []byte, err error) {
	err = arakoon.Patiently(ctx, func() error {
		value, err = k.node.Get(ctx, arakoon.Consistent, key)
		return err
	})
	var absent *arakoon.ErrNotFound
	if errors.As(err, &absent) {
		return nil, nil
	}
	return value, err
}

// Range implements trust.Store. fn gets copies: it may keep them.
func (k *Keys) Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error {
	return arakoon.Patiently(ctx, func() error {
		return k.node.Prefix(ctx, arakoon.Consistent, prefix, 0, func(key, value []byte) bool {
			return fn(bytes.Clone(key), bytes.Clone(value))
		})
	})
}

// Swap implements trust.Store. Once it has begun, the end of ctx does not end it: a caller
// that gives up waiting must not leave it open what has happened. A swap whose outcome is
// not known is not tried again, because the retry would find its own values.
func (k *Keys) Swap(ctx context.Context, swaps []keyswap.Swap) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	seq := new(arakoon.Sequence)
	for _, s := range swaps {
		seq.Assert(bytes.Clone(s.Key), bytes.Clone(s.Old))
	}
	for _, s := range swaps {
		if !bytes.Equal(s.Old, s.New) || (s.Old == nil) != (s.New == nil) {
			seq.Replace(bytes.Clone(s.Key), bytes.Clone(s.New))
		}
	}
	err := arakoon.Patiently(ctx, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), swapTimeout)
		defer cancel()
		_, err := k.node.Do(ctx, seq)
		return err
	})
	var other *arakoon.ErrAssert
	if errors.As(err, &other) {
		return false, nil
	}
	return err == nil, err
}
