package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"openvstorage/arakoon"
	"openvstorage/internal/wire"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Groups is the service "ovs-raft" of a host: it answers for each group of which the host
// has a member. Its methods are safe for concurrent use.
type Groups struct {
	mu sync.RWMutex
	by map[string]*group
}

// group is one of them.
type group struct {
	t         *Transport
	member    Member
	snapshots Snapshots
	gone      atomic.Bool // removed: connections that were made before bring nothing any more
}

// NewGroups makes a service without groups.
func NewGroups() *Groups { return &Groups{by: map[string]*group{}} }

// Add serves a group: t brings the member what others send, and tells it what was lost.
// snapshots may be nil: then there are none.
func (g *Groups) Add(t *Transport, m Member, snapshots Snapshots) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.by[t.o.Group] != nil {
		return fmt.Errorf("transport: group %q is served already", t.o.Group)
	}
	g.by[t.o.Group] = &group{t: t, member: m, snapshots: snapshots}
	t.node.Store(&bound{m})
	return nil
}

// Remove serves a Transport's group no longer. What older connections still bring for it is
// refused, also if the group is added again.
func (g *Groups) Remove(t *Transport) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if old := g.by[t.o.Group]; old != nil && old.t == t {
		old.gone.Store(true)
		t.node.Store(nil)
		delete(g.by, t.o.Group)
	}
}

// Service is for a wire.Server, under ServiceName.
func (g *Groups) Service() *wire.Service {
	return &wire.Service{
		Handler: wire.HandlerFunc(serve),
		Inline:  func(op uint16) bool { return op == opMessages },
		Life:    g.life,
		Admit:   g.admit,
	}
}

// Service is that of a host with one group.
func (t *Transport) Service(n *arakoon.Node) *wire.Service {
	g := NewGroups()
	if err := g.Add(t, n, SnapshotsOf(n)); err != nil {
		panic(err) // it is the first
	}
	return g.Service()
}

func (g *Groups) of(name string) *group {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.by[name]
}

func (g *Groups) life(name string) (uint64, bool) {
	if found := g.of(name); found != nil {
		return found.t.o.Life, true
	}
	return 0, false
}

// admit makes a connection one of the group as it is now.
func (g *Groups) admit(ctx context.Context, p *wire.Peer) error {
	found := g.of(p.Group)
	if found == nil || found.t.o.Life != p.Life {
		return fmt.Errorf("%w: %q was changed while the connection was made", ErrLife, p.Group)
	}
	p.Value = &receiving{group: found}
	if found.t.o.Admit != nil {
		return found.t.o.Admit(ctx, p)
	}
	return nil
}

// receiving is what is known of a connection by which messages come.
type receiving struct {
	group *group
	said  atomic.Uint64 // statuses that were logged

	// of the goroutine that reads:
	from  uint64 // the member at the other end; 0: none has said so yet
	order order
}

// serve answers a request.
func serve(_ context.Context, r *wire.Incoming) wire.Answer {
	c := r.Peer.Value.(*receiving)
	if c.group.gone.Load() {
		return c.refuse(r, fmt.Errorf("%w: group %q is not served any more by what this connection was made with", ErrLife, r.Peer.Group))
	}
	var a wire.Answer
	var err error
	switch r.Op {
	case opMessages:
		err = c.messages(r)
	case opSnapshotList, opSnapshotRead:
		a, err = c.group.t.snapshot(c.group, r)
	default:
		return wire.Answer{Status: uint16(wire.CodeUnknownOp)}
	}
	if err != nil {
		return c.refuse(r, err)
	}
	return a
}

// refuse answers a request that was not done.
func (c *receiving) refuse(r *wire.Incoming, err error) wire.Answer {
	t := c.group.t
	if errors.Is(err, wire.ErrBusy) {
		return wire.Answer{Status: uint16(wire.CodeBusy), Header: []byte(err.Error())}
	}
	t.stats.refused.Add(1)
	status := statusOf(err)
	if bit := uint64(1) << (status - StatusMember); c.said.Or(bit)&bit == 0 {
		t.o.Logger.Warn("a request of another member was refused", "address", r.Peer.Addr, "host", r.Peer.Host, errAttr(err))
	}
	words := err.Error()
	return wire.Answer{Status: uint16(status), Header: []byte(words[:min(len(words), wordsMax)])}
}

// wordsMax is how much is said with a refusal.
const wordsMax = 1024

// messages gives the node what came, in the order of its stream. It runs on the goroutine
// that reads the connection.
func (c *receiving) messages(r *wire.Incoming) error {
	t := c.group.t
	h, err := decodeHeader(r.Header)
	if err != nil {
		return err
	}
	if err := c.sender(h.from, h.to, r.Peer); err != nil {
		return err
	}
	size := len(r.Body)
	messages, err := decode(own(r), h.count)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if m.GetFrom() != h.from || m.GetTo() != h.to {
			return fmt.Errorf("%w: a message from %d for %d in a request from %d for %d", ErrMember, m.GetFrom(), m.GetTo(), h.from, h.to)
		}
	}
	t.heard(h.from)
	if h.stream == urgent {
		return c.step(messages)
	}
	stale, err := c.order.take(h.run, h.number, arrived{messages, size})
	t.stats.stale.Add(uint64(stale))
	for err == nil {
		next, ok := c.order.next()
		if !ok {
			break
		}
		err = c.step(next)
	}
	return err
}

// own makes a request's body memory that may be kept for long: raft keeps entries in its
// log. Short ones are copied, so that the memory of the connection is free at once.
func own(r *wire.Incoming) []byte {
	if len(r.Body) < detachMin {
		return bytes.Clone(r.Body)
	}
	return r.Take().Detach()
}

// detachMin is the shortest body that is not copied.
const detachMin = 64 << 10

// sender checks whom a request is from and for. A connection has one member at its other end.
func (c *receiving) sender(from, to uint64, p *wire.Peer) error {
	t := c.group.t
	switch {
	case to != t.o.Member:
		return fmt.Errorf("%w: member %d is meant, and here is member %d", ErrMember, to, t.o.Member)
	case from == c.from && from != 0:
		return nil
	case c.from != 0:
		return fmt.Errorf("%w: member %d speaks by a connection of member %d", ErrMember, from, c.from)
	case from == t.o.Member || !t.o.Belongs(from, p):
		return fmt.Errorf("%w: member %d is not of host %v", ErrMember, from, p.Host)
	}
	c.from = from
	return nil
}

func (c *receiving) step(messages []*pb.Message) error {
	for _, m := range messages {
		if err := c.group.member.Step(m); err != nil {
			return fmt.Errorf("%w: %w", ErrEnded, err)
		}
		c.group.t.stats.received.Add(1)
	}
	return nil
}
