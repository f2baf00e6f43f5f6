package arakoon

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How Patiently waits for a node that is busy: 1 ms, then twice as long each time up to
// 64 ms, about 2 s in all.
const (
	BusyWait    = time.Millisecond
	busyTries   = 36
	busyWaitMax = 64 * time.Millisecond
)

// Patiently calls do again while a node refuses it with ErrBusy, which says that nothing
// was done. It gives up after about 2 s, or when ctx ends.
func Patiently(ctx context.Context, do func() error) error {
	wait := BusyWait
	for range busyTries {
		err := do()
		if !errors.Is(err, ErrBusy) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		wait = min(2*wait, busyWaitMax)
	}
	return do()
}
