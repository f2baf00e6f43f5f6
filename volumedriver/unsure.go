package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// unsure is an operation on a vDisk of which it is not known whether it happened,
// or one that has begun and must be finished. An unknown outcome is neither
// success nor failure: the operation counts as still under way. Until its outcome
// is known nothing is acknowledged that it would undo, nor any other operation
// on the vDisk begun. It is found out in the background, and by who asks for the
// next operation.
type unsure struct {
	state  string // StateUnsure or StateDeleting
	what   string // for people: what is not known
	closed bool   // nobody may use the vDisk
	cause  error
	// settle finds out, and does what is left to do. It may be asked again after
	// an error. One call of it runs at a time, and it holds no lock that others
	// wait for: while the vDisk is unsure nobody else changes it, or its name.
	settle func(ctx context.Context) error

	mu      sync.Mutex
	attempt *attempt              // under way, nil if there is none
	last    atomic.Pointer[error] // of the last attempt
}

// attempt is one to find out, for all who wait for it.
type attempt struct {
	done chan struct{}
	err  error // set when done is closed
}

// try joins the attempt that is under way, or has begin begin one.
func (u *unsure) try(begin func(*attempt)) *attempt {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.attempt == nil {
		u.attempt = &attempt{done: make(chan struct{})}
		begin(u.attempt)
	}
	return u.attempt
}

func (u *unsure) tried(a *attempt, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if a.err = err; err != nil {
		u.last.Store(&err)
	}
	u.attempt = nil
	close(a.done)
}

// Waits for an outcome.
const (
	settleMax   = time.Minute            // for one attempt to find out
	settleFirst = 100 * time.Millisecond // before the first in the background
	settleLast  = 5 * time.Second        // between two, at most
)

func (u *unsure) reason() string {
	cause := u.cause
	if last := u.last.Load(); last != nil {
		cause = *last
	}
	return fmt.Sprintf("%s: %v; it is looked into all the time, wait for it", u.what, cause)
}

// refuse is the error of what must wait for the outcome. Nothing has begun.
func (u *unsure) refuse(name string) error {
	return fmt.Errorf("vDisk %q: %s: %w", name, u.reason(), ErrBusy)
}

// sure refuses an operation on a vDisk that is in doubt. Who calls it keeps others
// from putting it in doubt.
func (v *Volume) sure() error {
	if u := v.unsure.Load(); u != nil {
		return u.refuse(v.Name())
	}
	return nil
}

// closedBy is the operation for which nobody may use the vDisk, nil if there is
// none.
func (v *Volume) closedBy() *unsure {
	if u := v.unsure.Load(); u != nil && u.closed {
		return u
	}
	return nil
}

// closeDeleted closes a vDisk of which nothing is to stay.
func (v *Volume) closeDeleted(ctx context.Context) {
	v.stopStorer()
	v.revoke()
	if err := v.close(ctx); err != nil {
		v.log.Warn("deleted vDisk not closed cleanly", "err", err)
	}
}

// errOngoing is the cause of a doubt of which nothing has failed yet.
var errOngoing = errors.New("it is under way")
