package arakoon

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"openvstorage/arakoon/state"
)

// read waits to be told which index it must see.
type read struct {
	ctx   context.Context // of whoever waits
	index chan uint64
	err   chan error
}

// Consistency says what a read sees.
type Consistency struct {
	kind  int
	index uint64
}

// Consistent reads see every write that was answered before they began; only the
// leader serves them. Local reads see this member's state as it is.
var (
	Consistent = Consistency{}
	Local      = Consistency{kind: 1}
)

// AtLeast reads see the write that returned this index, and all writes before it. Any
// member serves them, once it has applied that write.
func AtLeast(index uint64) Consistency { return Consistency{kind: 2, index: index} }

// readers are the reads that wait until the state may be read.
type readers struct {
	most     int // that may wait
	work     *queue[any]
	progress *progress
	end      *shutdown

	mu      sync.Mutex
	waiting int
}

// enter counts a read in, unless too many wait.
func (r *readers) enter() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting >= r.most {
		return fmt.Errorf("%w: %d reads wait", ErrBusy, r.waiting)
	}
	r.waiting++
	return nil
}

func (r *readers) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting--
}

func (r *readers) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting
}

// settle waits until the state may be read.
func (r *readers) settle(ctx context.Context, c Consistency) error {
	if err := r.end.err(); err != nil || c.kind == Local.kind {
		return err
	}
	if err := r.enter(); err != nil {
		return err
	}
	defer r.leave()
	index := c.index
	if c.kind == Consistent.kind {
		var err error
		if index, err = r.newest(ctx); err != nil {
			return err
		}
	}
	return r.applied(ctx, index)
}

// newest returns the index of the newest write that may have been answered. Only a
// leader knows it, and only after it has heard from a majority that it still leads.
func (r *readers) newest(ctx context.Context) (uint64, error) {
	w := &read{ctx: ctx, index: make(chan uint64, 1), err: make(chan error, 1)}
	r.work.put(w)
	select {
	case index := <-w.index:
		return index, nil
	case err := <-w.err:
		return 0, err
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-r.end.failed:
	case <-r.end.stop:
	}
	return 0, r.end.err()
}

// applied waits until an index is applied.
func (r *readers) applied(ctx context.Context, index uint64) (err error) {
	done := r.progress.wait(index)
	if done == nil {
		return r.end.err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-r.end.failed:
		err = r.end.err()
	case <-r.end.stop:
		err = r.end.err()
	}
	r.progress.forget(done)
	return err
}

// begin settles a read, and keeps Close from closing the state until end is called.
func (r *readers) begin(ctx context.Context, c Consistency) (end func(), err error) {
	if err := r.settle(ctx, c); err != nil {
		return nil, err
	}
	return r.end.hold()
}

// Get returns a key's value, or *ErrNotFound.
func (q QueryCalls) Get(ctx context.Context, c Consistency, key []byte) ([]byte, error) {
	end, err := q.node.readers.begin(ctx, c)
	if err != nil {
		return nil, err
	}
	defer end()
	v, found, err := q.node.state.Get(key)
	if err == nil && !found {
		err = &ErrNotFound{Key: bytes.Clone(key)}
	}
	return v, err
}

// MultiGet returns the values of keys at one moment, nil for those absent.
func (q QueryCalls) MultiGet(ctx context.Context, c Consistency, keys ...[]byte) ([][]byte, error) {
	end, err := q.node.readers.begin(ctx, c)
	if err != nil {
		return nil, err
	}
	defer end()
	return q.node.state.MultiGet(keys)
}

// Range calls fn with the keys in [first, last), ascending, as they are at one moment.
// It ends when fn returns false, and after limit keys if limit is above 0. A last of nil
// means to the end. fn may keep the slices, and must not close the node.
func (q QueryCalls) Range(ctx context.Context, c Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error {
	return q.visit(ctx, c, first, last, limit, false, fn)
}

// Reverse is Range from the high end.
func (q QueryCalls) Reverse(ctx context.Context, c Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error {
	return q.visit(ctx, c, first, last, limit, true, fn)
}

// Prefix is Range over all keys with a prefix.
func (q QueryCalls) Prefix(ctx context.Context, c Consistency, prefix []byte, limit int, fn func(key, value []byte) bool) error {
	return q.visit(ctx, c, prefix, state.PrefixEnd(prefix), limit, false, fn)
}

func (q QueryCalls) visit(ctx context.Context, c Consistency, first, last []byte, limit int, reverse bool, fn func(key, value []byte) bool) error {
	end, err := q.node.readers.begin(ctx, c)
	if err != nil {
		return err
	}
	defer end()
	count := 0
	return q.node.state.Range(first, last, reverse, func(k, v []byte) bool {
		count++
		return fn(k, v) && (limit <= 0 || count < limit)
	})
}
