package kvclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/internal/wire"
)

// request is what has to be answered, by whichever member.
type request struct {
	op     uint16
	header []byte
	body   []byte
	steps  int           // of a write
	near   bool          // any member may answer; otherwise whoever leads
	lead   bool          // a read that is for whoever leads though any member could answer it
	again  bool          // it may be sent again though its outcome is unknown
	begun  bool          // a part of the answer has gone to the caller: ErrBusy, which says nothing was done, is not for it
	on     bool          // it goes on for as long as members are busy
	wait   time.Duration // that a member may take by itself before it answers one that is near
}

// turn is how far the tries of a request have come.
type turn struct {
	near    int           // which of the members is asked
	hops    int           // tries elsewhere without a wait
	waits   int           // back-offs
	busy    time.Duration // waited for members that were busy
	unknown error         // of a try of which the outcome is unknown
}

// verdict is what an error of a try means for the next one.
type verdict int

const (
	final   verdict = iota // the request has its answer
	away                   // another member may answer
	lost                   // the outcome of this try is unknown
	busy                   // the same member may answer later
	unready                // the member will, but not now
)

// hopsMax is how many hints are followed before the first wait: members that do not agree
// must not be asked in a circle.
const hopsMax = 3

// do has a request answered. It returns the reply of the member that did, or an error that
// is the request's; ErrUnknownOutcome is left to the caller, whose turn it tells.
func (c *router) do(ctx context.Context, q *request, t *turn) (*wire.Reply, error) {
	var last error // why the try before had no answer
	for {
		if err := c.over(ctx, q, last); err != nil {
			return nil, err
		}
		m, err := c.pick(ctx, q, t)
		if err != nil {
			return nil, err
		}
		var reply *wire.Reply
		if m == nil {
			err = errors.New("nobody is known to lead")
		} else if reply, err = c.try(ctx, m, q, t); err == nil {
			return reply, nil
		}
		last = err
		wait, err := c.judge(ctx, q, t, m, err)
		if err != nil {
			return nil, err
		}
		if wait > 0 {
			c.sleep(ctx, wait)
		}
	}
}

// pick chooses the member for the next try; nil: none is known.
func (c *router) pick(ctx context.Context, q *request, t *turn) (*member, error) {
	if q.near {
		members := c.known()
		for i := range members {
			m := members[(t.near+i)%len(members)]
			if _, err := m.wire.Conn(); err == nil {
				t.near += i
				return m, nil
			}
		}
		_, err := c.find(ctx) // it takes up new members, and has all dialled
		return nil, err
	}
	if m := c.member(c.master.Load()); m != nil {
		return m, nil
	}
	leader, err := c.find(ctx)
	if err != nil {
		return nil, err
	}
	return c.member(leader), nil
}

// try sends a request to one member. While the answer of a request that may be sent again
// does not come, others are asked who leads; if it is another, the try is given up. A near
// one is given up when it takes too long, as another member can answer it too.
func (c *router) try(ctx context.Context, m *member, q *request, t *turn) (*wire.Reply, error) {
	r := wire.Request{Op: q.op, Header: q.header, Sum: true}
	if len(q.body) > 0 {
		r.Body = wire.Wrap(nil, q.body)
	}
	if q.near && len(c.known()) > 1 {
		// Longer in each round: all members may be slow.
		patience := q.wait + c.o.Patience<<min(t.waits, 10)
		ctx, stop := context.WithTimeoutCause(ctx, patience, fmt.Errorf("member %d did not answer within %v", m.id, patience))
		defer stop()
		return m.call(ctx, r)
	}
	if q.near || !q.again {
		return m.call(ctx, r)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	wait := c.o.Patience
	var watch *time.Timer
	armed := make(chan struct{})
	watch = time.AfterFunc(wait, func() {
		<-armed
		leader, _ := c.find(ctx)
		if leader != 0 && leader != m.id {
			stop(errAway)
		}
		if ctx.Err() == nil {
			wait = min(2*wait, 10*c.o.Patience)
			watch.Reset(wait)
		}
	})
	close(armed)
	defer watch.Stop()
	return m.call(ctx, r)
}

// call sends a request; an answer that tells a failure is an error.
func (m *member) call(ctx context.Context, r wire.Request) (*wire.Reply, error) {
	reply, err := m.wire.Call(ctx, r)
	if err != nil || reply.Status == uint16(wire.CodeOK) {
		return reply, err
	}
	defer reply.Release()
	f, err := kv.ReadFailure(reply.Status, reply.Header)
	if err != nil {
		return nil, fmt.Errorf("%w: member %d: %w", wire.ErrOutcomeUnknown, m.id, err)
	}
	if f.Status == kv.StatusLife { // the next connection is of the life that Options.Members tells then
		m.wire.Renew(f.Err())
	}
	return nil, &refusal{f, f.Err()}
}

// refusal is the error of a request that a member has answered with a failure.
type refusal struct {
	kv.Failure
	err error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// verdictOf says what an error of a try means.
func verdictOf(err error) verdict {
	var r *refusal
	switch {
	case errors.As(err, &r):
		switch r.Status {
		case kv.StatusNotMaster, kv.StatusGoingDown, kv.StatusFailed, kv.StatusInconsistent, kv.StatusLife:
			return away
		case kv.StatusNoLongerMaster:
			return lost
		case kv.StatusBusy:
			return busy
		case kv.StatusDeadline, kv.StatusZones:
			return unready
		}
		return final
	case errors.Is(err, wire.ErrDenied), errors.Is(err, wire.ErrTooLarge), errors.Is(err, wire.ErrUnknownOp):
		return final
	case errors.Is(err, wire.ErrOutcomeUnknown):
		return lost
	}
	return away // it was not sent
}

// judge decides about the next try after one at m failed, nil if there was nobody to try: how
// long to wait before it; or what the request's error is.
func (c *router) judge(ctx context.Context, q *request, t *turn, m *member, err error) (wait time.Duration, _ error) {
	v := verdictOf(err)
	if v == lost {
		t.unknown = err
		if !q.again {
			return 0, c.gaveUp(err, nil)
		}
	}
	if err := c.over(ctx, q, err); err != nil {
		return 0, err
	}
	switch v {
	case final:
		if errors.Is(err, wire.ErrOutcomeUnknown) { // it was done, and the answer is too long for this client
			t.unknown = err
		}
		return 0, unwrap(err)
	case busy:
		wait = backOff(arakoon.BusyWait, 64*time.Millisecond, t.waits)
		t.waits++
		if t.busy += wait; t.busy > c.o.Busy && !q.on {
			if q.begun {
				return 0, c.gaveUp(kv.ErrOther, err)
			}
			return 0, unwrap(err)
		}
		return wait, nil
	}
	t.near++
	if m != nil && !q.near && v != unready {
		hint := hintOf(err)
		if hint == m.id {
			hint = 0
		}
		c.master.CompareAndSwap(m.id, hint)
		if t.hops++; t.hops <= hopsMax {
			return 0, nil // to whom the hint names, or to ask who leads
		}
	} else if q.near && m != nil {
		if t.hops++; t.hops < len(c.known()) {
			return 0, nil // to the next one
		}
	}
	t.hops = 0
	wait = backOff(c.o.First, c.o.Most, t.waits)
	t.waits++
	return wait, nil
}

// over is the error of a request whose time has passed, or whose client is closed; nil as long as
// neither is so.
func (c *router) over(ctx context.Context, q *request, last error) error {
	end := c.ended(ctx)
	if end == nil {
		return nil
	}
	if stands := c.stands.Load(); stands != nil && !q.near {
		end = fmt.Errorf("%w: %w", end, stands)
	}
	return c.gaveUp(end, last)
}

// unwrap is the error as callers of a member in their own process know it.
func unwrap(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return r.err
	}
	return err
}

// hintOf is the member that leads, as one that does not has said.
func hintOf(err error) uint64 {
	var r *refusal
	if errors.As(err, &r) && r.Status == kv.StatusNotMaster {
		return r.Number
	}
	return 0
}

// gaveUp is the error of a request that is not tried any more. last is why it had no answer
// so far; it is told in words alone, as its meaning was for that try.
func (c *router) gaveUp(why, last error) error {
	if last != nil && !errors.Is(last, why) {
		return fmt.Errorf("arakoon/kvclient: group %q: %w (%v)", c.o.Group, why, last)
	}
	return fmt.Errorf("arakoon/kvclient: group %q: %w", c.o.Group, why)
}

// backOff is the wait after so many others: between a half and the whole of first doubled
// each time, at most most.
func backOff(first, most time.Duration, waits int) time.Duration {
	whole := first
	for range waits {
		if whole >= most {
			break
		}
		whole *= 2
	}
	whole = min(whole, most)
	return whole/2 + rand.N(whole/2+1)
}

func (c *router) sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
}
