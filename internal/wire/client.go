package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// DialOptions say whom to connect to, and as whom.
type DialOptions struct {
	Network, Address string                                  // as for net.Dial
	Dial             func(context.Context) (net.Conn, error) // instead of these, if not nil
	TLS              *tls.Config                             // nil: plain. NextProtos is set to the service

	Service  string // 1-64 bytes of printable ASCII, as is the group
	Group    string // may be empty
	Identity Identity
	Life     uint64 // of the group
	MinLevel uint32 // the lowest feature level of a peer
	// Admit, if not nil, decides whether whoever answered is the one that was meant. It must
	// not block.
	Admit func(p *Peer) error

	Limits Limits // what of the peer's answers is taken
	Pool   *Pool  // memory for them; nil: one that all connections without share
}

// sharedPool is for connections that were given none. Windows bound what is taken of it.
var sharedPool = NewPool(0, 64<<20)

// Peer is who is at the other end.
type Peer struct {
	Identity                      // as the peer says. Level is the lower one of both sides
	Addr     net.Addr             // where it is
	TLS      *tls.ConnectionState // nil on a plain connection
	Service  string
	Group    string
	Life     uint64
	Value    any // the service's own: set by Service.Admit, and not changed later
}

// Conn is a connection to a service. Its methods are safe for concurrent use. Its memory is
// bounded by the windows in Limits and, for what is on its way out, by what the peer takes
// in flight. Once broken it stays so: dial again.
type Conn struct {
	endpoint
	pool    *Pool
	peer    Peer
	bodyMax int // of the peer
	slots   [priorities]chan struct{}
	closing chan struct{} // closed when the peer takes no further request; done may come first
	lead    leading

	calls struct {
		sync.Mutex
		last    uint64
		by      map[uint64]*call
		refused error // why no further call is taken, as the peer said
	}
}

// Request is what Conn.Call sends.
type Request struct {
	Op       uint16
	Priority Priority
	Header   []byte  // up to HeaderMax bytes, not changed before Call returns
	Body     *Buffer // up to BodyMax bytes; Call takes it over, whatever the outcome. nil: none
	Sum      bool    // let the wire checksum the body, as it has none of its own
}

// Reply is what came back. Header and Body may be used until Release.
type Reply struct {
	Status uint16 // CodeOK, or a status of the service's own
	Header []byte
	Body   []byte

	buf *Buffer
}

// Release gives the reply's memory back. A reply with a body that is not released takes room
// that later ones lack; one without need not be.
func (r *Reply) Release() {
	buf := r.buf
	r.buf, r.Header, r.Body = nil, nil, nil
	buf.Release()
}

// Take returns the body with the right to it, to be released instead of the reply: header
// and body may be used until then. It is nil if there is no body.
func (r *Reply) Take() *Buffer {
	buf := r.buf
	r.buf = nil
	return buf
}

// call is a request of which the answer has not come.
type call struct {
	id  uint64
	out message
	in  inbound

	// Guarded by Conn.calls:
	ended     bool // the caller has been told, or is about to be
	abandoned bool // the caller is gone

	room [64]byte      // for the header of out, if it is short
	done chan struct{} // closed after err was set
	then func()        // called instead, if not nil
	err  error
}

// finish tells the caller.
func (k *call) finish() {
	if k.then != nil {
		k.then()
	} else {
		close(k.done)
	}
}

// Dial connects and exchanges prefaces, within ctx and Limits.Handshake. A refusal by
// either side matches ErrVersion, ErrCluster, ErrLife, ErrLevel, ErrService, ErrGroup,
// ErrDenied, ErrBusy or ErrClosing.
func Dial(ctx context.Context, o DialOptions) (*Conn, error) {
	limits, err := o.Limits.withDefaults()
	if err != nil {
		return nil, err
	}
	if !goodName(o.Service) || o.Group != "" && !goodName(o.Group) {
		return nil, fmt.Errorf("wire: service %q or group %q is not 1-%d bytes of printable ASCII", o.Service, o.Group, nameMax)
	}
	ctx, cancel := context.WithTimeout(ctx, limits.Handshake)
	defer cancel()
	dial := o.Dial
	if dial == nil {
		dial = func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, o.Network, o.Address)
		}
	}
	raw, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	c, err := o.greet(raw, &limits)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		raw.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		return nil, fmt.Errorf("%w: %s at %v: %w", ErrNotSent, o.Service, raw.RemoteAddr(), err)
	}
	go c.run()
	return c, nil
}

// greet exchanges prefaces as the side that dialled.
func (o *DialOptions) greet(raw net.Conn, limits *Limits) (*Conn, error) {
	l := plainLink(raw)
	if o.TLS != nil {
		config := o.TLS.Clone()
		config.NextProtos = []string{o.Service}
		config.MinVersion = tls.VersionTLS13
		config.DynamicRecordSizingDisabled = true
		l = secureLink(raw, config, tls.Client)
		if err := l.tls.Handshake(); err != nil {
			return nil, fmt.Errorf("TLS: %w", err)
		}
	}
	mine := preface{kind: hello, id: o.Identity, life: o.Life, minLevel: o.MinLevel, text: o.Service + "\x00" + o.Group}
	limits.announce(&mine)
	if _, err := l.conn.Write(mine.append(nil)); err != nil {
		return nil, err
	}
	theirs, err := readPreface(l.conn)
	switch {
	case err != nil:
		return nil, err
	case theirs.kind == refusal:
		return nil, &told{"refused", theirs.code, printable([]byte(theirs.text))}
	case theirs.kind != welcome:
		return nil, fmt.Errorf("%w: a hello was answered with a preface of kind %d", ErrProtocol, theirs.kind)
	}
	if err := errors.Join(theirs.speaks(), theirs.fits(&mine)); err != nil {
		return nil, err
	}
	c := &Conn{pool: o.Pool, bodyMax: int(theirs.bodyMax), closing: make(chan struct{})}
	if c.pool == nil {
		c.pool = sharedPool
	}
	c.peer = newPeer(l, &mine, &theirs, o.Service, o.Group)
	if o.Admit != nil {
		if err := o.Admit(&c.peer); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDenied, err)
		}
	}
	c.calls.by = map[uint64]*call{}
	for i, n := range theirs.slots {
		c.slots[i] = make(chan struct{}, n)
	}
	c.lead.turn, c.lead.able = make(chan error, 1), raw.SetReadDeadline(time.Time{}) == nil
	c.start(l, &mine, &theirs, limits, (*asker)(c))
	return c, nil
}

func newPeer(l *link, mine, theirs *preface, service, group string) Peer {
	p := Peer{Identity: theirs.id, Addr: l.raw.RemoteAddr(), Service: service, Group: group, Life: theirs.life}
	p.Level = min(p.Level, mine.id.Level)
	if l.tls != nil {
		state := l.tls.ConnectionState()
		p.TLS = &state
	}
	return p
}

// Peer is who is at the other end.
func (c *Conn) Peer() Peer { return c.peer }

// Done is closed when the connection has ended; Err says why.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection has ended, nil as long as it has not.
func (c *Conn) Err() error { return c.reason() }

// leaving reports whether the connection takes no further request.
func (c *Conn) leaving() bool {
	select {
	case <-c.closing:
		return true
	case <-c.done:
		return true
	default:
		return false
	}
}

// Close ends the connection. All calls in flight fail with ErrClosed. It returns when
// nothing of the connection is left; it always returns nil.
func (c *Conn) Close() error {
	c.end(ErrClosed)
	<-c.over
	return nil
}

// Call sends a request and waits for its answer, or until ctx ends, whose deadline goes
// with the request. If no other call is in flight it may read the connection by itself. An answer with a status of the service's own is no error. Every error
// matches ErrNotSent or ErrOutcomeUnknown, and also its cause, such as ErrBusy, ErrDead or
// context.Canceled. The exception is ErrUnknownOp, which comes from the handler.
func (c *Conn) Call(ctx context.Context, r Request) (*Reply, error) {
	k := &call{done: make(chan struct{})}
	if err := c.send(ctx, &r, k); err != nil {
		return nil, &outcome{r.Op, c.link.peer(), ErrNotSent, err}
	}
	if c.take(ctx) && c.read(k) {
		return c.result(k)
	}
	select {
	case <-k.done:
	case <-ctx.Done():
		if sent, gone := c.abandon(k); gone {
			return nil, &outcome{r.Op, c.link.peer(), sent, context.Cause(ctx)}
		}
		<-k.done // it has ended just now
	}
	return c.result(k)
}

// Start sends a request and does not wait for its answer: then is called once with what
// Call would return, by a goroutine of the connection, or within Start or Call; it must not block.
// Requests of one priority that are started one after the other, each charged up to 64 KiB,
// reach a handler that is Inline in this order. ctx bounds only the wait for a place among
// those in flight; its deadline goes with the request. After an error nothing was sent, and
// then is not called.
func (c *Conn) Start(ctx context.Context, r Request, then func(*Reply, error)) error {
	k := &call{}
	k.then = func() { then(c.result(k)) }
	if err := c.send(ctx, &r, k); err != nil {
		return &outcome{r.Op, c.link.peer(), ErrNotSent, err}
	}
	c.take(nil)
	return nil
}

// result is what came of a call that has ended.
func (c *Conn) result(k *call) (*Reply, error) {
	op := k.out.h.op
	if k.err != nil {
		return nil, k.err
	}
	reply := newReply(k)
	code := Code(reply.Status)
	if code == CodeOK || code >= StatusService {
		return reply, nil
	}
	why := &told{by: "answer", code: code, text: printable(reply.Header)}
	reply.Release()
	switch code {
	case CodeUnknownOp:
		return nil, fmt.Errorf("operation %d at %s: %w", op, c.link.peer(), why)
	case CodeBusy, CodeClosing, CodeTooLarge, CodeDenied:
		return nil, &outcome{op, c.link.peer(), ErrNotSent, why}
	}
	return nil, &outcome{op, c.link.peer(), ErrOutcomeUnknown, why}
}

// newReply takes the answer of a call. Without a body it holds no room of the peer's, so
// that nothing is lost if nobody releases it.
func newReply(k *call) *Reply {
	buf := k.in.buf
	if k.in.h.body > 0 {
		return &Reply{Status: k.in.h.op, buf: buf, Header: buf.header, Body: buf.Bytes()}
	}
	r := &Reply{Status: k.in.h.op, Header: append([]byte(nil), buf.header...)}
	buf.Release()
	return r
}

// send queues a request. If there is an error nothing was sent, and k is not finished.
func (c *Conn) send(ctx context.Context, r *Request, k *call) error {
	h := head{kind: kindRequest, op: r.Op, priority: r.Priority, header: uint32(len(r.Header)), body: uint32(r.Body.Len())}
	err := c.place(ctx, r)
	if err == nil {
		h.word, err = milliseconds(ctx)
		if err != nil {
			<-c.slots[r.Priority]
		}
	}
	if err != nil {
		r.Body.Release()
		return err
	}
	if r.Sum {
		h.flags = flagSummed
	}
	if len(r.Header) > 0 {
		h.headerSum = sumOf([][]byte{r.Header})
	}
	k.in.call = k
	c.calls.Lock()
	if err := c.calls.refused; err != nil {
		c.calls.Unlock()
		<-c.slots[r.Priority]
		r.Body.Release()
		return err
	}
	c.calls.last++
	k.id = c.calls.last
	h.id = k.id
	k.out = message{h: h, body: r.Body, header: append(k.room[:0], r.Header...)}
	c.calls.by[k.id] = k
	c.calls.Unlock()
	if err := c.out.put(&k.out); err != nil {
		c.calls.Lock()
		told := k.ended // with the connection, by whoever ended it
		k.ended = true
		c.calls.Unlock()
		c.forget(k)
		if told {
			return nil
		}
		return err
	}
	c.out.kick()
	return nil
}

// place waits for a place among the requests in flight.
func (c *Conn) place(ctx context.Context, r *Request) error {
	switch {
	case r.Priority >= priorities:
		return fmt.Errorf("%w: priority %d", ErrProtocol, r.Priority)
	case len(r.Header) > HeaderMax:
		return fmt.Errorf("%w: a header of %d bytes, at most %d may be", ErrTooLarge, len(r.Header), HeaderMax)
	case r.Body.Len() > c.bodyMax:
		return fmt.Errorf("%w: a body of %d bytes, the peer takes at most %d", ErrTooLarge, r.Body.Len(), c.bodyMax)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	select {
	case c.slots[r.Priority] <- struct{}{}:
		return nil
	default:
	}
	select {
	case c.slots[r.Priority] <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.done:
		return c.reason()
	}
}

// forget takes a call away, with its place. It returns false if that was done before.
func (c *Conn) forget(k *call) bool {
	c.calls.Lock()
	_, there := c.calls.by[k.id]
	delete(c.calls.by, k.id)
	c.calls.Unlock()
	if there {
		<-c.slots[k.out.h.priority]
	}
	return there
}

// abandon is for a caller that does not wait any more. gone is false if the call has
// ended before.
func (c *Conn) abandon(k *call) (sent error, gone bool) {
	c.calls.Lock()
	if k.ended {
		c.calls.Unlock()
		return nil, false
	}
	k.ended, k.abandoned = true, true
	c.calls.Unlock()
	switch c.out.withdraw(&k.out) {
	case waiting:
		c.forget(k)
		return ErrNotSent, true
	case begun:
		sent = ErrNotSent
	default:
		sent = ErrOutcomeUnknown
	}
	c.out.signal(head{kind: kindCancel, id: k.id}) // the answer frees its place
	c.out.kick()
	return sent, true
}
