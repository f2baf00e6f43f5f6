package kvclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/arakoon/kv"
	"openvstorage/internal/wire"
)

// search is one question to all members who leads.
type search struct {
	done    chan struct{} // closed after the two below were set
	leader  uint64        // 0: nobody is known to
	refused error         // why no member will ever answer, if so
}

// lateAnswers is how long a search waits for the other members once one was named: a member
// that has lost the lead, and does not know it yet, may be the first to answer.
const lateAnswers = 20 * time.Millisecond

// find asks the members who leads, and remembers it. All who ask at the same time share one
// search. An error is for good.
func (c *router) find(ctx context.Context) (leader uint64, err error) {
	if err := c.refresh(); err != nil {
		return 0, err
	}
	c.mu.Lock()
	s := c.search
	if s == nil && !c.closed {
		s = &search{done: make(chan struct{})}
		c.search = s
		c.running.Go(func() { c.run(s) })
	}
	c.mu.Unlock()
	if s == nil {
		return 0, c.ended(ctx)
	}
	select {
	case <-s.done:
		return s.leader, s.refused
	case <-ctx.Done():
		return 0, nil
	case <-c.ctx.Done():
		return 0, nil
	}
}

// named is what a member says of who leads.
type named struct {
	leader, term uint64
	err          error
}

// run asks. Each member has Options.Probe to answer.
func (c *router) run(s *search) {
	members := c.known()
	ctx, stop := context.WithTimeout(c.ctx, c.o.Probe)
	defer stop()
	answers := make(chan named, len(members))
	for _, m := range members {
		c.running.Go(func() { answers <- m.ask(ctx) })
	}
	var best named
	var late <-chan time.Time
	refused := make([]error, 0, len(members))
asking:
	for range members {
		select {
		case a := <-answers:
			switch {
			case a.err != nil && refuses(a.err):
				refused = append(refused, a.err)
			case a.err == nil && a.leader != 0 && (best.leader == 0 || a.term > best.term):
				best = a
			}
			if best.leader != 0 && late == nil {
				timer := time.NewTimer(lateAnswers)
				defer timer.Stop()
				late = timer.C
			}
		case <-late:
			break asking
		}
	}
	s.leader = best.leader
	if len(members) > 0 && len(refused) == len(members) {
		s.refused = fmt.Errorf("arakoon/kvclient: group %q: every member refuses: %w", c.o.Group, errors.Join(refused...))
	}
	if s.leader != 0 {
		c.master.Store(s.leader)
	}
	c.mu.Lock()
	c.search = nil
	c.mu.Unlock()
	close(s.done)
}

// ask asks one member. Without a connection there is no answer, but an attempt for one.
func (m *member) ask(ctx context.Context) named {
	reply, err := m.wire.Call(ctx, wire.Request{Op: kv.OpStatus, Header: []byte{kv.Version}})
	if err != nil {
		m.wire.Hurry()
		return named{err: err}
	}
	defer reply.Release()
	if reply.Status != uint16(wire.CodeOK) {
		f, err := kv.ReadFailure(reply.Status, reply.Header)
		if err == nil {
			err = f.Err()
		}
		return named{err: err}
	}
	s, err := kv.ReadStatus(reply.Header)
	if s.Failed {
		return named{}
	}
	return named{leader: s.Leader, term: s.Term, err: err}
}

// refuses says whether an error is a member's word that this client will never be served.
func refuses(err error) bool {
	for _, e := range []error{wire.ErrCluster, wire.ErrVersion, wire.ErrLevel, wire.ErrService, wire.ErrDenied} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
