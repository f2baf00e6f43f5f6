package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// unsure is an operation on a vDisk whose outcome is not known, or that has begun and
// must be finished. An unknown outcome is neither success nor failure: the operation
// counts as still under way. Until the outcome is known, nothing is acknowledged that
// the operation would undo, and no other operation on the vDisk begins. The outcome is
// found out in the background, and by whoever asks for the next operation.
type unsure struct {
	state  string // StateUnsure or StateDeleting
	what   string // for people: what is not known
	closed bool   // nobody may use the vDisk
	cause  error
	// settle finds out, and does what is left to do. After an error it may be called
	// again. One call of it runs at a time. It needs no lock: while the vDisk is unsure
	// nobody else changes it, or its name.
	settle func(ctx context.Context) error

	mu      sync.Mutex
	attempt *attempt              // under way, nil if there is none
	last    atomic.Pointer[error] // of the last attempt
}

// attempt is one attempt to find out, shared by all that wait for it.
type attempt struct {
	done chan struct{}
	err  error // set when done is closed
}

// try returns the attempt that is under way. If there is none, begin begins one.
func (u *unsure) try(begin func(*attempt)) *attempt {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.attempt == nil {
		u.attempt = &attempt{done: make(chan struct{})}
		begin(u.attempt)
	}
	return u.attempt
}

// tried ends an attempt, with err if the outcome is still not known.
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

// why is what is not known, and why.
func (u *unsure) why() string {
	cause := u.cause
	if last := u.last.Load(); last != nil {
		cause = *last
	}
	return fmt.Sprintf("%s: %v", u.what, cause)
}

// reason is why with what to do about it.
func (u *unsure) reason() string { return u.why() + "; ovs keeps trying to find out: wait for it" }

// refuse returns the error of an operation that must wait for the outcome, and has not
// begun.
func (u *unsure) refuse(name string) error {
	return fmt.Errorf("vDisk %q: %s: %w", name, u.reason(), ErrBusy)
}

// sure refuses an operation on a vDisk that is unsure. The caller holds what keeps
// others from making it unsure meanwhile.
func (v *Volume) sure() error {
	if u := v.unsure.Load(); u != nil {
		return u.refuse(v.Name())
	}
	return nil
}

// closedBy returns the operation because of which nobody may use the vDisk, nil if
// there is none.
func (v *Volume) closedBy() *unsure {
	if u := v.unsure.Load(); u != nil && u.closed {
		return u
	}
	return nil
}

// closeDeleted closes a vDisk that is deleted: none of its data is needed any more.
func (v *Volume) closeDeleted(ctx context.Context) {
	v.store.stop()
	v.revoke()
	if err := v.close(ctx); err != nil {
		v.log.Warn("deleted vDisk not closed cleanly", "err", err)
	}
}

// errOngoing is the cause of a doubt of which nothing has failed yet.
var errOngoing = errors.New("it is under way")
