package nbd

import (
	"cmp"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"openvstorage/internal/counted"
)

// ErrServerClosed is returned by Serve after Close.
var ErrServerClosed = errors.New("nbd: server closed")

// Options of a Server.
type Options struct {
	Limits Limits
	Logger *slog.Logger // nil: none
	TLS    TLS          // needed by ServeTLS and ServeConnTLS
}

// Server serves exports to clients on any number of listeners.
type Server struct {
	exports Exports
	limits  Limits
	log     *slog.Logger
	tls     TLS

	memory  memory
	buffers buffers
	workers workers
	stats   stats

	refusing sync.WaitGroup

	mu struct {
		sync.Mutex
		closed    bool
		nextID    uint64
		conns     map[*conn]struct{}
		listeners map[net.Listener]struct{}

		origins [origins]int // connections
		sources map[netip.Addr]*source
		doors   int // listeners of networks

		greeting list.List // *conn in their handshakes, the oldest first
		leaving  int       // conns that were sent away in their handshakes, and are not gone yet

		lowered int // Limits.Connections for the time being, or 0
		refused map[net.Conn]struct{}
		toldAt  time.Time // that clients are refused

		warnedAt       time.Time
		warned, unsaid int // lines since then, and lines that were left out
	}
}

// NewServer makes a server; Serve lets clients in.
func NewServer(exports Exports, opts Options) (*Server, error) {
	if err := opts.Limits.Validate(); err != nil {
		return nil, err
	}
	s := &Server{exports: exports, limits: opts.Limits.withDefaults(), log: opts.Logger, tls: opts.TLS}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.memory.limit = s.limits.ServerBytes
	s.buffers.idleMax, s.buffers.memory, s.workers.memory = s.limits.IdleBytes, &s.memory, &s.memory
	s.mu.sources = make(map[netip.Addr]*source)
	s.mu.refused = make(map[net.Conn]struct{})
	s.mu.conns = make(map[*conn]struct{})
	s.mu.listeners = make(map[net.Listener]struct{})
	return s, nil
}

// Serve accepts clients on ln until ctx is done, and returns nil then; until Close, and
// returns ErrServerClosed; or until the listener fails. It closes ln. ctx is only for
// accepting: clients stay until they leave or the server is closed.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return s.ServeTLS(ctx, ln, TLSOff)
}

// errNeedsTLS is the error of a mode that Options.TLS makes impossible.
var errNeedsTLS = errors.New("nbd: Options.TLS has no Config: there is no certificate to show")

// ServeTLS is Serve for clients that use TLS, or may use it. TLS begins within NBD, by
// STARTTLS: ln is a listener of plain connections.
func (s *Server) ServeTLS(ctx context.Context, ln net.Listener, mode TLSMode) error {
	if mode != TLSOff && s.tls.Config == nil {
		_ = ln.Close()
		return errNeedsTLS
	}
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		_ = ln.Close()
		return ErrServerClosed
	}
	s.mu.listeners[ln] = struct{}{}
	_, remote := ln.Addr().(*net.TCPAddr)
	d := &door{remote: remote, tls: mode}
	if remote {
		s.mu.doors++
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.mu.listeners, ln)
		if remote {
			s.mu.doors--
		}
		s.mu.Unlock()
		_ = ln.Close()
	}()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()

	const firstPause, lastPause = 5 * time.Millisecond, time.Second
	pause := firstPause
	for {
		nc, err := ln.Accept()
		if err == nil {
			pause = firstPause
			go func() { _ = s.serveConn(nc, originOf(nc), d, nil) }() // it has logged its error
			continue
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case s.isClosed():
			return ErrServerClosed
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("nbd: listener %v: %w", ln.Addr(), err)
		}
		// Most likely the process has no descriptor left. Clients that leave free some.
		s.log.Warn("nbd: cannot accept a client; trying again", "listener", ln.Addr(), "pause", pause, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// ServeConn serves one client until it leaves. Unix and TCP connections are fast only if nc
// is one itself, and not wrapped. Nil says that the client left in good order, or that Close
// or Disconnect sent it away.
func (s *Server) ServeConn(nc net.Conn) error { return s.serveConn(nc, originOf(nc), nil, nil) }

// ServeConnTLS is ServeConn for a client that uses TLS, or may use it.
func (s *Server) ServeConnTLS(nc net.Conn, mode TLSMode) error {
	if mode != TLSOff && s.tls.Config == nil {
		_ = nc.Close()
		return errNeedsTLS
	}
	return s.serveConn(nc, originOf(nc), &door{tls: mode}, nil)
}

// ServeResender serves one connection of a client that sends requests again. All
// connections of that client must be served with the same Resender, those too that replace
// others.
func (s *Server) ServeResender(nc *net.UnixConn, client *Resender) error {
	return s.serveConn(nc, selfOrigin, nil, client)
}

func (s *Server) serveConn(nc net.Conn, from origin, by *door, client *Resender) error {
	c, err := s.register(nc, from, by)
	if err != nil {
		s.refuse(nc, by.tlsMode(), err)
		return err
	}
	c.resender = client
	err = c.serve()
	// Before it is gone from conns, which is all that Close waits for.
	c.dropTLS()
	s.memory.scratch.Add(-connBytes)
	s.memory.stacks.Add(-stackBytes)
	s.mu.Lock()
	delete(s.mu.conns, c)
	s.greetedLocked(c)
	if c.sentAway {
		s.mu.leaving--
	} else {
		s.leaveLocked(c)
	}
	s.mu.Unlock()
	close(c.done)
	if errors.Is(err, errHungUp) {
		s.stats.hungUp.Add(1)
	}
	attrs := []any{"remote", remote(nc), "export", shown(c.name), "err", message(err)}
	if name := peerName(c.secured); name != "" {
		attrs = append(attrs, "peer", name)
	}
	if gone(err) {
		s.log.Debug("nbd: client left", attrs...)
		return nil
	}
	s.stats.failed.Add(1)
	s.warn("nbd: connection closed", attrs...)
	return fmt.Errorf("nbd: client %s of export %s: %w", remote(nc), shown(c.name), err)
}

// warn logs what clients cause, at most some lines a second: a client must not fill a disk.
func (s *Server) warn(text string, attrs ...any) {
	const most = 10
	s.mu.Lock()
	if now := time.Now(); now.Sub(s.mu.warnedAt) >= time.Second {
		s.mu.warnedAt, s.mu.warned = now, 0
	}
	s.mu.warned++
	if s.mu.warned > most {
		s.mu.unsaid++
		s.mu.Unlock()
		return
	}
	if s.mu.unsaid > 0 {
		attrs = append(attrs, "lines_left_out", s.mu.unsaid)
		s.mu.unsaid = 0
	}
	s.mu.Unlock()
	s.log.Warn(text, attrs...)
}

// shown is a name that a client has given, fit for a line of text.
func shown(name string) string {
	const most = 64
	if len(name) <= most {
		return strconv.Quote(name)
	}
	return fmt.Sprintf("%s... (%d bytes)", strconv.Quote(name[:most]), len(name))
}

func remote(nc net.Conn) string {
	if a := nc.RemoteAddr(); a != nil && a.String() != "" {
		return a.String()
	}
	return "local"
}

func (s *Server) register(nc net.Conn, from origin, by *door) (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil, ErrServerClosed
	}
	c := newConn(s, nc, s.mu.nextID+1)
	c.origin, c.door = from, by
	if err := s.admitLocked(c); err != nil {
		c.cancel()
		s.tellRefusedLocked(nc, err)
		return nil, err
	}
	s.stats.accepted.Add(1)
	s.memory.scratch.Add(connBytes)
	s.memory.stacks.Add(stackBytes)
	s.mu.nextID++
	s.mu.conns[c] = struct{}{}
	c.greeting = s.mu.greeting.PushBack(c)
	return c, nil
}

// tellRefusedLocked logs that clients are refused, one line a minute.
func (s *Server) tellRefusedLocked(nc net.Conn, err error) {
	n := s.stats.refused.Add(1)
	if now := time.Now(); now.Sub(s.mu.toldAt) >= time.Minute {
		s.mu.toldAt = now
		s.log.Warn("nbd: "+err.Error(), "remote", remote(nc), "refused", n)
	}
}

// enter lets c into the transmission phase unless the server closes.
func (s *Server) enter(c *conn, ss session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return false
	}
	c.session, c.serving = ss, true
	return true
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.closed
}

// Connections lists the clients past their handshake in order of arrival.
func (s *Server) Connections() []ConnectionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var infos []ConnectionInfo
	for c := range s.mu.conns {
		if !c.serving {
			continue
		}
		c.mu.Lock()
		inflight := c.mu.inflight
		c.mu.Unlock()
		infos = append(infos, ConnectionInfo{
			ID: c.id, Remote: remote(c.sock.conn), Export: c.name,
			Since: c.since, Requests: c.requests.Load(), InFlight: inflight,
			Secure: c.secured != nil, Peer: peerName(c.secured),
		})
	}
	slices.SortFunc(infos, func(a, b ConnectionInfo) int { return cmp.Compare(a.ID, b.ID) })
	return infos
}

// Disconnect sends away the clients of an export: requests received whole are
// answered first, or cancelled after the drain timeout. It returns when their
// devices are released or ctx is done. It does not keep clients from coming
// back: make Exports.Open refuse them first.
func (s *Server) Disconnect(ctx context.Context, export string) error {
	return s.await(ctx, s.stop(func(c *conn) bool { return c.serving && c.name == export }))
}

// DisconnectPeers sends away, as Disconnect does, the clients of TLS for which lost returns
// true, those in their NBD handshake too: their certificates have been revoked, for example.
// lost must not call the server. Authorize must refuse them first.
func (s *Server) DisconnectPeers(ctx context.Context, lost func(peer *tls.ConnectionState) bool) error {
	return s.await(ctx, s.stop(func(c *conn) bool { return c.secured != nil && lost(c.secured) }))
}

// Close ends all listeners, sends all clients away as Disconnect does, and
// returns when their devices are released. If a device ignores that its
// requests were cancelled, Close gives up a while after the drain timeout and
// says so.
func (s *Server) Close() error {
	s.mu.Lock()
	s.mu.closed = true
	for ln := range s.mu.listeners {
		_ = ln.Close()
	}
	for nc := range s.mu.refused {
		_ = nc.Close()
	}
	s.mu.Unlock()
	s.refusing.Wait()
	const grace = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), s.limits.DrainTimeout+grace)
	defer cancel()
	err := s.await(ctx, s.stop(func(*conn) bool { return true }))
	s.workers.close()
	if err == nil {
		s.workers.wg.Wait() // no connection: all are parked or about to be
	}
	return err
}

// stop sends away the clients that match, and returns them. One that is still in its
// handshake is hung up on.
func (s *Server) stop(match func(*conn) bool) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var stopped []*conn
	for c := range s.mu.conns {
		if !match(c) {
			continue
		}
		stopped = append(stopped, c)
		if c.serving {
			c.stop()
		} else {
			c.cancel()
			_ = c.sock.conn.Close() // its reader gets and reports the error
		}
	}
	return stopped
}

func (s *Server) await(ctx context.Context, conns []*conn) error {
	for i, c := range conns {
		select {
		case <-c.done:
		case <-ctx.Done():
			return fmt.Errorf("nbd: %s for a device, export %s first: %w", counted.Of(len(conns)-i, "connection still waits", "connections still wait"), shown(c.name), ctx.Err())
		}
	}
	return nil
}
