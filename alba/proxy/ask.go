package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/backend"
	"openvstorage/internal/wire"
)

// asked is a call: what every attempt of it sends.
type asked struct {
	op     uint16
	class  class
	what   string // it is about, for messages
	header []byte
	body   [][]byte // of the caller's memory
	// send, if not nil, makes an attempt of more than one request.
	send func(ctx context.Context, p *peer) (*wire.Reply, error)
}

// errPatience ends an attempt that another proxy may end sooner.
var errPatience = errors.New("the proxy has not answered in time")

// attempts are those of one call.
type attempts struct {
	class class
	most  int           // there may be so many
	first time.Duration // patience with the first one; 0: that of the caller
	made  int
	tried map[*peer]int
	doubt error // of an attempt of a change whose outcome is unknown
	last  error
}

// patience is how long the next attempt may take; 0 is for as long as the caller waits.
func (a *attempts) patience() time.Duration {
	if a.first == 0 || a.made+1 >= a.most {
		return 0
	}
	return a.first << min(a.made, 10)
}

// again notes what came of an attempt, and decides whether there is another.
func (a *attempts) again(o outcome, err error) bool {
	a.made++
	a.last = err
	if o == unknown && a.class != reads {
		a.doubt = err
	}
	switch {
	case o == done, a.made >= a.most:
		return false
	case o == notBegun:
		return true
	}
	return a.class != once
}

// result is the call's error.
func (a *attempts) result(o outcome, err error) error {
	switch {
	case err == nil:
		return nil
	case a.doubt != nil && o != unknown:
		return &doubted{err, a.doubt}
	case o == notBegun:
		return &unserved{err}
	}
	return err
}

// unserved is the error of a call that no proxy began with. It is none of the errors of a store:
// that one proxy is closed does not mean that the store is.
type unserved struct{ err error }

func (e *unserved) Error() string {
	if errors.Is(e.err, ErrUnreachable) {
		return e.err.Error()
	}
	return ErrUnreachable.Error() + ": " + e.err.Error()
}

func (e *unserved) Is(target error) bool {
	switch target {
	case backend.ErrClosed:
		return false
	case ErrUnreachable:
		return true
	case backend.ErrFailed, context.Canceled, context.DeadlineExceeded, wire.ErrDenied:
		return errors.Is(e.err, target)
	}
	return false
}

// unavailable is an error of a read that may succeed when a proxy is back.
type unavailable struct{ error }

func (e unavailable) Unwrap() []error { return []error{e.error, backend.ErrUnavailable} }

// ask makes attempts of a call, until one is answered. use reads the answer, whose memory it
// must not keep.
func (c *Client) ask(ctx context.Context, q asked, use func(*wire.Reply) error) error {
	o, err := c.attempts(ctx, q, use)
	if err == nil {
		return nil
	}
	switch ended := ctx.Err(); {
	case ended != nil && !errors.Is(err, ended):
		err = fmt.Errorf("%w: %w", ended, err)
	case ended == nil && q.class == reads && o != done && !errors.Is(err, backend.ErrClosed):
		err = unavailable{err}
	}
	if q.what == "" {
		return fmt.Errorf("%s: %w", OpName(q.op), err)
	}
	return fmt.Errorf("%s %s: %w", OpName(q.op), q.what, err)
}

func (c *Client) attempts(ctx context.Context, q asked, use func(*wire.Reply) error) (outcome, error) {
	a := attempts{class: q.class, most: 2*len(c.peers) + 2, tried: make(map[*peer]int)}
	if len(c.peers) > 1 {
		a.first = c.o.Patience
	}
	for {
		p, err := c.pick(ctx, &a)
		if err != nil {
			if a.doubt == nil && c.closed.Load() {
				return notBegun, backend.ErrClosed
			}
			return notBegun, a.result(notBegun, err)
		}
		err = c.attempt(ctx, p, q, a.patience(), use)
		o := outcomeOf(err)
		if err != nil {
			err = fmt.Errorf("proxy %s: %w", p.name, err)
		}
		if o != done {
			c.leave(p, ctx, err)
		}
		a.tried[p]++
		if ctx.Err() != nil || !a.again(o, err) {
			return o, a.result(o, err)
		}
	}
}

// leave has others asked before a proxy that did not answer.
func (c *Client) leave(p *peer, ctx context.Context, why error) {
	if ctx.Err() != nil {
		return // the caller's time was over, not the proxy's
	}
	p.rest(c.o.Rest)
	if c.o.Turned != nil {
		c.o.Turned(p.name, why)
	}
}

// pick returns the proxy to ask next: of those there is a connection to, one that was asked least
// often by this call; of these one that does not rest; of these the first. It waits while there is
// none, and before a proxy is asked again.
func (c *Client) pick(ctx context.Context, a *attempts) (*peer, error) {
	until := time.Now().Add(c.o.Wait)
	for {
		next := c.changed.Next()
		if c.closed.Load() {
			return nil, backend.ErrClosed
		}
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		best := choose(c.peers, func(p *peer) (bool, int, bool) { return p.connected(), a.tried[p], p.resting() })
		if best != nil {
			if n := a.tried[best]; n > 0 {
				return best, pause(ctx, c.o.First<<min(n, 5))
			}
			return best, nil
		}
		t := time.NewTimer(time.Until(until))
		select {
		case <-next:
		case <-ctx.Done():
		case <-t.C:
			return nil, c.unreachable(fmt.Errorf("none in %v", c.o.Wait))
		}
		t.Stop()
	}
}

// choose is the order of pick.
func choose[P comparable](all []P, of func(P) (connected bool, tried int, rests bool)) (best P) {
	var none P
	var tried int
	var rests bool
	for _, p := range all {
		up, n, r := of(p)
		if up && (best == none || n < tried || n == tried && rests && !r) {
			best, tried, rests = p, n, r
		}
	}
	return best
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// attempt asks one proxy.
func (c *Client) attempt(ctx context.Context, p *peer, q asked, patience time.Duration, use func(*wire.Reply) error) error {
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, patience, errPatience)
		defer cancel()
	}
	var reply *wire.Reply
	var err error
	if q.send != nil {
		reply, err = q.send(ctx, p)
	} else {
		reply, err = c.request(ctx, p, q.op, q.header, q.body)
	}
	if err != nil {
		outlast(ctx, err)
		return err
	}
	defer reply.Release()
	if use == nil {
		return nil
	}
	if err := use(reply); err != nil {
		return fmt.Errorf("its answer: %w", err)
	}
	return nil
}

// outlast waits for the end of a context whose time has passed at the proxy already, as deadlines
// travel rounded: what follows then sees that it has ended.
func outlast(ctx context.Context, err error) {
	var t *told
	if end, ok := ctx.Deadline(); ok && errors.As(err, &t) && t.kind == kindDeadline {
		_ = pause(ctx, min(time.Until(end), time.Second))
	}
}

// request sends pieces of the caller's memory, and returns when the connection has let go of them.
func (c *Client) request(ctx context.Context, p *peer, op uint16, header []byte, pieces [][]byte) (*wire.Reply, error) {
	r := wire.Request{Op: op, Priority: c.o.Priority, Header: header}
	var free chan struct{}
	if len(pieces) > 0 {
		free = make(chan struct{})
		r.Body, r.Sum = wire.Wrap(func() { close(free) }, pieces...), !p.local.Load()
	}
	reply, err := p.wire.Call(ctx, r)
	if free != nil {
		<-free
	}
	if err != nil {
		return nil, err
	}
	if reply.Status != uint16(wire.CodeOK) {
		err = &told{kind(reply.Status), string(reply.Header)}
		reply.Release()
		return nil, err
	}
	return reply, nil
}
