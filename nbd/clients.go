package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"openvstorage/device"
	"openvstorage/internal/counted"
)

// Connections are few, and strangers must not take them all. So each kind of client, each
// listener and each address has its part of them.

// origin is where a client is.
type origin uint8

const (
	remoteOrigin origin = iota // by a network, loopback too
	localOrigin                // by a unix socket, or given to ServeConn
	selfOrigin                 // a Resender: a block device of this machine
	origins
)

// source is an address with the connections from there.
type source struct {
	addr  netip.Addr
	conns int          // under Server.mu
	bytes atomic.Int64 // charged to them
}

// door is a listener with its connections.
type door struct {
	remote bool
	tls    TLSMode
	conns  int // under Server.mu
}

func (d *door) tlsMode() TLSMode {
	if d == nil {
		return TLSOff
	}
	return d.tls
}

func originOf(nc net.Conn) origin {
	if _, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return remoteOrigin
	}
	return localOrigin
}

// addressOf is what counts as one address. Of IPv6 that is a network of 64 bits, as one host
// may have all of its addresses.
func addressOf(nc net.Conn) (netip.Addr, bool) {
	tcp, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	if addr.Is6() && !addr.IsLoopback() {
		if p, err := addr.Prefix(64); err == nil {
			addr = p.Addr()
		}
	}
	return addr, true
}

// self is how many connections are kept for Resenders; local, for Resenders and clients by
// unix sockets together; remote is the rest.
func (l Limits) self() int   { return l.Connections / 16 }
func (l Limits) local() int  { return l.Connections / 4 }
func (l Limits) remote() int { return l.Connections - l.local() }

// LimitConnections lowers Limits.Connections to n, and its parts in proportion, while the
// process needs its descriptors for other things. 0 ends that. Clients that are connected
// stay.
func (s *Server) LimitConnections(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.lowered = n
}

// partsLocked are the limits of connections that hold now.
func (s *Server) partsLocked() Limits {
	l := s.limits
	if n := s.mu.lowered; n > 0 && n < l.Connections {
		l.Address = max(1, l.Address*n/l.Connections)
		l.Connections = n
	}
	return l
}

// full is a limit of connections that is reached.
type full struct {
	err   error
	over  bool             // it is exceeded already, so one client less does not help
	among func(*conn) bool // clients that may be sent away, and whose place would help
}

// admitLocked counts a client in, or says which limit is reached. Before it refuses, it sends
// away the oldest client that has not finished its handshake: clients that say nothing must
// not keep out those that do.
func (s *Server) admitLocked(c *conn) error {
	for {
		f := s.roomLocked(c)
		if f == nil {
			break
		}
		if f.over || !s.sendAwayLocked(f.among) {
			return f.err
		}
	}
	if addr, ok := addressOf(c.sock.conn); ok && c.origin == remoteOrigin {
		c.source = s.mu.sources[addr]
		if c.source == nil {
			c.source = &source{addr: addr}
			s.mu.sources[addr] = c.source
		}
		c.source.conns++
	}
	s.mu.origins[c.origin]++
	if c.door != nil {
		c.door.conns++
	}
	return nil
}

// roomLocked returns the first limit that c would exceed, or nil.
func (s *Server) roomLocked(c *conn) *full {
	l, n := s.partsLocked(), &s.mu.origins
	// A client by a network must not cause one of this machine to be sent away.
	others := func(o *conn) bool {
		return o.origin == remoteOrigin || o.origin == localOrigin && c.origin != remoteOrigin
	}
	if have := n[remoteOrigin] + n[localOrigin] + n[selfOrigin]; have >= l.Connections {
		return &full{fmt.Errorf("client refused: %s the limit", counted.Of(l.Connections, "connection is", "connections are")), have > l.Connections, others}
	}
	if have, most := n[remoteOrigin]+n[localOrigin], l.Connections-l.self(); c.origin != selfOrigin && have >= most {
		return &full{fmt.Errorf("client refused: %s the limit, others are kept for block devices", counted.Of(most, "connection is", "connections are")), have > most, others}
	}
	addr, addressed := addressOf(c.sock.conn)
	if c.origin != remoteOrigin || !addressed {
		return nil
	}
	if have, most := n[remoteOrigin], l.remote(); have >= most {
		return &full{fmt.Errorf("client refused: %s the limit, others are kept for this machine", counted.Of(most, "connection by network is", "connections by network are")), have > most,
			func(o *conn) bool { return o.origin == remoteOrigin }}
	}
	if c.door != nil {
		if have, most := c.door.conns, max(1, l.remote()/max(1, s.mu.doors)); have >= most {
			return &full{fmt.Errorf("client refused: %s the limit", counted.Of(most, "connection to one address of the server is", "connections to one address of the server are")), have > most,
				func(o *conn) bool { return o.door == c.door }}
		}
	}
	if src := s.mu.sources[addr]; src != nil && src.conns >= l.Address {
		return &full{fmt.Errorf("client refused: %s the limit", counted.Of(l.Address, "connection from one address is", "connections from one address are")), src.conns > l.Address,
			func(o *conn) bool { return o.source == src }}
	}
	return nil
}

// leavers is how many clients may be on their way out. Their places are given to others at
// once, but what is still done for them, opening an export for example, must not pile up.
const leavers = 64

// sendAwayLocked sends away the oldest client that is still in its handshake, and gives its
// place back. Clients that have just come stay: a flood of connections must not end the
// handshakes of others.
func (s *Server) sendAwayLocked(among func(*conn) bool) bool {
	if s.mu.leaving >= leavers {
		return false
	}
	for e := s.mu.greeting.Front(); e != nil; e = e.Next() {
		c := e.Value.(*conn)
		if time.Since(c.since) < s.limits.HandshakeGrace {
			return false
		}
		if !among(c) {
			continue
		}
		s.greetedLocked(c)
		s.leaveLocked(c)
		c.sentAway = true
		s.mu.leaving++
		c.cancel()
		_ = c.sock.conn.Close() // its reader gets and reports the error
		s.tellRefusedLocked(c.sock.conn, errNoPlace)
		return true
	}
	return false
}

var errNoPlace = errors.New("client sent away in its handshake: there is no place left, and others have come")

// settle keeps c from being sent away for others. It reports false if c already was.
func (c *conn) settle() bool {
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	c.srv.greetedLocked(c)
	return !c.sentAway
}

// greetedLocked notes that c is no longer in its handshake.
func (s *Server) greetedLocked(c *conn) {
	if c.greeting != nil {
		s.mu.greeting.Remove(c.greeting)
		c.greeting = nil
	}
}

// leaveLocked takes back what admitLocked has counted.
func (s *Server) leaveLocked(c *conn) {
	s.mu.origins[c.origin]--
	if c.door != nil {
		c.door.conns--
	}
	if src := c.source; src != nil {
		if src.conns--; src.conns == 0 {
			delete(s.mu.sources, src.addr)
		}
	}
}

// Bounds of telling refused clients why: how many at a time, and how long each.
const (
	refusals    = 16
	refusalTime = 2 * time.Second
)

// refuse tells a client why it is not served, in a handshake in which every export gives
// that error. TLS is not begun for that: STARTTLS gives it too.
func (s *Server) refuse(nc net.Conn, mode TLSMode, reason error) {
	defer nc.Close()
	s.mu.Lock()
	if s.mu.closed || len(s.mu.refused) >= refusals {
		s.mu.Unlock()
		return
	}
	s.mu.refused[nc] = struct{}{}
	s.refusing.Add(1)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.mu.refused, nc)
		s.mu.Unlock()
		s.refusing.Done()
	}()
	if nc.SetDeadline(time.Now().Add(refusalTime)) != nil {
		return
	}
	h := handshake{rw: nc, exports: noExports{reason}, buffers: &s.buffers}
	h.security = security{mode: mode, begin: func() (pendingTLS, error) { return nil, reason }}
	defer h.close()
	_, _ = h.run(context.Background()) // it always ends with an error
}

// noExports gives one error for every export.
type noExports struct{ reason error }

func (n noExports) Open(context.Context, string) (device.Reader, func(), error) {
	return nil, nil, n.reason
}
func (n noExports) List(context.Context) ([]Info, error) { return nil, n.reason }
