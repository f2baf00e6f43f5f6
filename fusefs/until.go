package fusefs

import (
	"context"
	"time"
)

// How often a node's lock is tried that is not free: whoever asks for it may go
// meanwhile, which a sync.RWMutex does not allow.
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
