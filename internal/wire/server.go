package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Handler answers the requests of a service. Serve is called from many goroutines at once,
// up to what Limits and ServerOptions allow. ctx ends with the request's deadline, with its
// cancellation, and with the connection. The request's memory is the handler's until Serve
// returns, or until it releases what it took. A panic of Serve is not caught.
type Handler interface {
	Serve(ctx context.Context, r *Incoming) Answer
}

// HandlerFunc is a Handler.
type HandlerFunc func(ctx context.Context, r *Incoming) Answer

// Serve calls f.
func (f HandlerFunc) Serve(ctx context.Context, r *Incoming) Answer { return f(ctx, r) }

// Incoming is a request as its handler sees it.
type Incoming struct {
	Op       uint16
	Priority Priority
	Header   []byte
	Body     []byte // page-aligned from 4 KiB on
	Peer     *Peer  // shared by all requests of the connection

	buf *Buffer
}

// Take returns the body with the right to it: header and body may be used until its
// Release, also after Serve has returned.
func (r *Incoming) Take() *Buffer {
	buf := r.buf
	r.buf = nil
	return buf
}

// Answer is what a handler returns. It must not refer to the request's memory, unless that
// was taken.
type Answer struct {
	Status uint16  // uint16(CodeOK), a status from StatusService on, or one of CodeUnknownOp, CodeDenied, CodeBusy
	Header []byte  // up to HeaderMax bytes, not changed any more
	Body   *Buffer // up to BodyMax bytes; it is the connection's from now on
	Sum    bool    // let the wire checksum the body, as it has none of its own
}

// Service is what a server offers under a name.
type Service struct {
	Handler Handler
	// Inline, if not nil, says which operations are answered by the goroutine that reads:
	// those that never block, on nothing. That saves two switches of goroutines.
	Inline func(op uint16) bool
	// Life returns the life of a group, or false if there is no such group. nil: the group
	// "" has life 0, and there is no other.
	Life func(group string) (life uint64, ok bool)
	// Admit, if not nil, decides whether a peer may use the service, within ctx. Its error
	// is told to the peer.
	Admit func(ctx context.Context, p *Peer) error
}

// ServerOptions are for NewServer. The zero value of a limit is its default.
type ServerOptions struct {
	Services map[string]*Service
	Identity func() Identity // asked for each connection, from any goroutine
	MinLevel uint32          // the lowest feature level of a peer
	// Least, if not nil, is asked for each connection, from any goroutine: a peer must have that
	// feature level too.
	Least func() uint32
	TLS      *tls.Config     // nil: plain. ALPN is set by the server, the least version to 1.3
	// Foreign are protocols that ALPN may name besides the services, such as h2: a
	// connection is given away after the handshake, and closed when the call returns.
	Foreign map[string]func(*tls.Conn)

	Limits     Limits
	Conns      int   // at a time; 1024
	Handshakes int   // connections whose peer is not known yet; 128, at most half of Conns; a quarter of them from one IP address
	PerPeer    int   // connections from one IP address; 256
	Requests   int   // in flight on all connections; 16384. Half of them from one IP address
	Memory     int64 // bytes of requests on all connections; 1 GiB. Half of it for one IP address, or the longest request

	// Refused, if not nil, is told of each connection that was not taken, or that broke the
	// protocol. It must not block.
	Refused func(from net.Addr, why error)
}

// Server answers on listeners. Its methods are safe for concurrent use.
type Server struct {
	o        ServerOptions
	tls      *tls.Config
	pool     *Pool
	requests atomic.Int64
	refused  atomic.Int64
	handlers sync.WaitGroup

	mu         sync.Mutex
	closing    bool
	listeners  map[net.Listener]struct{}
	conns      map[*serverConn]struct{} // behind their prefaces
	open       map[net.Conn]struct{}    // all
	handshakes int
	shaking    map[string]int // of them, by peerKey
	admitting  map[net.Conn]*admission
	perPeer    map[string]*share
	idle       chan struct{} // closed when closing and nothing is open
}

// NewServer checks the options and makes a server.
func NewServer(o ServerOptions) (*Server, error) {
	var err error
	if o.Limits, err = o.Limits.withDefaults(); err != nil {
		return nil, err
	}
	for _, d := range []struct {
		v  *int
		or int
	}{{&o.Conns, 1024}, {&o.Handshakes, 128}, {&o.PerPeer, 256}, {&o.Requests, 16384}} {
		if *d.v == 0 {
			*d.v = d.or
		}
		if *d.v < 0 {
			return nil, fmt.Errorf("wire: a limit of the server is %d", *d.v)
		}
	}
	o.Handshakes = min(o.Handshakes, max(1, o.Conns/2))
	if o.Memory == 0 {
		o.Memory = 1 << 30
	}
	if _, least := classOf(o.Limits.Body + HeaderMax); o.Identity == nil || o.Memory < int64(least) {
		return nil, fmt.Errorf("wire: a server needs an Identity, and %d bytes of Memory or more for its longest request", least)
	}
	for name, s := range o.Services {
		if !goodName(name) || s == nil || s.Handler == nil {
			return nil, fmt.Errorf("wire: service %q has no handler, or its name is not 1-%d bytes of printable ASCII", name, nameMax)
		}
	}
	s := &Server{o: o, pool: NewPool(o.Memory, min(o.Memory, 64<<20)), listeners: map[net.Listener]struct{}{}, conns: map[*serverConn]struct{}{},
		open: map[net.Conn]struct{}{}, perPeer: map[string]*share{}, shaking: map[string]int{}, admitting: map[net.Conn]*admission{}, idle: make(chan struct{})}
	if o.TLS != nil {
		s.tls = s.config()
	}
	return s, nil
}

// config is the caller's TLS with ALPN of the server's. A client that asks for a service
// that there is not gets through TLS, and then hears so by name.
func (s *Server) config() *tls.Config {
	base := s.o.TLS.Clone()
	base.MinVersion = tls.VersionTLS13
	base.DynamicRecordSizingDisabled = true
	theirs := base.GetConfigForClient
	base.GetConfigForClient = func(hi *tls.ClientHelloInfo) (*tls.Config, error) {
		c := base
		if theirs != nil {
			own, err := theirs(hi)
			if err != nil {
				return nil, err
			}
			if own != nil {
				c = own
			}
		}
		c = c.Clone()
		c.GetConfigForClient, c.MinVersion, c.DynamicRecordSizingDisabled = nil, tls.VersionTLS13, true
		c.NextProtos = nil
		for _, name := range hi.SupportedProtos {
			if s.o.Services[name] != nil || s.o.Foreign[name] != nil {
				c.NextProtos = []string{name}
				break
			}
		}
		return c, nil
	}
	return base
}

// Serve takes connections of l until l fails or Close is called, when it returns nil. It
// closes l.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.listeners, l)
	}()
	pause := time.Duration(0)
	for {
		c, err := l.Accept()
		if err == nil {
			pause = 0
			s.take(c)
			continue
		}
		s.mu.Lock()
		closing := s.closing
		s.mu.Unlock()
		switch {
		case closing:
			return nil
		case slices.ContainsFunc(passing, func(e error) bool { return errors.Is(err, e) }):
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
			case <-s.idle:
			}
		default:
			return fmt.Errorf("wire: accept on %v: %w", l.Addr(), err)
		}
	}
}

// passing are errors of Accept after which it is tried again: a want of descriptors or
// memory, and clients that went before they were taken.
var passing = []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED}

// take serves a connection in a goroutine of its own, if there is a place for it.
func (s *Server) take(c net.Conn) {
	key := peerKey(c.RemoteAddr())
	s.mu.Lock()
	var err error
	var mine *share
	switch {
	case s.closing:
		err = fmt.Errorf("%w", ErrClosing)
	case len(s.open) >= s.o.Conns:
		err = fmt.Errorf("%w: all %d connections are taken", ErrBusy, s.o.Conns)
	case s.handshakes >= s.o.Handshakes:
		err = fmt.Errorf("%w: %d connections are in their handshake", ErrBusy, s.handshakes)
	case key != "" && s.shaking[key] >= (s.o.Handshakes+3)/4:
		err = fmt.Errorf("%w: %d connections of %s are in their handshake", ErrBusy, s.shaking[key], key)
	case s.perPeer[key] != nil && key != "" && s.perPeer[key].conns >= s.o.PerPeer:
		err = fmt.Errorf("%w: %s has %d connections already", ErrBusy, key, s.o.PerPeer)
	default:
		s.open[c] = struct{}{}
		s.handshakes++
		s.shaking[key]++
		if s.perPeer[key] == nil {
			s.perPeer[key] = &share{}
		}
		s.perPeer[key].conns++
		mine = s.perPeer[key]
	}
	s.mu.Unlock()
	if err != nil {
		s.turnAway(c, err)
		return
	}
	go func() {
		defer s.gone(c, key)
		s.handle(c, mine)
	}()
}

// share is what connections of one peer take of the server's bounds together.
type share struct {
	conns           int // guarded by Server.mu
	requests, bytes atomic.Int64
}

// over says whether the share is more than a peer may take. Unix sockets, which have no
// address, share with nobody.
func (s *Server) over(c *serverConn) bool {
	_, least := classOf(s.o.Limits.Body + HeaderMax)
	return peerKey(c.peer.Addr) != "" && (c.share.requests.Load() >= int64(max(1, s.o.Requests/2)) || c.share.bytes.Load() > max(s.o.Memory/2, int64(least)+overhead))
}

// peerKey is what connections of one peer have in common before it is known: its IP
// address. Those of unix sockets have nothing.
func peerKey(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.IP.String()
	}
	return ""
}

// turnAway closes a connection that was never taken. On plain ones it says why, if that
// can be done at once; TLS would cost a handshake.
func (s *Server) turnAway(c net.Conn, err error) {
	defer c.Close()
	s.report(c, err)
	if s.tls != nil || newAttempt(c) == nil {
		return
	}
	p := preface{kind: refusal, newest: versionNewest, oldest: versionOldest, code: codeOf(err), text: err.Error()}
	_, _ = newAttempt(c).write(segments{p.append(nil)})
}

func (s *Server) report(c net.Conn, err error) {
	s.refused.Add(1)
	if s.o.Refused != nil {
		s.o.Refused(c.RemoteAddr(), err)
	}
}

// shookLocked is for a connection whose handshake is over.
func (s *Server) shookLocked(c net.Conn) {
	s.handshakes--
	key := peerKey(c.RemoteAddr())
	if s.shaking[key]--; s.shaking[key] == 0 {
		delete(s.shaking, key)
	}
}

func (s *Server) gone(c net.Conn, key string) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	if s.perPeer[key].conns--; s.perPeer[key].conns == 0 {
		delete(s.perPeer, key)
	}
	s.quietLocked()
}

func (s *Server) quietLocked() {
	if s.closing && len(s.open) == 0 {
		select {
		case <-s.idle:
		default:
			close(s.idle)
		}
	}
}

// Close ends the server. Listeners are closed at once; peers are told that no further
// request is taken; requests in flight are answered, until ctx ends. Then connections are
// closed, and Close waits for handlers, whose contexts have ended. It returns why ctx ended,
// if it has.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	for l := range s.listeners {
		l.Close()
	}
	conns := make([]*serverConn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	for c := range s.open {
		if !slices.ContainsFunc(conns, func(sc *serverConn) bool { return sc.link.raw == c }) {
			c.Close() // in its handshake, or given away
		}
	}
	s.quietLocked()
	s.mu.Unlock()
	for _, c := range conns {
		go c.drain(ctx)
	}
	<-s.idle
	s.handlers.Wait()
	return context.Cause(ctx)
}

// Disconnect ends the connections whose peers match, such as those whose certificate was
// revoked: no further request is taken from them, they are told why, and closed within a
// second. It returns how many.
func (s *Server) Disconnect(match func(*Peer) bool, why error) int {
	why = fmt.Errorf("%w: %w", ErrDenied, why)
	s.mu.Lock()
	var out []*serverConn
	admitting := 0
	for _, a := range s.admitting {
		if match(&a.peer) {
			a.why = why
			admitting++
		}
	}
	for c := range s.conns {
		if match(&c.peer) {
			c.expelled.Store(true)
			out = append(out, c)
		}
	}
	s.mu.Unlock()
	for _, c := range out {
		go c.expel(why)
	}
	return len(out) + admitting
}

// Stats is what a server holds.
type Stats struct {
	Conns      int   // open, handshakes among them
	Handshakes int   // whose peer is not known yet
	Requests   int64 // in flight
	Memory     int64 // bytes of requests, and of what is about to be sent from the same pool
	Refused    int64 // connections, since the start
}

// Stats returns what the server holds at the moment.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{len(s.open), s.handshakes, s.requests.Load(), s.pool.Taken(), s.refused.Load()}
}
