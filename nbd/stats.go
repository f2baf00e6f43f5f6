package nbd

import (
	"crypto/tls"
	"errors"
	"sync/atomic"
	"time"
)

// Stats are the server's counters since its start, and its gauges.
type Stats struct {
	Accepted    uint64 // connections
	Refused     uint64 // connections over the limit
	Failed      uint64 // connections that ended by an error: handshake, protocol, stall
	HungUp      uint64 // connections of Resenders that their clients hung up
	Outliving   int64  // connections that wait for the end of one of these, now
	Connections int64  // now

	// Requests received, by Command; each WRITE counts once its payload is in.
	Requests     [commands]uint64
	ReadBytes    uint64 // asked for
	WrittenBytes uint64
	Errors       uint64 // requests answered with an error
	Rounds       uint64 // groups of requests answered together

	InFlight     int64 // requests and batches in workers, now
	RequestBytes int64 // buffers of requests and of replies that wait, now
	BufferBytes  int64 // those, and receive and reply buffers, now
	IdleBytes    int64 // free buffers, now
	Held         int64 // all memory for clients: the two above, connections, workers, now
	Stacks       int64 // and the stacks of their goroutines, about
}

// ConnectionInfo is what is known of one client past its handshake.
type ConnectionInfo struct {
	ID       uint64
	Remote   string
	Export   string
	Since    time.Time
	Requests uint64
	InFlight int

	Secure bool   // by TLS
	Peer   string // the subject of the client's certificate; "": it has shown none
}

// peerName is the subject of the peer's certificate, which was verified, fit for a line of text.
func peerName(peer *tls.ConnectionState) string {
	if peer == nil || len(peer.VerifiedChains) == 0 {
		return ""
	}
	return message(errors.New(peer.VerifiedChains[0][0].Subject.String()))
}

type stats struct {
	accepted, refused, failed atomic.Uint64
	requests                  [commands]atomic.Uint64
	read, written             atomic.Uint64
	errors, rounds            atomic.Uint64
	hungUp                    atomic.Uint64
	inflight, charged         atomic.Int64
	outliving                 atomic.Int64
}

// add counts a round.
func (s *stats) add(r *round) {
	for i, n := range r.counts {
		if n > 0 {
			s.requests[i].Add(n)
		}
	}
	if r.read > 0 {
		s.read.Add(r.read)
	}
	if r.written > 0 {
		s.written.Add(r.written)
	}
	if r.errors > 0 {
		s.errors.Add(r.errors)
	}
	s.rounds.Add(1)
}

// Limits returns the limits that hold, defaults filled in.
func (s *Server) Limits() Limits { return s.limits }

// Stats returns the counters. They are read one by one, not at one instant.
func (s *Server) Stats() Stats {
	st := Stats{
		Accepted:     s.stats.accepted.Load(),
		Refused:      s.stats.refused.Load(),
		Failed:       s.stats.failed.Load(),
		HungUp:       s.stats.hungUp.Load(),
		Outliving:    s.stats.outliving.Load(),
		ReadBytes:    s.stats.read.Load(),
		WrittenBytes: s.stats.written.Load(),
		Errors:       s.stats.errors.Load(),
		Rounds:       s.stats.rounds.Load(),
		InFlight:     s.stats.inflight.Load(),
		RequestBytes: s.stats.charged.Load(),
		BufferBytes:  s.memory.buffers.Load(),
	}
	for i := range st.Requests {
		st.Requests[i] = s.stats.requests[i].Load()
	}
	s.buffers.mu.Lock()
	st.IdleBytes = s.buffers.idle
	s.buffers.mu.Unlock()
	st.Held = s.memory.buffers.Load() + s.memory.scratch.Load() + st.IdleBytes
	st.Stacks = s.memory.stacks.Load()
	s.mu.Lock()
	st.Connections = int64(len(s.mu.conns))
	s.mu.Unlock()
	return st
}
