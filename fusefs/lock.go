package fusefs

import (
	"context"
	"sync"
	"time"
)

// lock is a mutex that may be held over I/O: who waits for it goes when its process
// is killed.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

// take waits for the lock until ctx ends.
func (l lock) take(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// try takes the lock if nobody has it.
func (l lock) try() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}

func (l lock) give() { <-l }

// sharedLock is the same for one or many. Who waits to have it alone is in nobody's
// way.
type sharedLock struct {
	mu     sync.Mutex
	shared int
	alone  bool
	free   chan struct{} // closed when it may be had again; nil: nobody waits
}

// share waits until nobody has the lock alone, or ctx ends.
func (l *sharedLock) share(ctx context.Context) error {
	return l.wait(ctx, func() bool {
		if l.alone {
			return false
		}
		l.shared++
		return true
	})
}

// unshare gives back what share took.
func (l *sharedLock) unshare() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shared--; l.shared == 0 {
		l.tell()
	}
}

// take waits until nobody has the lock, or ctx ends.
func (l *sharedLock) take(ctx context.Context) error {
	return l.wait(ctx, func() bool {
		if l.alone || l.shared > 0 {
			return false
		}
		l.alone = true
		return true
	})
}

// give gives back what take took.
func (l *sharedLock) give() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alone = false
	l.tell()
}

// tell wakes all that wait. l.mu is held.
func (l *sharedLock) tell() {
	if l.free != nil {
		close(l.free)
		l.free = nil
	}
}

func (l *sharedLock) wait(ctx context.Context, try func() bool) error {
	for {
		l.mu.Lock()
		if try() {
			l.mu.Unlock()
			return nil
		}
		if l.free == nil {
			l.free = make(chan struct{})
		}
		free := l.free
		l.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// How often a file's lock is tried that is not free: by who may go meanwhile.
const (
	tryFirst = 100 * time.Microsecond
	tryLast  = 20 * time.Millisecond
)

// until tries something again and again until it succeeds, or ctx ends.
func until(ctx context.Context, try func() bool) error {
	for wait := tryFirst; !try(); wait = min(2*wait, tryLast) {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
