// Package ctxlock has locks that may be held over I/O: whoever waits for one gives up
// when its context ends.
package ctxlock

import "context"

// Lock is a mutex that is waited for with a context. Make it with New: the zero value
// cannot be taken. Its methods are safe for concurrent use.
type Lock struct {
	held chan struct{} // has one element while somebody has the lock
}

// New returns a lock that nobody has.
func New() Lock { return Lock{held: make(chan struct{}, 1)} }

// Take waits for the lock until ctx ends. After an error, that of ctx, the caller does
// not have the lock. A lock that is free may be taken with a context that has ended.
func (l Lock) Take(ctx context.Context) error {
	select {
	case l.held <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Try takes the lock if nobody has it, and reports whether it did.
func (l Lock) Try() bool {
	select {
	case l.held <- struct{}{}:
		return true
	default:
		return false
	}
}

// Give gives back a lock that the caller has.
func (l Lock) Give() {
	select {
	case <-l.held:
	default:
		panic("ctxlock: a lock is given back that nobody has")
	}
}
