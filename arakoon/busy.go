package arakoon

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How Patiently waits for a node that is busy: 1 ms, 2 ms and so on to 64 ms,
// about 2 s in all.
const (
	BusyWait    = time.Millisecond
	busyTries   = 36
	busyWaitMax = 64 * time.Millisecond
)

// Patiently repeats what a node refused because too much was under way (ErrBusy:
// nothing was done then), until ctx ends or it was tried often enough.
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
