package registrykeys

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/arakoon"
	"openvstorage/host/groupkeys"
	"openvstorage/volumedriver/registry"
)

// Keys implements registry.Keys over a member of an Arakoon group.
type Keys struct {
	keys groupkeys.Keys
}

// Node is what Keys needs of a member: an *arakoon.Node.
type Node = groupkeys.Node

var _ registry.Keys = (*Keys)(nil)

// New makes the keys of a node, which the caller closes after the registry.
func New(n Node) *Keys { return &Keys{groupkeys.Keys{Node: n}} }

// Get implements registry.Keys.
func (k *Keys) Get(ctx context.Context, key []byte) (value []byte, err error) {
	value, err = k.keys.Get(ctx, key)
	return value, translate(err)
}

// Range implements registry.Keys.
func (k *Keys) Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error {
	return translate(k.keys.Range(ctx, prefix, fn))
}

// Swap implements registry.Keys. Of a swap whose outcome is not known the registry finds out
// what has happened.
func (k *Keys) Swap(ctx context.Context, swaps []registry.Swap) (bool, error) {
	done, err := k.keys.Swap(ctx, swaps)
	if err != nil && !errors.Is(err, arakoon.ErrUnknownOutcome) {
		err = fmt.Errorf("%w: %w", registry.ErrNotSwapped, err)
	}
	return done, translate(err)
}

// Settle implements registry.Keys.
func (k *Keys) Settle(ctx context.Context) error { return translate(k.keys.Settle(ctx)) }

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
