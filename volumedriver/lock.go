package volumedriver

import "context"

// lock is a mutex that may be held while the backend is waited for, so that who
// waits for it can give up.
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
