package kvclient

import (
	"cmp"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/arakoon/kv/kvtest"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

var testCluster = uuid.MustParse("6ba7b810-9dad-41d1-80b4-00c04fd430c8")

const testGroup = "nsm-0"

// openNode makes a member that is a group by itself.
func openNode(t testing.TB) *arakoon.Node {
	t.Helper()
	n, err := arakoon.Open(arakoon.Options{
		FS: crashdisk.New(), Dir: "/node", Cluster: testCluster, Member: 3, Functions: kvtest.Functions,
		SegmentBytes: 4 << 20, MemTableBytes: 1 << 20, StateCacheBytes: 1 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// host serves one member on a socket.
type host struct {
	id       uint64
	loopback string // where it listens; "": on IPv4
	server   *kv.Server
	hang     atomic.Pointer[chan struct{}] // watches and reads of one key wait for it, but for local ones

	mu     sync.Mutex
	node   kv.Node // nil: not open
	life   uint64  // of the group
	wire   *wire.Server
	addr   string
	pipes  *pipes                  // instead of TCP
	wrap   func(net.Conn) net.Conn // of what clients dial
	dialed int
}

// pipes is a listener of net.Pipe, for tests in a bubble of synctest.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	select {
	case <-p.done: // rather than a place that nobody takes any more
		return nil, errors.New("nobody listens")
	default:
	}
	a, b := net.Pipe()
	select {
	case p.conns <- b:
		return a, nil
	case <-p.done:
		return nil, errors.New("nobody listens")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func newHost(t testing.TB, id uint64, n kv.Node, o kv.Options) *host {
	t.Helper()
	return serve(t, &host{id: id, node: n}, o)
}

// newPipeHost is newHost without sockets.
func newPipeHost(t testing.TB, id uint64, n kv.Node, o kv.Options) *host {
	t.Helper()
	return serve(t, &host{id: id, node: n, pipes: &pipes{}}, o)
}

func serve(t testing.TB, h *host, o kv.Options) *host {
	t.Helper()
	o.Groups = func(group string) (kv.Group, bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		return kv.Group{Node: h.node, Life: h.life}, group == testGroup && h.node != nil
	}
	if o.Allow == nil {
		o.Allow = func(_ *wire.Peer, op uint16) error {
			if gate := h.hang.Load(); gate != nil && (op == kv.OpGet || op == kv.OpWatch) {
				<-*gate
			}
			return nil
		}
	}
	var err error
	if h.server, err = kv.NewServer(o); err != nil {
		t.Fatal(err)
	}
	h.listen(t)
	t.Cleanup(h.down)
	return h
}

// listen begins to serve, on a new address.
func (h *host) listen(t testing.TB) {
	t.Helper()
	var l net.Listener = &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	if h.pipes == nil {
		var err error
		if l, err = net.Listen("tcp", cmp.Or(h.loopback, "127.0.0.1:0")); err != nil {
			t.Fatal(err)
		}
	}
	s, err := wire.NewServer(wire.ServerOptions{
		Services: map[string]*wire.Service{kv.Service: h.server.Service()},
		Identity: func() wire.Identity { return wire.Identity{Cluster: testCluster} },
	})
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.wire, h.addr = s, l.Addr().String()
	if h.pipes != nil {
		h.pipes = l.(*pipes)
	}
	h.mu.Unlock()
	go func() { _ = s.Serve(l) }()
}

// down ends all connections at once, as the end of a process does.
func (h *host) down() {
	h.mu.Lock()
	s := h.wire
	h.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	stop()
	_ = s.Close(ctx)
}

func (h *host) setNode(n kv.Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.node = n
}

func (h *host) member() Member {
	h.mu.Lock()
	life := h.life
	h.mu.Unlock()
	return Member{ID: h.id, Dial: wire.DialOptions{Life: life, Identity: wire.Identity{Cluster: testCluster}, Dial: func(ctx context.Context) (net.Conn, error) {
		h.mu.Lock()
		addr, wrap, pipes := h.addr, h.wrap, h.pipes
		h.dialed++
		h.mu.Unlock()
		dial := func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", addr) }
		if pipes != nil {
			dial = pipes.dial
		}
		c, err := dial(ctx)
		if err == nil && wrap != nil {
			c = wrap(c)
		}
		return c, err
	}}}
}

func newClient(t testing.TB, o Options, hosts ...*host) *Client {
	t.Helper()
	o.Group = testGroup
	if o.Members == nil {
		o.Members = func() (list []Member) {
			for _, h := range hosts {
				list = append(list, h.member())
			}
			return list
		}
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func seq() *arakoon.Sequence { return new(arakoon.Sequence) }

func b(s string) []byte { return []byte(s) }
