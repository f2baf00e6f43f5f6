package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/alba/nsm"
)

// A namespace that gets another NSM host is served by the old one up to its last changes, and by
// the new one from then on. For the few calls between, neither takes writes.
const (
	movingFirst = time.Millisecond       // until a call is made again; then twice as long, and so on
	movingMost  = 100 * time.Millisecond // up to this
	movingLong  = 30 * time.Second       // in all
)

// elsewhere reports whether a namespace's host refused a call because the namespace has another
// host, or will have one soon. Then the call has changed nothing.
func elsewhere(err error) bool { return errors.Is(err, nsm.ErrMoved) || errors.Is(err, nsm.ErrMoving) }

// pause is the wait of a call for a namespace that moves. The zero value has not waited yet.
type pause struct {
	next, waited time.Duration
}

// wait waits before the next try. Its error says why there is to be none.
func (p *pause) wait(ctx context.Context) error {
	p.next = min(max(2*p.next, movingFirst), movingMost)
	if p.waited += p.next; p.waited > movingLong {
		return fmt.Errorf("it has been moving for %v: see whether the move goes on", movingLong)
	}
	t := time.NewTimer(p.next)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
