package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"openvstorage/internal/wire"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Member is what a Transport needs of the node that it is for; *arakoon.Node is one. Both
// methods are called from any goroutine and must not block.
type Member interface {
	// Step takes a message of another member. It keeps the message.
	Step(m *pb.Message) error
	// ReportUnreachable says that appends to a member were lost.
	ReportUnreachable(member uint64)
}

// Transport is one member's way to the others. Its methods are safe for concurrent use.
type Transport struct {
	o     Options
	pace  *pace
	pool  *wire.Pool    // for what is read of snapshots
	reads chan struct{} // a place for each read of a snapshot
	stats counters
	node  atomic.Pointer[bound]

	mu     sync.Mutex
	closed bool
	peers  map[uint64]*peer
	wait   sync.WaitGroup // of streams
}

// bound is the member that a Transport serves.
type bound struct {
	Member
}

// peer is another member.
type peer struct {
	address Address
	streams [2]*sending // by stream; nil until there is something to send
}

// counters are those of Stats.
type counters struct {
	sent, received, dropped, unknown, large, refused, failed, stale, reads atomic.Uint64
}

// Stats are figures of a Transport since it was made.
type Stats struct {
	Sent     uint64 // messages that left
	Received uint64 // messages that were given to the node
	Dropped  uint64 // messages that found their queue full or no connection, or were lost with it
	Unknown  uint64 // messages for members that Peers does not know
	Large    uint64 // messages that are too large for the wire
	Refused  uint64 // requests of others that were refused
	Failed   uint64 // requests to others that were refused
	Stale    uint64 // messages that came behind a gap, after their sender had given them up
	Reads    uint64 // of snapshots, that were answered
	Queued   int    // messages that wait
	Bytes    int64  // of those, about
	Up       int    // connections
}

// New checks the options and makes a Transport. It connects to nobody before there is
// something to send.
func New(o Options) (*Transport, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Transport{
		o: o, pace: &pace{rate: o.FetchRate}, pool: wire.NewPool(int64(o.ServeReads)*2*readMax, 4*readMax),
		reads: make(chan struct{}, o.ServeReads), peers: map[uint64]*peer{},
	}, nil
}

// Send queues messages for other members. It does not block. Messages, and the data of
// their entries, must not be changed any more.
func (t *Transport) Send(messages []*pb.Message) {
	for _, m := range messages {
		s := t.stream(m.GetTo(), streamOf(m))
		if s == nil {
			t.stats.unknown.Add(1)
			continue
		}
		s.put(m)
	}
}

// streamOf says by which stream a message goes. All appends go by one, those without
// entries too: they come after those with.
func streamOf(m *pb.Message) stream {
	if m.GetType() == pb.MsgApp {
		return ordered
	}
	return urgent
}

// stream returns the stream to a member, nil if there is no such member.
func (t *Transport) stream(to uint64, which stream) *sending {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[to]
	if p == nil {
		a, ok := t.o.Peers(to)
		if t.closed || !ok || to == t.o.Member {
			return nil
		}
		p = &peer{address: a}
		t.peers[to] = p
	}
	if p.streams[which] == nil && !t.closed {
		p.streams[which] = t.newSending(to, which)
	}
	return p.streams[which]
}

// Update looks at the addresses of all members again. Connections to one that has moved are
// made anew, and those to one that is no member any more are closed.
func (t *Transport) Update() {
	t.mu.Lock()
	var moved, gone []*sending
	for id, p := range t.peers {
		a, ok := t.o.Peers(id)
		switch {
		case !ok:
			delete(t.peers, id)
			gone = append(gone, p.streams[:]...)
		case a != p.address:
			p.address = a
			moved = append(moved, p.streams[:]...)
		}
	}
	t.mu.Unlock()
	for _, s := range moved {
		if s != nil {
			s.redialer.Renew(errors.New("the member has moved"))
		}
	}
	for _, s := range gone {
		if s != nil {
			s.stop()
		}
	}
}

// heard is for a member of which a message came: it is there, so a connection to it is tried
// at once.
func (t *Transport) heard(from uint64) {
	t.mu.Lock()
	var streams [2]*sending
	if p := t.peers[from]; p != nil {
		streams = p.streams
	}
	t.mu.Unlock()
	for _, s := range streams {
		if s != nil && !s.up.Load() {
			s.redialer.Hurry()
		}
	}
}

// Close closes all connections to others, and drops what waits for them. It returns when
// nothing of them is left. The service must have been taken from its Groups before.
func (t *Transport) Close() {
	t.mu.Lock()
	t.closed = true
	var all []*sending
	for id, p := range t.peers {
		delete(t.peers, id)
		all = append(all, p.streams[:]...)
	}
	t.mu.Unlock()
	for _, s := range all {
		if s != nil {
			s.stop()
		}
	}
	t.wait.Wait()
}

// Stats returns the figures as they are now.
func (t *Transport) Stats() Stats {
	c := &t.stats
	s := Stats{
		Sent: c.sent.Load(), Received: c.received.Load(), Dropped: c.dropped.Load(), Unknown: c.unknown.Load(), Large: c.large.Load(),
		Refused: c.refused.Load(), Failed: c.failed.Load(), Stale: c.stale.Load(), Reads: c.reads.Load(),
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.peers {
		for _, q := range p.streams {
			if q == nil {
				continue
			}
			q.mu.Lock()
			s.Queued += len(q.queue)
			s.Bytes += q.bytes
			q.mu.Unlock()
			if q.up.Load() {
				s.Up++
			}
		}
	}
	return s
}

// lost tells raft that appends to a member were lost.
func (t *Transport) lost(member uint64) {
	if b := t.node.Load(); b != nil {
		b.ReportUnreachable(member)
	}
}

// refused tells the member that another one's host answers and refuses it, or that it has
// taken a connection since, if the member wants to know.
func (t *Transport) refused(by uint64, now bool) {
	b := t.node.Load()
	if b == nil {
		return
	}
	if m, ok := b.Member.(interface{ ReportRefused(by uint64, now bool) }); ok {
		m.ReportRefused(by, now)
	}
}

// refuses reports whether an attempt to connect failed because the other side, which was
// reached, does not want this one: it was removed, or is of another life. Under TLS 1.3 an
// alert comes when the other side has shown its certificate.
func refuses(why error) bool {
	var alert *net.OpError
	return errors.Is(why, wire.ErrLife) || errors.Is(why, wire.ErrDenied) || errors.As(why, &alert) && alert.Op == "remote error"
}

// refusal is the error of a request that another member has refused.
func refusal(reply *wire.Reply) error {
	return fmt.Errorf("%w: %s", Status(reply.Status).err(), printable(reply.Header))
}

// printable is what another side said, as far as it can be shown.
func printable(b []byte) string {
	s := []byte(string(b[:min(len(b), 1024)]))
	for i, c := range s {
		if c < ' ' || c > '~' {
			s[i] = '?'
		}
	}
	return string(s)
}

func errAttr(err error) slog.Attr { return slog.Any("error", err) }
