package ctxlock

import (
	"context"
	"sync"

	"openvstorage/internal/broadcast"
)

// Shared is a lock that one user has alone, or many share. Whoever waits to have it
// alone does not keep others from sharing it, and so may wait for as long as anybody
// shares it. The zero value is a lock that nobody has. Its methods are safe for
// concurrent use; a Shared must not be copied.
type Shared struct {
	mu     sync.Mutex
	shared int
	alone  bool
	free   broadcast.Broadcast // sent when it may be had again
}

// Share waits until nobody has the lock alone, or ctx ends. After an error, that of
// ctx, the caller does not share the lock.
func (l *Shared) Share(ctx context.Context) error {
	return l.wait(ctx, func() bool {
		if l.alone {
			return false
		}
		l.shared++
		return true
	})
}

// Unshare gives back what Share took.
func (l *Shared) Unshare() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shared == 0 {
		panic("ctxlock: a lock is given back that nobody shares")
	}
	if l.shared--; l.shared == 0 {
		l.free.Send()
	}
}

// Take waits until nobody has the lock, alone or shared, or ctx ends. After an error,
// that of ctx, the caller does not have the lock.
func (l *Shared) Take(ctx context.Context) error {
	return l.wait(ctx, func() bool {
		if l.alone || l.shared > 0 {
			return false
		}
		l.alone = true
		return true
	})
}

// Give gives back what Take took.
func (l *Shared) Give() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.alone {
		panic("ctxlock: a lock is given back that nobody has alone")
	}
	l.alone = false
	l.free.Send()
}

// wait calls try under l.mu until it gets the lock: at once, and each time that the
// lock has become free.
func (l *Shared) wait(ctx context.Context, try func() bool) error {
	for {
		l.mu.Lock()
		if try() {
			l.mu.Unlock()
			return nil
		}
		free := l.free.Next()
		l.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
