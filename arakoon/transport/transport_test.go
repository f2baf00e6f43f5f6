package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/internal/wire"

	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Messages of all kinds and sizes come as they were sent, appends in their order.
func TestMessagesArrive(t *testing.T) {
	for _, kind := range []string{"tcp", "tls", "pipe"} {
		t.Run(kind, func(t *testing.T) {
			n := newNetwork(t, kind, 2, nil)
			one, two := n.hosts[0], n.hosts[1]
			two.member.steps = make(chan struct{}, 1000)
			one.t.Send([]*pb.Message{beat(1, 2, 1)})
			<-two.member.steps
			connected(t, one.t, 2)
			var sent []*pb.Message
			for i := range uint64(100) {
				size := 100
				switch {
				case i%50 == 7:
					size = 3 << 20
				case i%10 == 3:
					size = 100 << 10
				}
				sent = append(sent, appendOf(1, 2, i+1, size))
				one.t.Send(sent[i : i+1])
				if i%20 == 0 {
					one.t.Send([]*pb.Message{beat(1, 2, i)})
				}
			}
			for range 105 {
				<-two.member.steps
			}
			var appends []*pb.Message
			for _, m := range two.member.messages() {
				if m.GetType() == pb.MsgApp {
					appends = append(appends, m)
				}
			}
			if len(appends) != len(sent) {
				t.Fatalf("%d of %d appends came", len(appends), len(sent))
			}
			for i, m := range appends {
				if !proto.Equal(m, sent[i]) {
					t.Fatalf("append %d came as %d", sent[i].GetIndex()+1, m.GetIndex()+1)
				}
			}
			if s := one.t.Stats(); s.Dropped+s.Unknown+s.Failed+s.Large > 0 || one.member.reports() > 0 {
				t.Errorf("%+v", s)
			}
			if s := two.server.Stats(); s.Memory != 0 {
				t.Errorf("%d bytes of requests are held", s.Memory)
			}
		})
	}
}

// connected waits until both streams to a member are up. An append that is sent before is
// lost, and raft is told; here the streams are made without one.
func connected(t *testing.T, tr *Transport, to uint64) {
	t.Helper()
	for _, which := range []stream{urgent, ordered} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		s := tr.stream(to, which)
		_, err := s.redialer.Wait(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		for !s.up.Load() { // the Redialer tells of it a moment later
			select {
			case <-t.Context().Done():
				t.Fatal("no connection")
			default:
				yield()
			}
		}
	}
}

// stuck is a connection that takes nothing more and brings nothing more once it is shut.
type stuck struct {
	net.Conn
	mu   sync.Mutex
	shut chan struct{} // closed: it is stuck
	end  chan struct{}
	once sync.Once
}

func newStuck(c net.Conn) *stuck {
	return &stuck{Conn: c, shut: make(chan struct{}), end: make(chan struct{})}
}

func (s *stuck) stick() { close(s.shut) }

func (s *stuck) Write(p []byte) (int, error) {
	select {
	case <-s.shut:
		<-s.end
		return 0, net.ErrClosed
	default:
		return s.Conn.Write(p)
	}
}

func (s *stuck) Close() error {
	s.once.Do(func() { close(s.end) })
	return s.Conn.Close()
}

// However many appends wait for a connection that takes nothing, heartbeats pass, what waits
// is bounded, Send does not block, and raft is told.
func TestBulkHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "pipe", 2, func(_ uint64, o *Options) { o.QueueBytes, o.QueueMessages = 4<<20, 100 })
		one, two := n.hosts[0], n.hosts[1]
		var bulk *stuck
		n.wrap = func(from, _ uint64, c net.Conn) net.Conn {
			if from != 1 || bulk != nil {
				return c
			}
			bulk = newStuck(c)
			return bulk
		}
		one.t.stream(2, ordered)
		synctest.Wait()
		bulk.stick()
		for i := range uint64(1000) {
			one.t.Send([]*pb.Message{appendOf(1, 2, i+1, 64<<10)})
			if i == 500 {
				synctest.Wait()
			}
		}
		for i := range uint64(5) {
			one.t.Send([]*pb.Message{beat(1, 2, i)})
			synctest.Wait()
		}
		if got := two.member.messages(); len(got) != 5 || got[4].GetCommit() != 4 {
			t.Errorf("%d heartbeats came", len(got))
		}
		s := one.t.Stats()
		if s.Queued > 100 || s.Bytes > 5<<20 || s.Queued == 0 || s.Dropped < 500 {
			t.Errorf("%+v", s)
		}
		if one.member.reports() == 0 {
			t.Error("raft was not told that appends were lost")
		}
		// The wire finds out that the peer is stuck, and another connection is made.
		before := one.member.reports()
		time.Sleep(time.Minute)
		one.t.Send([]*pb.Message{appendOf(1, 2, 2000, 10)})
		synctest.Wait()
		got := two.member.messages()
		if last := got[len(got)-1]; last.GetIndex() != 1999 {
			t.Errorf("after another connection was made: %v", last)
		}
		if one.member.reports() == before {
			t.Error("raft was not told of what was in flight")
		}
	})
}

// Of urgent messages the newest are kept, up to the bound, and a few while nobody is there.
func TestUrgentOnesAreNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "pipe", 2, nil)
		one, two := n.hosts[0], n.hosts[1]
		two.l.Close()
		stopServer(two.server)
		for i := range uint64(10000) {
			one.t.Send([]*pb.Message{beat(1, 2, i)})
		}
		if s := one.t.Stats(); s.Queued != awayMost || s.Dropped != 10000-awayMost {
			t.Errorf("%+v", s)
		}
		n.serve(two)
		time.Sleep(5 * time.Second)
		got := two.member.messages()
		if len(got) != awayMost || got[0].GetCommit() != 10000-awayMost {
			t.Errorf("%d came, the first of %d", len(got), got[0].GetCommit())
		}
		if one.member.reports() != 0 {
			t.Error("raft was told of lost appends, and there were none")
		}
	})
}

// A member that was away, and comes back elsewhere, is found, and appends to it go on.
func TestAwayAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "pipe", 2, nil)
		one, two := n.hosts[0], n.hosts[1]
		one.t.stream(2, ordered)
		synctest.Wait()
		one.t.Send([]*pb.Message{appendOf(1, 2, 1, 10)})
		synctest.Wait()
		stopServer(two.server)
		synctest.Wait()
		for i := range uint64(10) {
			time.Sleep(time.Second)
			one.t.Send([]*pb.Message{appendOf(1, 2, i+2, 10)})
		}
		synctest.Wait()
		if one.member.reports() < 10 {
			t.Errorf("raft was told %d times", one.member.reports())
		}
		n.serve(two) // with another listener
		n.mu.Lock()
		n.addr[2] = Address{Network: "tcp", Address: "elsewhere", Host: two.id}
		n.mu.Unlock()
		one.t.Update()
		time.Sleep(3 * time.Second)
		one.t.Send([]*pb.Message{appendOf(1, 2, 20, 10)})
		synctest.Wait()
		if got := two.member.messages(); len(got) != 2 || got[1].GetIndex() != 19 {
			t.Errorf("%v", got)
		}
		// One that is heard of is dialled without waiting.
		stopServer(two.server)
		time.Sleep(time.Minute)
		n.serve(two)
		two.t.Send([]*pb.Message{beat(2, 1, 0)})
		time.Sleep(100 * time.Millisecond)
		if one.t.Stats().Up != 1 {
			t.Error("the member was heard of, and is not connected to")
		}
		// One that is removed is forgotten.
		n.mu.Lock()
		delete(n.addr, 2)
		dials := n.dials
		n.mu.Unlock()
		one.t.Update()
		one.t.Send([]*pb.Message{beat(1, 2, 0)})
		time.Sleep(time.Minute)
		n.mu.Lock()
		defer n.mu.Unlock()
		if s := one.t.Stats(); s.Unknown != 1 || s.Up != 0 || n.dials > dials+1 {
			t.Errorf("%+v, %d attempts since", s, n.dials-dials)
		}
	})
}

// When a request is lost the appends behind it go in another run, and are not held for ever.
func TestAppendsGoOnBehindALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "pipe", 2, nil)
		one, two := n.hosts[0], n.hosts[1]
		one.t.stream(2, ordered)
		synctest.Wait()
		for i := range uint64(50) {
			two.member.mu.Lock()
			two.member.err = nil
			if i%5 == 2 {
				two.member.err = errors.New("it has failed")
			}
			two.member.mu.Unlock()
			one.t.Send([]*pb.Message{appendOf(1, 2, i+1, 100)})
			synctest.Wait()
		}
		got := two.member.messages()
		if len(got) != 40 || one.member.reports() != 10 {
			t.Errorf("%d appends came, raft was told %d times", len(got), one.member.reports())
		}
		if s := one.t.Stats(); s.Failed != 10 {
			t.Errorf("%+v", s)
		}
		if s := two.t.Stats(); s.Refused != 10 || s.Received != 40 {
			t.Errorf("%+v", s)
		}
	})
}

// Whoever says what it may not say is refused by name, and counted; others go on.
func TestRefusals(t *testing.T) {
	n := newNetwork(t, "tls", 3, nil)
	one, two := n.hosts[0], n.hosts[1]
	two.member.steps = make(chan struct{}, 100)
	o, _ := n.dialler(1)(t.Context(), n.addr[2])
	o.Service, o.Group, o.Life = ServiceName, "config", 3
	c, err := wire.Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	good := header{stream: urgent, count: 1, from: 1, to: 2}
	ask := func(h header, m *pb.Message, change func(head, body []byte) ([]byte, []byte)) error {
		pieces, _, err := encode([]*pb.Message{m})
		if err != nil {
			t.Fatal(err)
		}
		head, body := h.append(nil), pieces[0]
		if change != nil {
			head, body = change(head, body)
		}
		r, err := c.Call(t.Context(), wire.Request{Op: opMessages, Header: head, Body: wire.Wrap(nil, body)})
		if err != nil {
			return err
		}
		if r.Status != 0 {
			return refusal(r)
		}
		return nil
	}
	with := func(change func(h *header)) header { h := good; change(&h); return h }
	if err := ask(with(func(h *header) { h.from = 3 }), beat(3, 2, 0), nil); !errors.Is(err, ErrMember) {
		t.Errorf("in the name of another host's member: %v", err)
	}
	if err := ask(with(func(h *header) { h.from = 9 }), beat(9, 2, 0), nil); !errors.Is(err, ErrMember) {
		t.Errorf("in the name of no member: %v", err)
	}
	if err := ask(with(func(h *header) { h.from = 2 }), beat(2, 2, 0), nil); !errors.Is(err, ErrMember) {
		t.Errorf("in the receiver's name: %v", err)
	}
	if err := ask(good, beat(1, 2, 1), nil); err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]struct {
		h      header
		m      *pb.Message
		change func(head, body []byte) ([]byte, []byte)
		want   error
	}{
		"for another member":             {with(func(h *header) { h.to = 3 }), beat(1, 3, 0), nil, ErrMember},
		"a message for another":          {good, beat(1, 3, 0), nil, ErrMember},
		"a message from another":         {good, beat(3, 2, 0), nil, ErrMember},
		"a second member by one":         {with(func(h *header) { h.from = 3 }), beat(3, 2, 0), nil, ErrMember},
		"a newer version":                {good, beat(1, 2, 0), func(h, b []byte) ([]byte, []byte) { h[0]++; return h, b }, ErrNewer},
		"half a header":                  {good, beat(1, 2, 0), func(h, b []byte) ([]byte, []byte) { return h[:16], b }, ErrCorrupt},
		"half a body":                    {good, beat(1, 2, 0), func(h, b []byte) ([]byte, []byte) { return h, b[:len(b)-1] }, ErrCorrupt},
		"more messages than there are":   {with(func(h *header) { h.count = 2 }), beat(1, 2, 0), nil, ErrCorrupt},
		"the same twice":                 {header{ordered, 1, 5, 1 << 40, 1, 2}, appendOf(1, 2, 1, 1), func(h, b []byte) ([]byte, []byte) { return h, b }, nil},
		"an operation that is not known": {good, beat(1, 2, 0), nil, nil},
	} {
		if err := ask(try.h, try.m, try.change); !errors.Is(err, try.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Call(t.Context(), wire.Request{Op: 99}); !errors.Is(err, wire.ErrUnknownOp) {
		t.Errorf("another operation: %v", err)
	}
	if err := ask(header{ordered, 1, 5, 1 << 40, 1, 2}, appendOf(1, 2, 1, 1), nil); !errors.Is(err, ErrOrder) {
		t.Errorf("a number twice: %v", err)
	}
	if s := two.t.Stats(); s.Refused != 12 || s.Received != 2 {
		t.Errorf("%+v", s)
	}

	// The same group is begun anew, under another life: what the connection brings is of before.
	two.groups.Remove(two.t)
	if err := ask(good, beat(1, 2, 1), nil); !errors.Is(err, ErrLife) {
		t.Errorf("a group that is gone: %v", err)
	}
	oo := two.t.o
	oo.Life++
	again, err := New(oo)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := two.groups.Add(again, two.member, nil); err != nil {
		t.Fatal(err)
	}
	if err := ask(good, beat(1, 2, 1), nil); !errors.Is(err, ErrLife) {
		t.Errorf("by a connection of an older life: %v", err)
	}
	if _, err := wire.Dial(t.Context(), o); !errors.Is(err, wire.ErrLife) {
		t.Errorf("a connection of an older life: %v", err)
	}
	foreign := o
	foreign.Life, foreign.Identity.Cluster = 4, uuid.New()
	if _, err := wire.Dial(t.Context(), foreign); !errors.Is(err, wire.ErrCluster) {
		t.Errorf("another cluster: %v", err)
	}
	foreign = o
	foreign.Group = "abm"
	if _, err := wire.Dial(t.Context(), foreign); !errors.Is(err, wire.ErrGroup) {
		t.Errorf("another group: %v", err)
	}
	_ = one
}

// When a member is opened again, connections that were made to the one before are made anew.
func TestMemberIsOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "pipe", 2, nil)
		one, two := n.hosts[0], n.hosts[1]
		one.t.stream(2, ordered)
		one.t.Send([]*pb.Message{beat(1, 2, 0)})
		synctest.Wait()
		two.groups.Remove(two.t)
		if err := two.groups.Add(two.t, two.member, nil); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			one.t.Send([]*pb.Message{beat(1, 2, 1), appendOf(1, 2, 1, 10)})
			time.Sleep(time.Second)
		}
		got := two.member.messages()
		if len(got) != 3 || one.t.Stats().Failed != 2 || one.member.reports() == 0 {
			t.Errorf("%d came, %+v, raft was told %d times", len(got), one.t.Stats(), one.member.reports())
		}
	})
}

// A host that answers at another's address is not taken for it.
func TestAnotherHostAtTheAddress(t *testing.T) {
	n := newNetwork(t, "tls", 3, nil)
	one, three := n.hosts[0], n.hosts[2]
	n.mu.Lock()
	n.addr[2] = Address{Network: "tcp", Address: "of the third", Host: three.id}
	n.mu.Unlock()
	s := one.t.stream(2, urgent)
	one.t.Send([]*pb.Message{beat(1, 2, 0)})
	for {
		s.mu.Lock()
		said := s.said
		s.mu.Unlock()
		if strings.Contains(said, "member 2 is not of host") {
			break
		}
		yield()
	}
	if s.up.Load() || len(three.member.messages()) > 0 {
		t.Error("it was taken")
	}
}

func TestOptions(t *testing.T) {
	n := newNetwork(t, "pipe", 1, nil)
	good := n.hosts[0].t.o
	for name, change := range map[string]func(o *Options){
		"member":  func(o *Options) { o.Member = 0 },
		"cluster": func(o *Options) { o.Cluster = uuid.Nil },
		"peers":   func(o *Options) { o.Peers = nil },
		"belongs": func(o *Options) { o.Belongs = nil },
		"queue":   func(o *Options) { o.QueueMessages = -1 },
		"rate":    func(o *Options) { o.FetchRate = -1 },
		"flight":  func(o *Options) { o.FlightRequests = flightMost + 1 },
		"bytes":   func(o *Options) { o.FlightBytes = 1 << 30 },
		"redial":  func(o *Options) { o.Redial, o.Most = 2, 1 },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := n.hosts[0].groups.Add(n.hosts[0].t, n.hosts[0].member, nil); err == nil {
		t.Error("a group is served twice")
	}
}

// Thousands of connections from elsewhere, half open and half frames among them, hold up
// nothing between members.
func TestFloodOfConnections(t *testing.T) {
	n := newNetwork(t, "tcp", 2, nil)
	one, two := n.hosts[0], n.hosts[1]
	two.member.steps = make(chan struct{}, 2000)
	one.t.Send([]*pb.Message{beat(1, 2, 1)})
	<-two.member.steps
	connected(t, one.t, 2)
	var open []net.Conn
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for i := range uint64(10000) {
		c, err := d.Dial("tcp", two.l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if i%3 > 0 {
			_, _ = fmt.Fprintf(c, "OVSWIRE1%d", i)
		}
		if open = append(open, c); len(open) > 400 {
			open[0].Close()
			open = open[1:]
		}
		if i%1000 == 0 {
			one.t.Send([]*pb.Message{appendOf(1, 2, i+1, 100<<10), beat(1, 2, i)})
			<-two.member.steps
			<-two.member.steps
		}
	}
	if s := two.server.Stats(); s.Handshakes > 128 || s.Conns > 400 {
		t.Errorf("%+v", s)
	}
	for _, c := range open {
		c.Close()
	}
	if s := one.t.Stats(); s.Dropped > 0 {
		t.Errorf("%+v", s)
	}
}
