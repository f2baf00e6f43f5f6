package writebuffer

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// fate is whether a log can still be written, and whether whoever lacks room waits
// for it. It has no lock of its own. fail takes that of rounds, so it
// may be called under any other.
type fate struct {
	owner  Owner
	rounds *rounds // whose waiters are told of the end

	failed  atomic.Pointer[error]
	refusal atomic.Pointer[error] // what appends that lack room get instead of waiting
	ended   chan struct{}         // closed when the log has failed
}

// err is why the log can no longer be written, or nil.
func (f *fate) err() error {
	if p := f.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// fail ends the log. The first error counts.
func (f *fate) fail(err error) {
	if f.failed.CompareAndSwap(nil, &err) {
		close(f.ended)
		f.owner.Failed(err)
	}
	f.rounds.Lock()
	f.rounds.tellLocked()
	f.rounds.Unlock()
}

// refused is what whoever lacks room gets instead of waiting, nil if it waits.
func (f *fate) refused() error {
	if p := f.refusal.Load(); p != nil {
		return *p
	}
	return nil
}

// refuse sets what refused returns.
func (f *fate) refuse(err error) {
	if err == nil {
		f.refusal.Store(nil)
		return
	}
	f.refusal.Store(&err)
}

// roomWait is how long at most is waited before what lacked room is tried again.
const roomWait = time.Second

// waitForRoom waits before the given try of what lacked room, which cause says. It
// returns an error if that is not to be tried again.
func (f *fate) waitForRoom(ctx context.Context, try int, ready <-chan struct{}, cause error) error {
	if err := f.refused(); err != nil {
		return err
	}
	timer := time.NewTimer(min(time.Millisecond<<min(try, 20), roomWait))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ready:
	case <-f.ended:
	case <-ctx.Done():
		return fmt.Errorf("%w, while it waited for room: %v", ctx.Err(), cause)
	}
	return nil
}
