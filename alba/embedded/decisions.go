package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"openvstorage/arakoon"
)

// decisions brings changes to the ABM, and what the ABM has decided to those who
// follow it.
type decisions struct {
	carry  func(context.Context) error // tells the NSM host
	follow func(context.Context) error // makes the fleet what the ABM says

	unsettled atomic.Bool // the ABM may have decided what nobody follows yet
}

const (
	// decideMax is how long the ABM is asked for a change whose outcome is unknown.
	decideMax   = time.Minute
	decidePause = 50 * time.Millisecond
)

// decide asks the ABM for a change until the ABM answers, as others must be told what
// it decides. The change must do nothing when it is asked for again. If the ABM does
// not answer in decideMax, what it has decided is followed later: see settleLate. The
// end of ctx does not end decide.
func (d *decisions) decide(ctx context.Context, change func(ctx context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), decideMax)
	defer cancel()
	for {
		err := change(ctx)
		if !errors.Is(err, arakoon.ErrUnknownOutcome) {
			return err
		}
		d.unsettled.Store(true)
		select {
		case <-time.After(decidePause):
		case <-ctx.Done():
			return fmt.Errorf("the ABM has not answered; what it decides is followed when it does: %w", err)
		}
	}
}

// settle tells the NSM host and the fleet what the ABM has decided.
func (d *decisions) settle(ctx context.Context) error {
	d.unsettled.Store(false) // before the ABM is read: what it decides later counts again
	err := d.carry(ctx)
	if err == nil {
		err = d.follow(ctx)
	}
	if err != nil {
		d.unsettled.Store(true)
	}
	return err
}

// settleLate is settle, if an earlier change or settle has left something to follow.
func (d *decisions) settleLate(ctx context.Context) error {
	if !d.unsettled.Load() {
		return nil
	}
	return d.settle(ctx)
}
