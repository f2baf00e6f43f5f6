package kvclient

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/internal/wire"
)

// search is one question to all members who leads.
type search struct {
	done    chan struct{} // closed after the two below were set
	leader  uint64        // 0: nobody is known to
	refused error         // why no member will ever answer, if so
}

// How long a search waits for members that have not answered. Once one was named, another may yet
// name a newer one: a member that has lost the lead, and does not know it yet, may be the first to
// answer. While none was named, somebody who hangs must not keep the others from being asked
// again; what it says in the end is taken then.
const (
	lateAnswers = 20 * time.Millisecond  // since one was named
	slowAnswers = 100 * time.Millisecond // since the search began, if some member has answered
)

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
	full         string // who says so, if it waits for room on its disk
	obstacle     string // of a member that leads
	err          error
}

// obstacle is what stands in the way of writes, as members say. It goes away by itself, or when
// somebody does what it says.
type obstacle struct {
	full  []string // members that wait for room on their disks
	words string   // of the member that leads
}

func (o *obstacle) Error() string {
	if len(o.full) == 0 {
		return o.words
	}
	return fmt.Sprintf("%v: %s: it goes on by itself when there is room", arakoon.ErrFull, strings.Join(o.full, ", "))
}

func (o *obstacle) Is(target error) bool { return target == arakoon.ErrFull && len(o.full) > 0 }

// run asks. Each member has Options.Probe to answer, and is asked by one search at a time.
func (c *router) run(s *search) {
	members := c.known()
	answers := make(chan named, len(members))
	asked := 0
	for _, m := range members {
		if m.asked.CompareAndSwap(false, true) {
			asked++
			c.running.Go(func() { c.ask(m, s, answers) })
		}
	}
	var best named
	var refused []error
	var full []string
	if len(members) > 0 {
		best, refused, full = c.gather(answers, asked)
	}
	if c.stands.Store(nil); len(full) > 0 || best.obstacle != "" {
		c.stands.Store(&obstacle{full, best.obstacle})
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

// gather takes the answers of so many members, until it knows enough or has waited for long
// enough.
func (c *router) gather(answers <-chan named, asked int) (best named, refused []error, full []string) {
	slow := time.NewTimer(slowAnswers)
	defer slow.Stop()
	var late <-chan time.Time
	waited, spoken := false, asked == 0
	for more := true; more; more = asked > 0 { // at first asked may be 0: all are busy with an earlier search
		select {
		case a := <-answers:
			asked--
			if a.full != "" {
				full = append(full, a.full)
			}
			switch {
			case a.err == nil:
				spoken = true
			case refuses(a.err):
				refused = append(refused, a.err)
			}
			if a.err == nil && a.leader != 0 && (best.leader == 0 || a.term > best.term || a.term == best.term && a.obstacle != "") {
				best = a
			}
			if best.leader != 0 && late == nil {
				timer := time.NewTimer(lateAnswers)
				defer timer.Stop()
				late = timer.C
			}
		case <-late:
			return best, refused, full
		case <-slow.C:
			waited = true
		case <-c.ctx.Done():
			return best, refused, full
		}
		if waited && spoken && best.leader == 0 {
			return best, refused, full
		}
	}
	return best, refused, full
}

// ask asks one member for a search. An answer that comes when the search is over is worth as much
// as a hint: it is taken if nobody is known to lead.
func (c *router) ask(m *member, s *search, answers chan<- named) {
	ctx, stop := context.WithTimeout(c.ctx, c.o.Probe)
	defer stop()
	a := m.ask(ctx)
	m.asked.Store(false)
	select {
	case <-s.done:
		if a.err == nil && a.leader != 0 {
			c.master.CompareAndSwap(0, a.leader)
		}
	default:
		answers <- a
	}
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
	a := named{leader: s.Leader, term: s.Term, err: err}
	if s.Leads {
		a.obstacle = s.Obstacle
	}
	if s.Full {
		a.full = fmt.Sprintf("member %d", m.id)
		if conn, err := m.wire.Conn(); err == nil && conn.Peer().Addr != nil {
			a.full += fmt.Sprintf(" on the host at %s", conn.Peer().Addr)
		}
	}
	return a
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
