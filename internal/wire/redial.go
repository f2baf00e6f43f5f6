package wire

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// RedialOptions are for NewRedialer. The zero value of a time is its default.
type RedialOptions struct {
	// Target says whom to dial. It is asked before each attempt, so that a new address or
	// certificate is taken up; its error counts as an attempt that failed. ctx ends with the
	// Redialer. It is called by one goroutine at a time.
	Target func(ctx context.Context) (DialOptions, error)

	// An attempt that follows n failures waits for between a half and the whole of First
	// doubled n-1 times, at most Most; the one after a connection that was good waits for less
	// than First. A connection that lasted for less than Most counts as a failure, so that a
	// peer which accepts and hangs up is not dialled without end.
	First time.Duration // 50 ms
	Most  time.Duration // 5 s; not below First

	// Up and Down, if not nil, are told of each connection that came, and of each failed
	// attempt and each connection that went, in order. They must not block, and must not call
	// the Redialer. A connection that Up was told of is the Redialer's: it must not be closed.
	Up   func(*Conn)
	Down func(error)
}

// Redialer keeps one connection to a service up: it is dialled at once, and again whenever
// it has ended, with back-off, until Close. Its methods are safe for concurrent use. It
// takes one goroutine and one connection; while a peer that is closing still answers what
// is in flight, one connection more.
type Redialer struct {
	o    RedialOptions
	ctx  context.Context // ends with Close
	stop context.CancelFunc
	bell chan struct{} // dial now
	over chan struct{} // closed when no goroutine is left

	mu      sync.Mutex
	conn    *Conn         // nil while there is none
	old     *Conn         // the one before, if it was closing
	why     error         // why there is none
	renewed uint64        // calls of Renew
	changed chan struct{} // closed at the next change of conn or why
}

// NewRedialer checks the options, and begins to dial.
func NewRedialer(o RedialOptions) (*Redialer, error) {
	if o.First == 0 {
		o.First = 50 * time.Millisecond
	}
	if o.Most == 0 {
		o.Most = max(5*time.Second, o.First)
	}
	if o.Target == nil || o.First < 0 || o.Most < o.First {
		return nil, fmt.Errorf("wire: a Redialer needs a Target, and waits of %v and %v make no sense if the first is negative or the longer one", o.First, o.Most)
	}
	r := &Redialer{o: o, bell: make(chan struct{}, 1), over: make(chan struct{}), changed: make(chan struct{})}
	r.why = errors.New("the first attempt is under way")
	r.ctx, r.stop = context.WithCancel(context.Background())
	go r.run()
	return r, nil
}

// Conn returns the connection, or why there is none: the error of the last attempt, or
// what ended the last connection. It does not wait.
func (r *Redialer) Conn() (*Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil && !r.conn.leaving() {
		return r.conn, nil
	}
	if r.conn != nil { // run will see it in a moment
		return nil, fmt.Errorf("%w: the connection has just ended", ErrNotSent)
	}
	return nil, fmt.Errorf("%w: no connection: %w", ErrNotSent, r.why)
}

// Wait returns the connection as soon as there is one. It fails when ctx ends, and with
// ErrClosed after Close; the error tells also why there was no connection.
func (r *Redialer) Wait(ctx context.Context) (*Conn, error) {
	for {
		r.mu.Lock()
		c, why, changed := r.conn, r.why, r.changed
		r.mu.Unlock()
		if c != nil && !c.leaving() {
			return c, nil
		}
		if why == nil {
			why = errors.New("the connection has just ended")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: no connection: %w (%w)", ErrNotSent, context.Cause(ctx), why)
		case <-r.over:
			return nil, fmt.Errorf("%w: %w", ErrNotSent, ErrClosed)
		}
	}
}

// Call is Conn.Call. While there is no connection it fails at once, with ErrNotSent. It
// never sends a request twice.
func (r *Redialer) Call(ctx context.Context, q Request) (*Reply, error) {
	c, err := r.Conn()
	if err != nil {
		q.Body.Release()
		return nil, err
	}
	return c.Call(ctx, q)
}

// CallWait is Conn.Call that waits for a connection, within ctx, which should have a
// deadline. A request that did not leave because the connection ended is sent over the
// next one. One whose outcome is unknown is not, nor one that the peer refused.
func (r *Redialer) CallWait(ctx context.Context, q Request) (*Reply, error) {
	defer q.Body.Release()
	for {
		c, err := r.Wait(ctx)
		if err != nil {
			return nil, err
		}
		q.Body.Retain()
		reply, err := c.Call(ctx, q)
		if err == nil || !errors.Is(err, ErrNotSent) || ctx.Err() != nil {
			return reply, err
		}
		if errors.Is(err, ErrClosing) { // its goodbye may be on its way yet
			select {
			case <-c.closing:
			case <-c.done:
			case <-ctx.Done():
			}
		}
		if !c.leaving() {
			return nil, err // the peer's word about this request, not about the connection
		}
	}
}

// Hurry ends a wait between two attempts, as when the peer was heard of by another way.
// Between attempts there is still at least a part of First. Of attempts that were hurried one
// after the other, and failed, each waits longer: First doubled for each, up to ten times First.
// So whoever needs a peer that is away, and says so all the time, does not dial it all the time.
func (r *Redialer) Hurry() {
	select {
	case r.bell <- struct{}{}:
	default:
	}
}

// Renew ends the connection and dials again, as when Target names another address. Calls
// in flight fail as when a connection breaks.
func (r *Redialer) Renew(why error) {
	r.mu.Lock()
	c := r.conn
	r.renewed++
	r.mu.Unlock()
	if c != nil {
		c.end(fmt.Errorf("%w: %w", ErrClosed, why))
	}
	r.Hurry()
}

// Close ends the connection and all that waits. It returns when nothing is left.
func (r *Redialer) Close() {
	r.stop()
	<-r.over
}

// run dials until Close.
func (r *Redialer) run() {
	defer close(r.over)
	defer r.drop()
	failures, hurried := 0, 0
	for {
		r.mu.Lock()
		renewed := r.renewed
		r.mu.Unlock()
		c, err := r.dial()
		if err == nil {
			var lasted time.Duration
			if lasted, err = r.hold(c, renewed); lasted >= r.o.Most {
				failures, hurried = -1, 0
			}
		}
		failures++
		if r.ctx.Err() != nil {
			return
		}
		r.set(nil, err)
		r.mu.Lock()
		if r.renewed != renewed {
			hurried = 0
		}
		r.mu.Unlock()
		rung := r.pause(failures, hurried)
		if r.ctx.Err() != nil {
			return
		}
		if hurried++; !rung {
			hurried = 0
		}
	}
}

func (r *Redialer) dial() (*Conn, error) {
	o, err := r.o.Target(r.ctx)
	if err != nil {
		return nil, err
	}
	return Dial(r.ctx, o)
}

// hold keeps a connection for as long as it takes requests.
// renewed is that of before its Target was asked.
func (r *Redialer) hold(c *Conn, renewed uint64) (lasted time.Duration, why error) {
	since := time.Now()
	select {
	case <-r.bell: // it was for an attempt
	default:
	}
	r.set(c, nil)
	r.mu.Lock()
	stale := r.renewed != renewed
	r.mu.Unlock()
	if stale {
		c.end(fmt.Errorf("%w: another target was named while it was dialled", ErrClosed))
		r.Hurry()
	}
	select {
	case <-c.done:
		why = c.reason()
		<-c.over
	case <-c.closing:
		why = ErrClosing
		r.mu.Lock()
		before := r.old
		r.old = c // it ends by itself when the last answer has come
		r.mu.Unlock()
		if before != nil {
			before.Close()
		}
	case <-r.ctx.Done():
		c.Close()
	}
	return time.Since(since), why
}

// drop ends what is left at the end.
func (r *Redialer) drop() {
	r.mu.Lock()
	old := r.old
	r.conn, r.old, r.why = nil, nil, ErrClosed
	r.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

func (r *Redialer) set(c *Conn, why error) {
	r.mu.Lock()
	r.conn, r.why = c, why
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	switch {
	case c != nil && r.o.Up != nil:
		r.o.Up(c)
	case c == nil && r.o.Down != nil:
		r.o.Down(why)
	}
}

// hurriedMost is the longest wait between attempts that are hurried, in times of First.
const hurriedMost = 10

// pause waits before the next attempt, of which there were so many that failed, the last few of
// them hurried. It returns whether it was hurried, and at once if the Redialer is closed.
func (r *Redialer) pause(failures, hurried int) (rung bool) {
	least := rand.N(r.o.First)
	if failures == 0 {
		r.sleep(least, nil)
		return false
	}
	wait := r.apart(failures, r.o.Most)
	if hurried > 0 {
		least = r.apart(hurried, min(hurriedMost*r.o.First, r.o.Most))
	}
	least = min(least, wait)
	r.sleep(least, nil)
	return r.sleep(wait-least, r.bell)
}

// apart is between a half and the whole of First doubled n-1 times, at most most.
func (r *Redialer) apart(n int, most time.Duration) time.Duration {
	whole := r.o.First
	for i := 1; i < n && whole < most; i++ {
		whole = min(2*whole, most)
	}
	return whole/2 + rand.N(whole/2+1)
}

func (r *Redialer) sleep(d time.Duration, bell <-chan struct{}) (rung bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-bell:
		return true
	case <-r.ctx.Done():
	}
	return false
}
