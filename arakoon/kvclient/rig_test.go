package kvclient

import (
	"context"
	"net"
	"sync"
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
	id     uint64
	server *kv.Server

	mu     sync.Mutex
	node   kv.Node // nil: not open
	wire   *wire.Server
	addr   string
	wrap   func(net.Conn) net.Conn // of what clients dial
	dialed int
}

func newHost(t testing.TB, id uint64, n kv.Node, o kv.Options) *host {
	t.Helper()
	h := &host{id: id, node: n}
	o.Groups = func(group string) (kv.Group, bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		return kv.Group{Node: h.node, Member: id}, group == testGroup && h.node != nil
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
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
	return Member{ID: h.id, Dial: wire.DialOptions{Identity: wire.Identity{Cluster: testCluster}, Dial: func(ctx context.Context) (net.Conn, error) {
		h.mu.Lock()
		addr, wrap := h.addr, h.wrap
		h.dialed++
		h.mu.Unlock()
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
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
