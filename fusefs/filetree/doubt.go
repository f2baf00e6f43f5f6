package filetree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// doubt is a change of which it is not known yet whether it was made.
type doubt struct {
	cause   error
	changes []Change
	apply   func() // has memory follow the change; mu is held
}

// settleMax bounds one attempt to find out.
const settleMax = time.Minute

// begin begins a change, or something that no change may interrupt. The caller calls
// end. begin first finds out what became of the change before.
func (t *Tree) begin(ctx context.Context) (end func(), err error) {
	if err := t.change.Take(ctx); err != nil {
		return nil, err
	}
	err = ctx.Err() // a free lock is taken even after the end of ctx
	if err == nil {
		err = t.settle(ctx)
	}
	if err != nil {
		t.change.Give()
		return nil, err
	}
	return t.change.Give, nil
}

// write makes changes durable, and then has memory follow them. t.change is held.
func (t *Tree) write(ctx context.Context, changes []Change, apply func()) error {
	return t.commit(changes, apply, func() error { return t.keys.Write(ctx, changes) })
}

// commit calls write, which makes changes, and has memory follow if they were made. If
// nobody can tell whether they were, it notes that. t.change is held.
func (t *Tree) commit(changes []Change, apply func(), write func() error) error {
	if err := write(); err != nil {
		if !errors.Is(err, ErrNotWritten) {
			t.doubt = &doubt{cause: err, changes: changes, apply: apply}
		}
		return fmt.Errorf("file tree: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	apply()
	return nil
}

// settle finds out whether the change in doubt was made. If it was, all of its keys have
// the values that it gave them: nobody else changes them. t.change is held.
func (t *Tree) settle(ctx context.Context) error {
	d := t.doubt
	if d == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleMax)
	defer cancel()
	err := t.keys.Settle(ctx)
	made := true
	for i := 0; i < len(d.changes) && made && err == nil; i++ {
		made, err = t.holds(ctx, d.changes[i])
	}
	if err != nil {
		// The cause is not wrapped (%v): it is of the change before. What is asked for
		// now has not begun.
		return fmt.Errorf("file tree: whether the change before was made is not known yet (%v): %w: %w", d.cause, ErrNotWritten, err)
	}
	if made {
		t.mu.Lock()
		d.apply()
		t.mu.Unlock()
	}
	t.doubt = nil
	return nil
}

// holds reports whether a key has the value of a change.
func (t *Tree) holds(ctx context.Context, c Change) (same bool, err error) {
	same = c.Value == nil
	err = t.keys.Range(ctx, c.Key, func(k, v []byte) bool {
		if bytes.Equal(k, c.Key) { // it is the first with the prefix
			same = c.Value != nil && bytes.Equal(v, c.Value)
		}
		return false
	})
	return same, err
}
