package kv

import (
	"context"
	"fmt"
	"time"

	"openvstorage/arakoon"
	"openvstorage/internal/wire"
)

// Options are for NewServer. Groups must be given; zero values of the others get the
// defaults.
type Options struct {
	// Groups returns the member of a group in this process, or false if there is none, or
	// if it is not open. It is asked for each request, from any goroutine, and must not
	// block.
	Groups func(group string) (Group, bool)
	// Admit, if not nil, decides whether a peer may use the service, as wire.Service.Admit.
	Admit func(ctx context.Context, p *wire.Peer) error
	// Allow, if not nil, decides whether a peer may do an operation. It must not block. Its
	// error is told to the peer.
	Allow func(p *wire.Peer, op uint16) error

	Reads   int           // at a time that touch the store; 32. Others wait, up to the wire's bounds
	Answers int64         // bytes of values on their way out, beyond which reads and watches are refused with BUSY, those of one peer beyond half of it; 256 MiB
	AtLeast time.Duration // how long a read waits for the revision that it must see, before INCONSISTENT_READ; 1 s
}

// Server answers for the members of this process. What it holds is bounded: the answers by
// Options.Answers and what Options.Reads reads return, requests by the wire's limits. It
// has no goroutines of its own and nothing to close. Safe for concurrent use.
type Server struct {
	o     Options
	slots chan struct{} // reads that touch the store
	pace  pace
	ops   [opMost]counter

	answers answers // on their way out
}

// NewServer checks the options and makes a server.
func NewServer(o Options) (*Server, error) {
	if o.Reads == 0 {
		o.Reads = 32
	}
	if o.Answers == 0 {
		o.Answers = 256 << 20
	}
	if o.AtLeast == 0 {
		o.AtLeast = time.Second
	}
	if o.Groups == nil || o.Reads < 0 || o.Answers < 0 || o.AtLeast < 0 {
		return nil, fmt.Errorf("arakoon/kv: a server needs Groups, and no limit below 0: Reads %d, Answers %d, AtLeast %v", o.Reads, o.Answers, o.AtLeast)
	}
	return &Server{o: o, slots: make(chan struct{}, o.Reads), answers: answers{limit: o.Answers, by: map[asks]int64{}}}, nil
}

// Service is what a wire.Server offers under the name Service.
func (s *Server) Service() *wire.Service {
	return &wire.Service{
		Handler: s, Admit: s.o.Admit,
		// A local read seldom waits for a disk. While it does, or while places are rare,
		// it has a goroutine of its own like all others.
		Inline: func(op uint16) bool {
			switch op {
			case OpGetLocal, OpExistsLocal:
				return s.pace.fast() && len(s.slots) < cap(s.slots)/2
			case OpStatistics:
				return true
			}
			return false
		},
		Life: func(group string) (uint64, bool) {
			g, ok := s.o.Groups(group)
			return g.Life, ok
		},
	}
}

// handlers are the operations. Each returns the answer, or an error that becomes one.
var handlers = [opMost]func(s *Server, ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error){
	OpGet: (*Server).get, OpGetLocal: (*Server).get, OpExists: (*Server).exists, OpExistsLocal: (*Server).exists,
	OpMultiGet: (*Server).multiGet, OpMultiGetLocal: (*Server).multiGet, OpRange: (*Server).scan, OpRangeLocal: (*Server).scan,
	OpCount: (*Server).count, OpCountLocal: (*Server).count, OpSettle: (*Server).settled, OpWatch: (*Server).watch,
	OpWrite: (*Server).write, OpOpenSession: (*Server).openSession, OpTransfer: (*Server).transfer, OpChangeMembers: (*Server).changeMembers, OpRequireZones: (*Server).requireZones,
	OpStatus: (*Server).status, OpStatistics: (*Server).statistics, OpHashAt: (*Server).hashAt,
	OpRaiseLevel: (*Server).raiseLevel, OpLevel: (*Server).level,
}

// Serve implements wire.Handler. The answer refers to nothing of the request.
func (s *Server) Serve(ctx context.Context, r *wire.Incoming) wire.Answer {
	if r.Op >= opMost || handlers[r.Op] == nil {
		return wire.Answer{Status: uint16(wire.CodeUnknownOp), Header: fmt.Appendf(nil, "%s has no operation %d in this release", Service, r.Op)}
	}
	if s.o.Allow != nil {
		if err := s.o.Allow(r.Peer, r.Op); err != nil {
			s.ops[r.Op].failed.Add(1)
			return wire.Answer{Status: uint16(wire.CodeDenied), Header: []byte(err.Error())}
		}
	}
	began := time.Now()
	g, open := s.o.Groups(r.Peer.Group)
	var (
		a   wire.Answer
		err error
	)
	switch {
	case open && g.Life != r.Peer.Life: // a connection outlives the life that it was made for
		err = fmt.Errorf("%w: group %q has life %d now, and this connection is of life %d", wire.ErrLife, r.Peer.Group, g.Life, r.Peer.Life)
	case !open:
		err = fmt.Errorf("%w: group %q is not open in this process", arakoon.ErrClosed, r.Peer.Group)
	default:
		age := ages(&g, r)
		if a, err = handlers[r.Op](s, ctx, &g, r); err == nil {
			age.put(a.Header)
		}
	}
	s.ops[r.Op].note(time.Since(began), err != nil)
	if err == nil {
		return a
	}
	f := failureOf(err, OpWrites(r.Op))
	return wire.Answer{Status: f.Status, Header: f.append(nil)}
}
