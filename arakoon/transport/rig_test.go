package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"openvstorage/internal/wire"

	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testCluster = uuid.MustParse("11111111-2222-3333-4444-555555555555")

// pipes is a listener of net.Pipe.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

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

// recorder is a member that keeps what it is given.
type recorder struct {
	mu    sync.Mutex
	got   []*pb.Message
	lost  []uint64
	err   error         // of Step
	steps chan struct{} // one for each message; nil: nobody counts
}

func (r *recorder) Step(m *pb.Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.got = append(r.got, m)
	if r.steps != nil {
		r.steps <- struct{}{}
	}
	return nil
}

func (r *recorder) ReportUnreachable(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = append(r.lost, id)
}

func (r *recorder) messages() []*pb.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*pb.Message(nil), r.got...)
}

func (r *recorder) reports() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.lost)
}

// host is a host with one member of one group.
type host struct {
	id        uuid.UUID
	t         *Transport
	member    *recorder
	groups    *Groups
	server    *wire.Server
	snapshots Snapshots
	tls       *tls.Certificate
	l         net.Listener
	served    chan error
}

// network is several of hosts: member i is hosts[i-1].
type network struct {
	t     testing.TB
	mu    sync.Mutex
	hosts []*host
	addr  map[uint64]Address
	cas   *x509.CertPool
	wrap  func(from, to uint64, c net.Conn) net.Conn // what is dialled; nil: as it is
	tls   bool
	pipes bool
	dials int
}

func (n *network) peers(member uint64) (Address, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a, ok := n.addr[member]
	return a, ok
}

// belongs goes by the certificate, or on plain connections by the claim.
func (n *network) belongs(member uint64, p *wire.Peer) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if member == 0 || member > uint64(len(n.hosts)) {
		return false
	}
	id := n.hosts[member-1].id
	if p.TLS != nil {
		return p.TLS.PeerCertificates[0].Subject.CommonName == id.String()
	}
	return p.Host == id
}

func (n *network) identity(id uuid.UUID) wire.Identity {
	return wire.Identity{Cluster: testCluster, Host: id, Generation: 1, Level: 1}
}

// dialler makes the options of connections that host self makes to member to.
func (n *network) dialler(self uint64) func(context.Context, Address) (wire.DialOptions, error) {
	return func(_ context.Context, a Address) (wire.DialOptions, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.dials++
		h := n.hosts[self-1]
		o := wire.DialOptions{Identity: n.identity(h.id)}
		if n.tls {
			o.TLS = &tls.Config{Certificates: []tls.Certificate{*h.tls}, RootCAs: n.cas, ServerName: "host"}
		}
		var to uint64
		for i, other := range n.hosts {
			if other.id == a.Host {
				to = uint64(i + 1)
			}
		}
		l, wrap := n.hosts[to-1].l, n.wrap
		o.Dial = func(ctx context.Context) (net.Conn, error) {
			var c net.Conn
			var err error
			if p, ok := l.(*pipes); ok {
				c, err = p.dial(ctx)
			} else {
				c, err = new(net.Dialer).DialContext(ctx, l.Addr().Network(), l.Addr().String())
			}
			if err == nil && wrap != nil {
				c = wrap(self, to, c)
			}
			return c, err
		}
		return o, nil
	}
}

// newNetwork makes hosts, each serving its member. change, if not nil, changes the options
// of each.
func newNetwork(t testing.TB, kind string, count int, change func(member uint64, o *Options)) *network {
	t.Helper()
	n := &network{t: t, addr: map[uint64]Address{}, tls: kind == "tls", pipes: kind == "pipe"}
	var ca *x509.Certificate
	var key *ecdsa.PrivateKey
	if n.tls {
		key, _, ca = certificate(t, nil, nil, "ca")
		n.cas = x509.NewCertPool()
		n.cas.AddCert(ca)
	}
	for i := range count {
		h := &host{id: uuid.New(), member: &recorder{}, groups: NewGroups()}
		if n.tls {
			_, cert, _ := certificate(t, ca, key, h.id.String())
			h.tls = &cert
		}
		n.hosts = append(n.hosts, h)
		n.addr[uint64(i+1)] = Address{Network: "tcp", Address: "by the dialler", Host: h.id}
	}
	for i, h := range n.hosts {
		member := uint64(i + 1)
		o := Options{Member: member, Cluster: testCluster, Group: "config", Life: 3, Peers: n.peers, Dial: n.dialler(member), Belongs: n.belongs}
		if change != nil {
			change(member, &o)
		}
		var err error
		if h.t, err = New(o); err != nil {
			t.Fatal(err)
		}
		n.serve(h)
		t.Cleanup(h.t.Close)
	}
	return n
}

// serve starts a host's server.
func (n *network) serve(h *host) {
	n.t.Helper()
	var l net.Listener = newPipes()
	if !n.pipes {
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			n.t.Fatal(err)
		}
	}
	n.mu.Lock()
	h.l = l
	n.mu.Unlock()
	if h.groups.of(h.t.o.Group) == nil {
		if err := h.groups.Add(h.t, h.member, h); err != nil {
			n.t.Fatal(err)
		}
	}
	so := wire.ServerOptions{Services: map[string]*wire.Service{ServiceName: h.groups.Service()}, Identity: func() wire.Identity { return n.identity(h.id) }}
	if n.tls {
		so.TLS = &tls.Config{Certificates: []tls.Certificate{*h.tls}, ClientCAs: n.cas, ClientAuth: tls.RequireAndVerifyClientCert}
	}
	var err error
	if h.server, err = wire.NewServer(so); err != nil {
		n.t.Fatal(err)
	}
	h.served = make(chan error, 1)
	go func(s *wire.Server, l net.Listener, done chan error) { done <- s.Serve(l) }(h.server, h.l, h.served)
	s := h.server
	n.t.Cleanup(func() { stopServer(s) })
}

func stopServer(s *wire.Server) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Close(ctx)
}

// OpenSnapshot makes a host Snapshots, whatever it has.
func (h *host) OpenSnapshot(id SnapshotID) (Snapshot, error) {
	if h.snapshots == nil {
		return nil, errors.New("none here")
	}
	return h.snapshots.OpenSnapshot(id)
}

func certificate(t testing.TB, parent *x509.Certificate, signer *ecdsa.PrivateKey, name string) (*ecdsa.PrivateKey, tls.Certificate, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"host"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	if parent == nil {
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, cert
}

// appendOf is an append of one entry.
func appendOf(from, to, index uint64, size int) *pb.Message {
	data := make([]byte, size)
	for i := 0; i < size; i += 97 {
		data[i] = byte(index) + byte(i)
	}
	return &pb.Message{Type: new(pb.MsgApp), From: new(from), To: new(to), Term: new(uint64(1)), LogTerm: new(uint64(1)), Index: new(index - 1), Commit: new(index - 1),
		Entries: []*pb.Entry{{Type: new(pb.EntryNormal), Term: new(uint64(1)), Index: new(index), Data: data}}}
}

func beat(from, to, commit uint64) *pb.Message {
	return &pb.Message{Type: new(pb.MsgHeartbeat), From: new(from), To: new(to), Term: new(uint64(1)), Commit: new(commit)}
}

// yield lets other goroutines run, for tests with sockets that look at something again and
// again.
func yield() { runtime.Gosched() }
