package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/backend"
	"openvstorage/backend/backendtest"
	"openvstorage/backend/fault"
	"openvstorage/backend/mem"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

var testCluster = uuid.MustParse("7d0a8a3c-5a51-4d43-8f43-6a2f0ad8ff02")
var testStore = uuid.MustParse("0d4c0b8e-2a44-4a7c-9a3e-5b1f0ad8ff03")

// rig is a proxy behind a socket.
type rig struct {
	t      testing.TB
	at     net.Addr
	server *Server
	wire   *wire.Server
	store  atomic.Pointer[backend.Store]
}

// newRig starts a proxy of a store. Its address may be given, to take the place of one before.
func newRig(t testing.TB, network, address string, store backend.Store, change func(*ServerOptions)) *rig {
	t.Helper()
	r := &rig{t: t}
	r.store.Store(&store)
	opt := ServerOptions{ID: testStore, Open: func() (backend.Store, bool) {
		if s := r.store.Load(); s != nil {
			return *s, true
		}
		return nil, false
	}}
	if change != nil {
		change(&opt)
	}
	var err error
	if r.server, err = NewServer(opt); err != nil {
		t.Fatal(err)
	}
	service := r.server.Service(Anyone)
	r.wire, err = wire.NewServer(wire.ServerOptions{
		Services: map[string]*wire.Service{Service: &service}, Identity: func() wire.Identity { return wire.Identity{Cluster: testCluster} },
	})
	if err != nil {
		t.Fatal(err)
	}
	if address == "" {
		address = "127.0.0.1:0"
		if network == "unix" {
			address = filepath.Join(t.TempDir(), "s")
		}
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	r.at = l.Addr()
	go func() { _ = r.wire.Serve(l) }()
	t.Cleanup(r.kill)
	return r
}

// kill ends the proxy at once: its connections break.
func (r *rig) kill() {
	ended, end := context.WithCancel(context.Background())
	end()
	_ = r.wire.Close(ended)
}

func (r *rig) target() Target { return targetAt(r.at) }

func targetAt(at net.Addr) Target {
	return Target{Name: at.String(), Dial: func(context.Context) (wire.DialOptions, error) {
		return wire.DialOptions{Network: at.Network(), Address: at.String(), Identity: wire.Identity{Cluster: testCluster}}, nil
	}}
}

// dial makes a client of proxies. First and Most are short, so that no test waits for them.
func dial(t testing.TB, change func(*Options), targets ...Target) *Client {
	t.Helper()
	opt := Options{Proxies: targets, First: time.Millisecond, Most: 20 * time.Millisecond}
	if change != nil {
		change(&opt)
	}
	c, err := NewClient(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// all waits until the client has a connection to each of its proxies.
func all(t testing.TB, c *Client) *Client {
	t.Helper()
	await(t, "connections to all proxies", func() bool { return len(c.Connected()) == len(c.peers) })
	return c
}

func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: waited for too long", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pattern is n bytes that tell where they are.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return p
}

// A store behind a proxy is a store.
func TestConformance(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			backendtest.TestStore(t, func(t *testing.T) backend.Store {
				return all(t, dial(t, nil, newRig(t, network, "", mem.New(1<<40), nil).target()))
			})
		})
	}
}

// A store behind two proxies is a store too.
func TestConformanceOfTwo(t *testing.T) {
	backendtest.TestStore(t, func(t *testing.T) backend.Store {
		s := mem.New(1 << 40)
		return all(t, dial(t, nil, newRig(t, "unix", "", s, nil).target(), newRig(t, "tcp", "", s, nil).target()))
	})
}

// What is longer than a request is put and read whole.
func TestLong(t *testing.T) {
	s := mem.New(0)
	c := all(t, dial(t, nil, newRig(t, "unix", "", s, nil).target()))
	must(t, c.CreateNamespace(t.Context(), "n"))
	ns := c.Namespace("n")
	data := pattern(2*wire.BodyMax + 12345)
	must(t, ns.Put(t.Context(), "o", data))
	must(t, ns.Put(t.Context(), "o", data))
	if err := ns.Put(t.Context(), "o", data[1:]); !errors.Is(err, backend.ErrExists) {
		t.Errorf("other bytes: %v", err)
	}
	v, err := ns.PutIf(t.Context(), "c", data, 0)
	must(t, err)
	if _, err := ns.PutIf(t.Context(), "c", data, v+1); !errors.Is(err, backend.ErrConflict) {
		t.Errorf("another version: %v", err)
	}
	p := make([]byte, len(data)+10)
	n, err := ns.Get(t.Context(), "c", p, 0)
	if n != len(data) || err != io.EOF || !bytes.Equal(p[:n], data) {
		t.Errorf("%d bytes of %d, %v", n, len(data), err)
	}
	n, err = ns.Get(t.Context(), "o", p[:len(data)-7], 7)
	if n != len(data)-7 || err != nil || !bytes.Equal(p[:n], data[7:]) {
		t.Errorf("%d bytes of %d, %v", n, len(data)-7, err)
	}
}

// A long read of an object that is replaced meanwhile is of one state of it.
func TestLongReadOfOneState(t *testing.T) {
	s := mem.New(0)
	must(t, s.CreateNamespace(t.Context(), "n"))
	here := s.Namespace("n")
	size := wire.BodyMax + 1000
	v, err := here.PutIf(t.Context(), "c", bytes.Repeat([]byte{0}, size), 0)
	must(t, err)
	// Each state has one byte all over; it is replaced behind each of the first few requests.
	left := 6
	var mu sync.Mutex
	d := &between{Store: s, then: func() {
		mu.Lock()
		defer mu.Unlock()
		if left--; left >= 0 {
			v, err = here.PutIf(context.Background(), "c", bytes.Repeat([]byte{byte(left + 1)}, size), v)
		}
	}}
	c := all(t, dial(t, nil, newRig(t, "unix", "", d, nil).target()))
	p := make([]byte, size)
	n, gerr := c.Namespace("n").Get(t.Context(), "c", p, 0)
	mu.Lock()
	defer mu.Unlock()
	must(t, err)
	if gerr != nil || n != size || p[0] != p[size-1] {
		t.Errorf("%d bytes, %v: the first is %d and the last %d", n, gerr, p[0], p[size-1])
	}
}

// between does something behind each Get.
type between struct {
	backend.Store
	then func()
}

func (b *between) Namespace(name string) backend.Namespace {
	return &betweenNamespace{b.Store.Namespace(name), b}
}

type betweenNamespace struct {
	backend.Namespace
	b *between
}

func (n *betweenNamespace) Get(ctx context.Context, name string, p []byte, off int64) (int, error) {
	got, err := n.Namespace.Get(ctx, name, p, off)
	n.b.then()
	return got, err
}

// Lists of several pages are whole and in order, over stores that list from a name on and over
// others; deletes of more names than a request holds delete all.
func TestManyNames(t *testing.T) {
	s := mem.New(0)
	c := all(t, dial(t, nil, newRig(t, "unix", "", s, nil).target()))
	must(t, s.CreateNamespace(t.Context(), "n"))
	names := []string{"catalog"}
	v, err := s.Namespace("n").PutIf(t.Context(), "catalog", []byte("c"), 0)
	must(t, err)
	for i := range 3*pageMax + 7 {
		name := fmt.Sprintf("o%06d", i)
		names = append(names, name)
		must(t, s.Namespace("n").Put(t.Context(), name, []byte{1}))
	}
	ns := c.Namespace("n")
	list := func(prefix string) (got []string) {
		must(t, ns.List(t.Context(), prefix, func(i backend.Info) bool { got = append(got, i.Name); return true }))
		return got
	}
	if got := list(""); strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("%d names of %d", len(got), len(names))
	}
	if got := list("o0010"); len(got) != 100 {
		t.Errorf("%d names of 100", len(got))
	}
	if got := list(strings.Repeat("o", 300)); len(got) != 0 {
		t.Errorf("%d names with a prefix that no name can have", len(got))
	}
	seen := 0
	must(t, ns.List(t.Context(), "", func(backend.Info) bool { seen++; return seen < pageMax+1 }))
	if seen != pageMax+1 {
		t.Errorf("%d names were seen of a list that was ended after %d", seen, pageMax+1)
	}
	for i := range deleteMax {
		names = append(names, fmt.Sprintf("absent-%d", i))
	}
	must(t, ns.Delete(t.Context(), names, &backend.Condition{Name: "catalog", Version: v}))
	if got := list(""); len(got) != 0 {
		t.Errorf("%d names are left", len(got))
	}
}

// What a store answers means the same on both sides, and its words come along.
func TestErrorsTravel(t *testing.T) {
	sentinels := []error{
		backend.ErrNotFound, backend.ErrExists, backend.ErrConflict, backend.ErrNamespaceNotFound, backend.ErrNamespaceExists, backend.ErrCorrupt,
		backend.ErrNoSpace, backend.ErrName, backend.ErrKey, backend.ErrUnavailable,
	}
	for _, e := range append(sentinels, errors.New("a bad day")) {
		s := mem.New(0)
		must(t, s.CreateNamespace(t.Context(), "n"))
		f := fault.New(s)
		f.Add(fault.Rule{Err: fmt.Errorf("disk 7: %w", e)})
		c := all(t, dial(t, nil, newRig(t, "unix", "", f, nil).target()))
		_, err := c.Namespace("n").PutIf(t.Context(), "o", nil, 0)
		if err == nil || !strings.Contains(err.Error(), "disk 7: "+e.Error()) || !strings.Contains(err.Error(), "o in namespace n") {
			t.Fatalf("%v is told as %v", e, err)
		}
		for _, other := range append(sentinels, backend.ErrClosed, backend.ErrFailed, ErrUnreachable, context.Canceled) {
			if errors.Is(err, other) != errors.Is(e, other) {
				t.Errorf("%v matches %v: %v", err, other, errors.Is(err, other))
			}
		}
		if backend.Unknown(err) != backend.Unknown(e) {
			t.Errorf("%v: is it unknown? %v", err, backend.Unknown(err))
		}
	}
}

// A client of one store is refused by a proxy of another, and a client of any store can ask which
// it is.
func TestAnotherStore(t *testing.T) {
	r := newRig(t, "unix", "", mem.New(0), nil)
	id, err := all(t, dial(t, nil, r.target())).Identify(t.Context())
	if err != nil || id != testStore {
		t.Errorf("%v, %v", id, err)
	}
	id, err = all(t, dial(t, func(o *Options) { o.Store = testStore }, r.target())).Identify(t.Context())
	if err != nil || id != testStore {
		t.Errorf("%v, %v", id, err)
	}
	other := uuid.New()
	c := dial(t, func(o *Options) { o.Store, o.Wait = other, 50*time.Millisecond }, r.target())
	if _, err := c.ListNamespaces(t.Context()); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), other.String()) {
		t.Errorf("%v", err)
	}
}
