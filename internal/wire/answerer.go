package wire

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// serverConn is a connection at the end that answers.
type serverConn struct {
	endpoint
	server   *Server
	service  *Service
	peer     Peer
	bodyMax  int // of the peer
	ctx      context.Context
	stopAll  context.CancelFunc
	held     bool        // answers were queued and not kicked; of the one who reads
	expelled atomic.Bool // by Disconnect: no request that is not at its handler gets there

	reqs struct {
		sync.Mutex
		by      map[uint64]*request
		flying  [priorities]int
		closing bool
		ended   bool
		quiet   chan struct{} // closed when closing and none is in flight
	}
}

// handle serves a connection from its first byte to its end.
func (s *Server) handle(raw net.Conn, mine *share) {
	c, away, err := s.greet(raw)
	s.mu.Lock()
	s.shookLocked(raw)
	cut := s.admitting[raw]
	delete(s.admitting, raw)
	if err == nil && c != nil {
		switch {
		case s.closing:
			err = ErrClosing
		case cut != nil && cut.why != nil:
			err = cut.why
		default:
			c.share = mine
			s.conns[c] = struct{}{}
		}
	}
	s.mu.Unlock()
	if err != nil {
		s.report(raw, err)
		return
	}
	if away != nil {
		away()
		return
	}
	c.run()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	if code := codeOf(c.reason()); code == CodeProtocol || code == CodeChecksum || code == CodeTooLarge {
		s.report(raw, c.reason())
	}
}

// greet does TLS and prefaces, within Limits.Handshake. Of a connection that is to be given
// away it returns the call that does so.
func (s *Server) greet(raw net.Conn) (c *serverConn, away func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.o.Limits.Handshake)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	l := plainLink(raw)
	if s.tls != nil {
		l = secureLink(raw, s.tls, tls.Server)
		if err := l.tls.HandshakeContext(ctx); err != nil {
			_ = raw.SetReadDeadline(time.Now().Add(farewellTime))
			linger(raw) // or the alert could be lost
			return nil, nil, fmt.Errorf("TLS: %w", err)
		}
		if f := s.o.Foreign[l.tls.ConnectionState().NegotiatedProtocol]; f != nil {
			if !stop() {
				return nil, nil, context.Cause(ctx)
			}
			return nil, func() { f(l.tls) }, nil
		}
	}
	theirs, err := readPreface(l.conn)
	if err != nil {
		return nil, nil, err
	}
	c = &serverConn{server: s, bodyMax: int(theirs.bodyMax)}
	mine := preface{kind: welcome, id: s.o.Identity(), minLevel: s.o.MinLevel}
	if s.o.Least != nil {
		mine.minLevel = max(mine.minLevel, s.o.Least())
	}
	s.o.Limits.announce(&mine)
	if err := c.admit(ctx, l, &mine, &theirs); err != nil {
		mine.kind, mine.code, mine.text = refusal, codeOf(err), err.Error()
		mine.text = mine.text[:min(len(mine.text), reasonMax)]
		if _, werr := l.conn.Write(mine.append(nil)); werr == nil {
			_ = raw.SetReadDeadline(time.Now().Add(farewellTime))
			linger(raw)
		}
		return nil, nil, err
	}
	if _, err := l.conn.Write(mine.append(nil)); err != nil {
		return nil, nil, err
	}
	if !stop() {
		return nil, nil, context.Cause(ctx)
	}
	c.reqs.by, c.reqs.quiet = map[uint64]*request{}, make(chan struct{})
	c.ctx, c.stopAll = context.WithCancel(context.Background())
	c.start(l, &mine, &theirs, &s.o.Limits, (*answerer)(c))
	return c, nil, nil
}

// admit decides about a hello.
func (c *serverConn) admit(ctx context.Context, l *link, mine, theirs *preface) error {
	if err := theirs.speaks(); err != nil {
		return err
	}
	if theirs.kind != hello {
		return fmt.Errorf("%w: a preface of kind %d instead of a hello", ErrProtocol, theirs.kind)
	}
	service, group, err := theirs.names()
	if err != nil {
		return err
	}
	c.service = c.server.o.Services[service]
	if c.service == nil {
		return fmt.Errorf("%w: %s is not offered here", ErrService, service)
	}
	if l.tls != nil {
		if alpn := l.tls.ConnectionState().NegotiatedProtocol; alpn != service {
			return fmt.Errorf("%w: ALPN named %q, the preface %q", ErrService, alpn, service)
		}
	}
	if theirs.id.Cluster != mine.id.Cluster {
		return theirs.fits(mine)
	}
	known := group == ""
	if c.service.Life != nil {
		mine.life, known = c.service.Life(group)
	}
	if !known {
		return fmt.Errorf("%w: %s knows no group %q", ErrGroup, service, group)
	}
	if err := theirs.fits(mine); err != nil {
		return err
	}
	c.peer = newPeer(l, mine, theirs, service, group)
	a := &admission{peer: c.peer}
	c.server.mu.Lock()
	c.server.admitting[l.raw] = a
	c.server.mu.Unlock()
	if c.service.Admit != nil {
		if err := c.service.Admit(ctx, &c.peer); err != nil {
			return fmt.Errorf("%w: %w", ErrDenied, err)
		}
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	return a.why
}

// admission is a peer that is being admitted, for Disconnect to see.
type admission struct {
	peer Peer
	why  error // it was disconnected meanwhile
}

// expel tells the peer why it is not served any more, and closes.
func (c *serverConn) expel(why error) {
	c.reqs.Lock()
	c.reqs.closing = true
	c.reqs.Unlock()
	stop := time.AfterFunc(farewellTime, func() { c.end(why) })
	defer stop.Stop()
	select {
	case <-c.out.goodbye(codeOf(why), why.Error()):
	case <-c.done:
	}
	c.end(why)
}

// drain answers what is in flight and closes, until ctx ends.
func (c *serverConn) drain(ctx context.Context) {
	c.reqs.Lock()
	c.reqs.closing = true
	c.quietLocked()
	c.reqs.Unlock()
	c.out.signal(head{kind: kindGoodbye, op: uint16(CodeClosing)})
	c.out.kick()
	select {
	case <-c.reqs.quiet:
		select {
		case <-c.out.goodbye(CodeClosed, ""):
			c.part(ctx)
		case <-ctx.Done():
		case <-c.done:
		}
	case <-ctx.Done():
	case <-c.done:
	}
	c.end(ErrClosing)
}

// part waits until the peer has read all and closed: if it said something after we had
// closed, the kernel would throw away what it has not read.
func (c *serverConn) part(ctx context.Context) {
	half, ok := c.link.raw.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	late := time.NewTimer(c.limits.Stall)
	defer late.Stop()
	select {
	case <-c.done:
	case <-ctx.Done():
	case <-late.C:
	}
}

func (c *serverConn) quietLocked() {
	if c.reqs.closing && len(c.reqs.by) == 0 {
		select {
		case <-c.reqs.quiet:
		default:
			close(c.reqs.quiet)
		}
	}
}

// answerer is a serverConn as the goroutine that reads sees it.
type answerer serverConn

func (a *answerer) begins(h *head) (*inbound, error) {
	c := (*serverConn)(a)
	if h.kind != kindRequest {
		return nil, fmt.Errorf("%w: an answer came to the side that answers", ErrProtocol)
	}
	r := &request{conn: c, Incoming: Incoming{Op: h.op, Priority: h.priority, Peer: &c.peer}}
	r.in.request = r
	if err := c.charge(&r.in, h); err != nil {
		return nil, err
	}
	most := c.limits.Requests
	if h.priority == Maintenance {
		most = c.limits.Maintenances
	}
	c.reqs.Lock()
	_, twice := c.reqs.by[h.id]
	tooMany := c.reqs.flying[h.priority] >= most
	closing, ended := c.reqs.closing, c.reqs.ended
	var n int64
	if !twice && !tooMany && !ended {
		c.reqs.by[h.id] = r
		c.reqs.flying[h.priority]++
		if r.share = !c.server.over(c); r.share {
			n = c.server.requests.Add(1)
			c.share.requests.Add(1)
		}
	}
	c.reqs.Unlock()
	if ended || twice || tooMany {
		c.freed(r.in.window, r.in.charge)
	}
	if ended {
		return nil, ErrClosed
	}
	if twice || tooMany {
		return nil, fmt.Errorf("%w: request %d came twice or is one too many: %d of priority %d may be in flight", ErrProtocol, h.id, most, h.priority)
	}
	switch {
	case closing:
		r.refuse = ErrClosing
	case int(h.body) > c.limits.Body:
		r.refuse = fmt.Errorf("%w: a body of %d bytes, at most %d may be", ErrTooLarge, h.body, c.limits.Body)
	case !r.share:
		r.refuse = fmt.Errorf("%w: requests from your address take half of what there is", ErrBusy)
	case n > int64(c.server.o.Requests):
		r.refuse = fmt.Errorf("%w: %d requests are in flight", ErrBusy, n-1)
	default:
		buf := c.server.pool.get(int(h.body), int(h.header))
		if buf == nil {
			r.refuse = fmt.Errorf("%w: no memory for a request of %d bytes", ErrBusy, h.body)
			break
		}
		c.keep(&r.in, buf)
	}
	return &r.in, nil
}

func (a *answerer) complete(in *inbound) {
	c, r := (*serverConn)(a), in.request
	if r.refuse == nil && c.expelled.Load() {
		r.refuse = ErrDenied
	}
	if r.refuse != nil {
		c.drop(in)
		r.answer(Answer{Status: uint16(codeOf(r.refuse)), Header: []byte(r.refuse.Error())})
		c.held = true
		return
	}
	r.buf, r.Header, r.Body = in.buf, in.buf.header, in.buf.one[0]
	if c.service.Inline != nil && c.service.Inline(r.Op) {
		r.answer(r.serve(c.ctx))
		c.held = true
		return
	}
	ctx, stop := c.ctx, context.CancelFunc(nil)
	if ms := in.h.word; ms > 0 {
		ctx, stop = context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
	} else {
		ctx, stop = context.WithCancel(ctx)
	}
	c.reqs.Lock()
	r.stop = stop
	c.reqs.Unlock()
	c.server.handlers.Add(1)
	go func() {
		defer c.server.handlers.Done()
		defer stop()
		r.answer(r.serve(ctx))
		c.out.kick()
	}()
}

// cancel stops what a request is at: on its way, at its handler, on its way back. Each is
// answered all the same.
func (a *answerer) cancel(id uint64) {
	c := (*serverConn)(a)
	c.reqs.Lock()
	r := c.reqs.by[id]
	if r == nil || r.cancelled {
		c.reqs.Unlock()
		return
	}
	r.cancelled = true
	stop, answered := r.stop, r.answered
	c.reqs.Unlock()
	switch {
	case answered:
		c.recall(r)
	case stop != nil:
		stop()
	default: // on its way in
		r.answer(Answer{})
		c.out.kick()
	}
}

// recall takes back an answer that was queued.
func (c *serverConn) recall(r *request) {
	switch c.out.withdraw(&r.out) {
	case waiting:
		r.answer(Answer{})
	case begun:
		c.out.signal(head{kind: kindCancel, id: r.in.h.id})
	}
	c.out.kick()
}

func (a *answerer) goodbye(code Code, words string) {
	a.end(&told{by: "the peer ended the connection", code: code, text: words})
}

// dry sends the answers that were held while more requests were there.
func (a *answerer) dry() {
	if a.held {
		a.held = false
		a.out.kick()
	}
}

// ended cancels all handlers.
func (a *answerer) ended(error) {
	a.stopAll()
	a.reqs.Lock()
	defer a.reqs.Unlock()
	a.reqs.ended = true
	for _, r := range a.reqs.by {
		r.uncount()
	}
	clear(a.reqs.by)
}
