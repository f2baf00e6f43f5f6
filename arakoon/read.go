package arakoon

import (
	"bytes"
	"context"
	"fmt"

	"openvstorage/arakoon/state"
)

// read is a reader that waits to be told which index it must see.
type read struct {
	index chan uint64
	err   chan error
}

// Consistency says what a read sees.
type Consistency struct {
	kind  int
	index uint64
}

// Consistent reads see every write that was answered before they began, and
// only the leader serves them. Local reads see this member's state as it is.
var (
	Consistent = Consistency{}
	Local      = Consistency{kind: 1}
)

// AtLeast reads see the write that returned this index, and all before it, on
// any member; they wait until it is applied.
func AtLeast(index uint64) Consistency { return Consistency{kind: 2, index: index} }

// settle waits until the state may be read.
func (n *Node) settle(ctx context.Context, c Consistency) error {
	if c.kind == Local.kind {
		return n.Err()
	}
	n.mu.Lock()
	err := n.err
	if err == nil && n.reads >= n.opt.Reads {
		err = fmt.Errorf("%w: %d reads wait", ErrBusy, n.reads)
	}
	if err == nil {
		n.reads++
	}
	n.mu.Unlock()
	if err != nil {
		return err
	}
	defer func() {
		n.mu.Lock()
		n.reads--
		n.mu.Unlock()
	}()
	index := c.index
	if c.kind == Consistent.kind {
		r := &read{index: make(chan uint64, 1), err: make(chan error, 1)}
		n.work.put(r)
		select {
		case index = <-r.index:
		case err := <-r.err:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-n.failed:
			return n.Err()
		case <-n.stop:
			return n.Err()
		}
	}
	done := n.progress.wait(index)
	if done == nil {
		return n.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-n.failed:
		err = n.Err()
	case <-n.stop:
		err = n.Err()
	}
	n.progress.forget(done)
	return err
}

// begin settles a read and keeps Close from closing the state under it.
func (n *Node) begin(ctx context.Context, c Consistency) (end func(), err error) {
	if err := n.settle(ctx, c); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return nil, n.err
	}
	n.running.Add(1)
	return n.running.Done, nil
}

// Get returns a key's value, or *ErrNotFound.
func (n *Node) Get(ctx context.Context, c Consistency, key []byte) ([]byte, error) {
	end, err := n.begin(ctx, c)
	if err != nil {
		return nil, err
	}
	defer end()
	v, found, err := n.state.Get(key)
	if err == nil && !found {
		err = &ErrNotFound{Key: bytes.Clone(key)}
	}
	return v, err
}

// MultiGet returns the values of keys at one moment, nil for those absent.
func (n *Node) MultiGet(ctx context.Context, c Consistency, keys ...[]byte) ([][]byte, error) {
	end, err := n.begin(ctx, c)
	if err != nil {
		return nil, err
	}
	defer end()
	return n.state.MultiGet(keys)
}

// Range calls fn with the keys in [first, last) at one moment, ascending, at
// most limit of them if it is above 0, until fn returns false. last nil means
// to the end. fn may keep the slices, and must not close the node.
func (n *Node) Range(ctx context.Context, c Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error {
	return n.scan(ctx, c, first, last, limit, false, fn)
}

// Reverse is Range from the high end.
func (n *Node) Reverse(ctx context.Context, c Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error {
	return n.scan(ctx, c, first, last, limit, true, fn)
}

// Prefix is Range over all keys with a prefix.
func (n *Node) Prefix(ctx context.Context, c Consistency, prefix []byte, limit int, fn func(key, value []byte) bool) error {
	return n.scan(ctx, c, prefix, state.PrefixEnd(prefix), limit, false, fn)
}

func (n *Node) scan(ctx context.Context, c Consistency, first, last []byte, limit int, reverse bool, fn func(key, value []byte) bool) error {
	end, err := n.begin(ctx, c)
	if err != nil {
		return err
	}
	defer end()
	count := 0
	return n.state.Range(first, last, reverse, func(k, v []byte) bool {
		count++
		return fn(k, v) && (limit <= 0 || count < limit)
	})
}
