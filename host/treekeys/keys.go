package treekeys

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/arakoon"
	"openvstorage/fusefs/filetree"
)

// Keys implements filetree.Keys over a member of an Arakoon group. Reads are
// consistent; a write is one sequence.
type Keys struct {
	node Node
}

// Node is what Keys needs of a member: an *arakoon.Node.
type Node interface {
	Prefix(ctx context.Context, c arakoon.Consistency, prefix []byte, limit int, fn func(key, value []byte) bool) error
	Do(ctx context.Context, seq *arakoon.Sequence) ([]arakoon.Result, error)
}

var (
	_ filetree.Keys = (*Keys)(nil)
	_ Node          = (*arakoon.Node)(nil)
)

// New makes the keys of a node, which the caller closes after the mount.
func New(n Node) *Keys { return &Keys{node: n} }

// writeTimeout bounds how long a write waits for its answer: a full disk can make it
// wait.
const writeTimeout = time.Minute

// Range implements filetree.Keys.
func (k *Keys) Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error {
	return arakoon.Patiently(ctx, func() error {
		return k.node.Prefix(ctx, arakoon.Consistent, prefix, 0, fn)
	})
}

// Write implements filetree.Keys. Once it has begun, the end of ctx does not end it: a
// caller that gives up waiting must not leave it open what has happened.
func (k *Keys) Write(ctx context.Context, changes []filetree.Change) error {
	seq := new(arakoon.Sequence)
	for _, c := range changes {
		if c.Value != nil {
			seq.Set(c.Key, c.Value)
		} else {
			seq.Replace(c.Key, nil) // which takes an absent one as well
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	err := arakoon.Patiently(ctx, func() error {
		_, err := k.node.Do(ctx, seq)
		return err
	})
	if err != nil && !errors.Is(err, arakoon.ErrUnknownOutcome) {
		return fmt.Errorf("%w: %w", filetree.ErrNotWritten, err)
	}
	return err
}

// Settle implements filetree.Keys by a sequence of no steps, which comes behind all that
// was proposed before it. What is not in the log by then never gets there.
func (k *Keys) Settle(ctx context.Context) error {
	return arakoon.Patiently(ctx, func() error {
		_, err := k.node.Do(ctx, new(arakoon.Sequence))
		return err
	})
}
