package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"openvstorage/internal/bell"
	"openvstorage/internal/wire"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Bounds of what is sent.
const (
	flightMost = 1024     // requests in flight, as many as the wire takes by itself
	batchBytes = 1 << 20  // of messages, then no further one goes into a request
	awayMost   = 16       // urgent messages that are kept while there is no connection
	bodyMost   = 31 << 20 // of a request; the wire takes a little more
)

// sending is a stream to another member. A goroutine of its own encodes what is queued and
// gives it to the connection.
type sending struct {
	t        *Transport
	to       uint64
	which    stream
	bell     bell.Bell // there is something to do
	redialer *wire.Redialer
	up       atomic.Bool
	ctx      context.Context
	cancel   context.CancelFunc
	over     chan struct{} // closed when the goroutine has ended

	mu          sync.Mutex
	conn        *wire.Conn // nil while there is none
	queue       []queued
	bytes       int64 // of the queue
	flying      int   // requests that are not answered
	flyingBytes int64
	run         uint32 // of the ordered stream, since when nothing was lost
	number      uint64 // of the next request in it
	lost        bool   // raft is to be told that appends were lost
	said        string // the error that was logged last, while there is no connection
}

// queued is a message that waits.
type queued struct {
	m    *pb.Message
	size int64
}

// newSending makes a stream. The Transport's lock is held.
func (t *Transport) newSending(to uint64, which stream) *sending {
	s := &sending{t: t, to: to, which: which, over: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	var err error
	s.redialer, err = wire.NewRedialer(wire.RedialOptions{
		Target: func(ctx context.Context) (wire.DialOptions, error) { return t.target(ctx, to) },
		First:  t.o.Redial, Most: t.o.Most, Up: s.came, Down: s.went,
	})
	if err != nil {
		panic(err) // the options were checked by New
	}
	t.wait.Go(s.loop)
	return s
}

// target makes the options of a connection to a member.
func (t *Transport) target(ctx context.Context, to uint64) (wire.DialOptions, error) {
	a, ok := t.o.Peers(to)
	if !ok {
		return wire.DialOptions{}, fmt.Errorf("transport: group %q has no member %d", t.o.Group, to)
	}
	d, err := t.o.Dial(ctx, a)
	if err != nil {
		return d, fmt.Errorf("transport: member %d at %s: %w", to, a.Address, err)
	}
	if d.Network == "" && d.Address == "" {
		d.Network, d.Address = a.Network, a.Address
	}
	d.Service, d.Group, d.Life, d.Identity.Cluster = ServiceName, t.o.Group, t.o.Life, t.o.Cluster
	admit := d.Admit
	d.Admit = func(p *wire.Peer) error {
		if !t.o.Belongs(to, p) {
			return fmt.Errorf("member %d is not of host %v, which answers at %s", to, p.Host, a.Address)
		}
		if admit != nil {
			return admit(p)
		}
		return nil
	}
	return d, nil
}

// came is told of a connection.
func (s *sending) came(c *wire.Conn) {
	s.mu.Lock()
	s.conn, s.said = c, ""
	s.begin()
	s.mu.Unlock()
	s.up.Store(true)
	s.t.refused(s.to, false)
	s.bell.Ring()
	s.t.o.Logger.Info("connected to a member", "to", s.to, "stream", s.which, "address", c.Peer().Addr)
}

// went is told of a connection that has ended, and of each attempt that failed.
func (s *sending) went(why error) {
	s.up.Store(false)
	if refuses(why) { // until a connection comes: that the host is off later takes nothing back
		s.t.refused(s.to, true)
	}
	s.mu.Lock()
	s.conn = nil
	s.lose()
	said := s.said
	s.said = why.Error()
	news := said != s.said && s.ctx.Err() == nil
	s.mu.Unlock()
	s.bell.Ring()
	if news {
		s.t.o.Logger.Warn("no connection to a member; it is tried again and again", "to", s.to, "stream", s.which, errAttr(why))
	}
}

// begin begins another run: nothing that was sent before is waited for. The lock is held
// here, and in lose, shed and full.
func (s *sending) begin() {
	s.run++
	s.number = 0
}

// lose is for when something was lost. Appends that wait behind a gap would be rejected;
// raft sends what is needed when it is told. Of the urgent ones the newest may still be
// worth something.
func (s *sending) lose() {
	s.lost = s.which == ordered
	if s.which == ordered {
		s.shed(0)
		s.begin()
	} else if s.conn == nil {
		s.shed(awayMost)
	}
}

// shed drops the oldest messages until most are left.
func (s *sending) shed(most int) {
	n := max(0, len(s.queue)-most)
	s.t.stats.dropped.Add(uint64(n))
	for i := range n {
		s.bytes -= s.queue[i].size
	}
	left := copy(s.queue, s.queue[n:])
	clear(s.queue[left:])
	s.queue = s.queue[:left]
}

// put queues a message, or drops it or older ones.
func (s *sending) put(m *pb.Message) {
	q := queued{m, sizeOf(m)}
	s.mu.Lock()
	switch {
	case s.which == ordered && (s.conn == nil || s.full()):
		// Those before it are without a gap, and still of use.
		s.t.stats.dropped.Add(1)
		s.lost = true
	default:
		if s.which == urgent && s.conn == nil {
			s.shed(awayMost - 1)
		} else if s.full() {
			s.shed(len(s.queue) - 1)
		}
		s.queue = append(s.queue, q)
		s.bytes += q.size
	}
	s.mu.Unlock()
	s.bell.Ring()
}

func (s *sending) full() bool {
	return len(s.queue) >= s.t.o.QueueMessages || s.bytes >= s.t.o.QueueBytes
}

// loop sends what is queued until the stream is stopped.
func (s *sending) loop() {
	defer close(s.over)
	var batch []*pb.Message
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.bell.Rung():
		}
		for {
			var f flight
			batch, f = s.take(batch[:0])
			if len(batch) == 0 {
				break
			}
			s.send(batch, f)
			clear(batch)
		}
		s.mu.Lock()
		lost := s.lost
		s.lost = false
		s.mu.Unlock()
		if lost {
			s.t.lost(s.to)
		}
	}
}

// flight is a request on its way.
type flight struct {
	conn   *wire.Conn
	run    uint32
	number uint64
	size   int64
	count  int
}

// take takes what goes into the next request, if one may be sent.
func (s *sending) take(batch []*pb.Message) ([]*pb.Message, flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil || s.flying >= s.t.o.FlightRequests || s.flyingBytes >= s.t.o.FlightBytes {
		return batch, flight{}
	}
	f := flight{conn: s.conn, run: s.run, number: s.number}
	for len(batch) < len(s.queue) && len(batch) < messagesMax && (len(batch) == 0 || f.size+s.queue[len(batch)].size <= batchBytes) {
		q := s.queue[len(batch)]
		f.size += q.size
		batch = append(batch, q.m)
	}
	if f.count = len(batch); f.count == 0 {
		return batch, f
	}
	s.bytes -= f.size
	left := copy(s.queue, s.queue[f.count:])
	clear(s.queue[left:])
	s.queue = s.queue[:left]
	s.number++
	s.flying++
	s.flyingBytes += f.size
	return batch, f
}

// send sends a request, and does not wait for its answer.
func (s *sending) send(batch []*pb.Message, f flight) {
	h := header{stream: s.which, count: f.count, from: s.t.o.Member, to: s.to}
	if s.which == ordered {
		h.run, h.number = f.run, f.number
	}
	pieces, size, err := encode(batch)
	if err == nil && size > bodyMost {
		err = fmt.Errorf("%w: messages of %d bytes", wire.ErrTooLarge, size)
	}
	if err == nil {
		err = f.conn.Start(s.ctx, wire.Request{
			Op: opMessages, Header: h.append(make([]byte, 0, headerSize)), Body: wire.Wrap(nil, pieces...), Sum: true,
		}, func(r *wire.Reply, err error) { s.answered(f, r, err) })
	}
	if err != nil {
		s.answered(f, nil, err)
		return
	}
	s.t.stats.sent.Add(uint64(f.count))
}

// answered is for a request that was answered, or will not be.
func (s *sending) answered(f flight, r *wire.Reply, err error) {
	if err == nil && r.Status != uint16(wire.CodeOK) {
		err = refusal(r)
		s.t.stats.failed.Add(1)
	}
	s.mu.Lock()
	waits := len(s.queue) > 0
	s.flying--
	s.flyingBytes -= f.size
	if err != nil {
		s.t.stats.dropped.Add(uint64(f.count))
		if f.run == s.run && s.which == ordered {
			s.lose()
		}
	}
	current := s.conn == f.conn
	news := err != nil && current && s.said != err.Error()
	if news {
		s.said = err.Error()
	}
	s.mu.Unlock()
	if errors.Is(err, wire.ErrTooLarge) {
		s.t.stats.large.Add(uint64(f.count))
	}
	if news {
		s.t.o.Logger.Warn("messages to a member were lost", "to", s.to, "stream", s.which, "messages", f.count, errAttr(err))
	}
	// A later connection may be of the group as it is now. It may be there already, and then
	// stays: an answer that comes late says nothing of it.
	if current && errors.Is(err, ErrLife) {
		s.redialer.Renew(err)
	}
	if waits || err != nil {
		s.bell.Ring()
	}
}

// stop ends the stream, and waits for it.
func (s *sending) stop() {
	s.cancel()
	s.redialer.Close()
	<-s.over
	s.up.Store(false)
}
