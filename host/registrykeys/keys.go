package registrykeys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/arakoon"
	"openvstorage/volumedriver/registry"
)

// Keys implements registry.Keys over a member of an Arakoon group. Reads are
// consistent; a swap is one sequence of assertions and replacements.
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
	_ registry.Keys = (*Keys)(nil)
	_ Node          = (*arakoon.Node)(nil)
)

// New makes the keys of a node, which the caller closes after the registry.
func New(n Node) *Keys { return &Keys{node: n} }

// swapTimeout bounds how long a swap waits for its answer: a full disk can make it wait.
const swapTimeout = time.Minute

// Get implements registry.Keys.
func (k *Keys) Get(ctx context.Context, key []byte) (value []byte, err error) {
	err = arakoon.Patiently(ctx, func() error {
		value, err = k.node.Get(ctx, arakoon.Consistent, key)
		return err
	})
	var absent *arakoon.ErrNotFound
	if errors.As(err, &absent) {
		return nil, nil
	}
	return value, translate(err)
}

// Range implements registry.Keys.
func (k *Keys) Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error {
	return translate(arakoon.Patiently(ctx, func() error {
		return k.node.Prefix(ctx, arakoon.Consistent, prefix, 0, fn)
	}))
}

// Swap implements registry.Keys. A swap whose outcome is not known is not tried again,
// because the retry would find its own values in place of the old ones. The registry
// finds out what has happened.
func (k *Keys) Swap(ctx context.Context, swaps []registry.Swap) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("%w: %w", registry.ErrNotSwapped, err)
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
		// A caller that gives up waiting must not leave it open what has happened.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), swapTimeout)
		defer cancel()
		_, err := k.node.Do(ctx, seq)
		return err
	})
	var other *arakoon.ErrAssert
	if errors.As(err, &other) {
		return false, nil
	}
	if err != nil && !errors.Is(err, arakoon.ErrUnknownOutcome) {
		err = fmt.Errorf("%w: %w", registry.ErrNotSwapped, err)
	}
	return err == nil, translate(err)
}

// Settle implements registry.Keys by a sequence of no steps, which comes behind all that
// was proposed before it. What is not in the log by then never gets there.
func (k *Keys) Settle(ctx context.Context) error {
	return translate(arakoon.Patiently(ctx, func() error {
		_, err := k.node.Do(ctx, new(arakoon.Sequence))
		return err
	}))
}

// translate tells a registry what the errors of a node mean that is of no more use.
func translate(err error) error {
	switch {
	case errors.Is(err, arakoon.ErrClosed):
		return fmt.Errorf("%w: %w", registry.ErrClosed, err)
	case errors.Is(err, arakoon.ErrFailed):
		return fmt.Errorf("%w: %w", registry.ErrFailed, err)
	}
	return err
}
