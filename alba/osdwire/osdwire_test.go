package osdwire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/internal/gate"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

var testCluster = uuid.MustParse("7d0a8a3c-5a51-4d43-8f43-6a2f0ad8ff01")

// rig is OSDs behind a socket.
type rig struct {
	t      testing.TB
	at     net.Addr
	server *Server
	wire   *wire.Server
	osds   sync.Map // of osd.OSD by uuid.UUID: requests look while a test takes one out
}

// all is the Admit of a server that lets everybody do everything.
func all(context.Context, *wire.Peer, uuid.UUID) (func(uint16) error, error) {
	return func(uint16) error { return nil }, nil
}

func newRig(t testing.TB, network string, change func(*ServerOptions), osds ...osd.OSD) *rig {
	t.Helper()
	r := &rig{t: t}
	for _, o := range osds {
		r.osds.Store(o.ID(), o)
	}
	opt := ServerOptions{Open: func(id uuid.UUID) (osd.OSD, bool) {
		o, ok := r.osds.Load(id)
		if !ok {
			return nil, false
		}
		return o.(osd.OSD), true
	}, Admit: all}
	if change != nil {
		change(&opt)
	}
	r.server = NewServer(opt)
	service := r.server.Service()
	var err error
	r.wire, err = wire.NewServer(wire.ServerOptions{
		Services: map[string]*wire.Service{Service: &service}, Identity: func() wire.Identity { return wire.Identity{Cluster: testCluster} },
	})
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	r.at = l.Addr()
	go func() { _ = r.wire.Serve(l) }()
	t.Cleanup(func() {
		ended, end := context.WithCancel(context.Background())
		end()
		_ = r.wire.Close(ended)
	})
	return r
}

func (r *rig) client(id uuid.UUID, change func(*Options)) *Client {
	r.t.Helper()
	opt := Options{ID: id, Target: func(context.Context) (wire.DialOptions, error) {
		return wire.DialOptions{Network: r.at.Network(), Address: r.at.String(), Identity: wire.Identity{Cluster: testCluster}}, nil
	}}
	if change != nil {
		change(&opt)
	}
	c, err := NewClient(opt)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (r *rig) ready(id uuid.UUID) *Client {
	r.t.Helper()
	c := r.client(id, nil)
	if err := c.Ready(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// An OSD behind a connection is an OSD.
func TestConformance(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			osdtest.Run(t, func(t *testing.T) osd.OSD {
				m := osdtest.NewMemory(uuid.New(), 300<<20)
				return newRig(t, network, nil, m).ready(m.ID())
			})
		})
	}
}

// What an OSD answers means the same on both sides, and its words come along.
func TestErrorsTravel(t *testing.T) {
	for _, e := range []error{
		osd.ErrNotFound, osd.ErrCorrupt, osd.ErrUnreadable, osd.ErrFull, osd.ErrReadOnly, osd.ErrInvalid, osd.ErrClosed,
		osd.ErrBusy, osd.ErrUnreachable, osd.ErrCut, errors.New("a bad day"),
	} {
		f := osdtest.NewFaulty(osdtest.NewMemory(uuid.New(), 1<<20))
		f.Down(fmt.Errorf("disk 7: %w", e))
		c := newRig(t, "unix", nil, f).client(f.ID(), nil)
		err := c.Ready(t.Context())
		if err != nil && !strings.Contains(err.Error(), "disk 7: "+e.Error()) {
			t.Fatal(err)
		}
		_, err = c.Stat(t.Context(), [][]byte{{1}})
		if !strings.Contains(err.Error(), "disk 7: "+e.Error()) {
			t.Errorf("%v is told as %v", e, err)
		}
		for _, other := range []error{osd.ErrNotFound, osd.ErrAssert, osd.ErrCorrupt, osd.ErrUnreadable, osd.ErrFull, osd.ErrReadOnly, osd.ErrInvalid, osd.ErrClosed, osd.ErrUnreachable, osd.ErrBusy, osd.ErrCut} {
			if errors.Is(err, other) != errors.Is(e, other) {
				t.Errorf("%v matches %v: %v", err, other, errors.Is(err, other))
			}
		}
	}
}

// A failed assert names its key; a usage names what its OSD suffers from.
func TestAssertAndUsage(t *testing.T) {
	m := osdtest.NewMemory(uuid.New(), 1<<20)
	c := newRig(t, "unix", nil, m).ready(m.ID())
	err := c.Apply(t.Context(), []osd.Assert{{Kind: osd.Exists, Key: []byte("none")}}, nil)
	var a *osd.AssertError
	if !errors.As(err, &a) || string(a.Key) != "none" {
		t.Errorf("the assert failed with %v", err)
	}
	m.SetReadOnly(fmt.Errorf("its log: %w", osd.ErrUnreadable))
	u, err := c.Usage(t.Context())
	if err != nil || !errors.Is(u.ReadOnly, osd.ErrUnreadable) || !strings.Contains(u.ReadOnly.Error(), "its log") || u.Trouble != nil {
		t.Errorf("usage %+v, %v", u, err)
	}
}

// Whoever is at the other end is the OSD that was meant, or there is no connection.
func TestAnotherOSD(t *testing.T) {
	one, two := osdtest.NewMemory(uuid.New(), 1<<20), osdtest.NewMemory(uuid.New(), 1<<20)
	r := newRig(t, "unix", nil, one)
	if err := one.Apply(t.Context(), nil, []osd.Update{osdtest.Put("a", []byte("1"), 1, 1)}); err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 1)
	c := r.client(two.ID(), func(o *Options) {
		o.Down = func(err error) {
			select {
			case refused <- err:
			default:
			}
		}
	})
	if err := <-refused; !errors.Is(err, wire.ErrGroup) {
		t.Errorf("refused with %v", err)
	}
	if err := c.Apply(t.Context(), nil, nil); !errors.Is(err, osd.ErrUnreachable) || !strings.Contains(err.Error(), two.ID().String()) {
		t.Errorf("asked without a connection: %v", err)
	}
	o := r.ready(one.ID())
	if _, err := o.Stat(t.Context(), [][]byte{[]byte("a")}); err != nil {
		t.Error(err)
	}
	r.osds.Delete(one.ID())
	if _, err := o.Stat(t.Context(), [][]byte{[]byte("a")}); !errors.Is(err, osd.ErrClosed) {
		t.Errorf("a disk that was taken out answers %v", err)
	}
}

// A connection that is cut while an Apply is under way leaves its outcome open; repeated, it has
// taken effect once.
func TestCutInApply(t *testing.T) {
	m := osdtest.NewMemory(uuid.New(), 1<<20)
	f := osdtest.NewFaulty(m)
	g := gate.New()
	f.Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Count: 1, Gate: g, After: true})
	r := newRig(t, "tcp", nil, f)
	c := r.ready(f.ID())
	update := []osd.Update{osdtest.Put("a", []byte("1"), 1, 1)}
	done := make(chan error, 1)
	go func() { done <- c.Apply(t.Context(), []osd.Assert{{Kind: osd.Absent, Key: []byte("a")}}, update) }()
	if err := g.Arrived(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if n := r.wire.Disconnect(func(*wire.Peer) bool { return true }, errors.New("cut")); n != 1 {
		t.Fatalf("%d connections were cut", n)
	}
	err := <-done
	if err == nil || errors.Is(err, osd.ErrUnreachable) || errors.Is(err, osd.ErrAssert) {
		t.Errorf("the Apply that was cut ended with %v", err)
	}
	g.Open()
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), nil, update); err != nil {
		t.Error(err)
	}
	if u, err := c.Usage(t.Context()); err != nil || u.Keys != 1 {
		t.Errorf("%d keys, %v", u.Keys, err)
	}
}

// What a peer may do is asked for each operation.
func TestMay(t *testing.T) {
	m := osdtest.NewMemory(uuid.New(), 1<<20)
	r := newRig(t, "unix", func(o *ServerOptions) {
		o.Admit = func(context.Context, *wire.Peer, uuid.UUID) (func(uint16) error, error) {
			return func(op uint16) error {
				if Writes(op) {
					return errors.New("only hosts write")
				}
				return nil
			}, nil
		}
	}, m)
	c := r.ready(m.ID())
	if err := c.Apply(t.Context(), nil, nil); !errors.Is(err, wire.ErrDenied) || !strings.Contains(err.Error(), "only hosts write") {
		t.Errorf("a denied Apply: %v", err)
	}
	if _, err := c.Usage(t.Context()); err != nil {
		t.Error(err)
	}
}

// A server that was not told who may use an OSD, or what, serves nobody.
func TestNobodyMay(t *testing.T) {
	m := osdtest.NewMemory(uuid.New(), 1<<20)
	for name, admit := range map[string]func(context.Context, *wire.Peer, uuid.UUID) (func(uint16) error, error){
		"who":  nil,
		"what": func(context.Context, *wire.Peer, uuid.UUID) (func(uint16) error, error) { return nil, nil },
	} {
		why := make(chan error, 100)
		c := newRig(t, "unix", func(o *ServerOptions) { o.Admit = admit }, m).client(m.ID(), func(o *Options) { o.Down = func(err error) { why <- err } })
		if err := <-why; err == nil || !strings.Contains(err.Error(), "nobody has said "+name) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.Usage(t.Context()); !errors.Is(err, osd.ErrUnreachable) {
			t.Errorf("%s: a call: %v", name, err)
		}
	}
}

// Each operation either reads or writes: what is not known counts as a write.
func TestWrites(t *testing.T) {
	for op := range uint16(20) {
		name := OpName(op)
		reads := name == "read" || name == "stat" || name == "range" || name == "verify" || name == "usage" || name == "fetch"
		if Writes(op) == reads {
			t.Errorf("%s: writes %v", name, Writes(op))
		}
	}
}

// What one host may have held leaves room for the others, however many connections it makes.
func TestHeldShare(t *testing.T) {
	h := newHolds(100, 60)
	one, two := uuid.New(), uuid.New()
	if err := h.put(&connection{peer: one}, 1, 40, 0, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := h.put(&connection{peer: one}, 1, 21, 0, make([]byte, 10)); !errors.Is(err, errNoRoom) {
		t.Errorf("more than its share: %v", err)
	}
	other := &connection{peer: two}
	if err := h.put(other, 1, 60, 0, make([]byte, 10)); err != nil {
		t.Errorf("the share of another: %v", err)
	}
	d, err := h.take(other, 1)
	if err != nil {
		t.Fatal(err)
	}
	d.release()
	if n := len(h.used); n != 1 || h.used[one] != 40 || h.room != 60 {
		t.Errorf("%d hosts have something, %d bytes are left", n, h.room)
	}
}

// Long applies and reads need memory at the server, which is bounded: what finds none changes
// nothing and may come again, and what nobody asks for any more is let go of.
func TestHeldIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolds(100, 100)
		a, b := &connection{}, &connection{}
		if err := h.put(a, 1, 60, 0, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if err := h.put(b, 1, 60, 0, make([]byte, 10)); !errors.Is(err, errNoRoom) {
			t.Errorf("over the bound: %v", err)
		}
		if _, err := h.take(b, 1); !errors.Is(err, errNotHeld) {
			t.Errorf("another connection's: %v", err)
		}
		for _, at := range []int{0, 9, 11, 50} {
			c := &connection{}
			if err := h.put(c, 1, 20, 0, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			if err := h.put(c, 1, 20, at, make([]byte, 10)); !errors.Is(err, errBytes) {
				t.Errorf("a part at %d behind 10 bytes: %v", at, err)
			}
			if at == 0 { // the first one is there still
				d, err := h.take(c, 1)
				if err != nil {
					t.Fatal(err)
				}
				d.release()
			}
		}
		check := func(room int64, held int) {
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.room != room || len(h.by) != held {
				t.Errorf("%d bytes are left and %d things held, not %d and %d", h.room, len(h.by), room, held)
			}
		}
		check(40, 1)
		time.Sleep(holdTime + time.Second)
		check(100, 0)
	})
}

// A value that is longer than a request is as whole as a short one, and leaves nothing behind.
func TestLongValues(t *testing.T) {
	m := osdtest.NewMemory(uuid.New(), 300<<20)
	r := newRig(t, "unix", nil, m)
	c := r.ready(m.ID())
	value := osdtest.Data(osd.ValueMax, 3)
	if err := c.Apply(t.Context(), nil, []osd.Update{osdtest.Put("a", value, 1, 1), osdtest.Put("b", value[:20<<20], 1, 1)}); err != nil {
		t.Fatal(err)
	}
	p, crcs := make([]byte, len(value)), make([]uint32, osd.Blocks(len(value)))
	if err := c.Read(t.Context(), []byte("a"), 0, p, crcs); err != nil || !bytes.Equal(p, value) {
		t.Errorf("read: %v, equal: %v", err, bytes.Equal(p, value))
	}
	for i, crc := range osd.AppendCRCs(nil, 1, 0, value) {
		if crcs[i] != crc {
			t.Fatalf("checksum %d", i)
		}
	}
	if err := c.Read(t.Context(), []byte("none"), 0, p, crcs); !errors.Is(err, osd.ErrNotFound) {
		t.Errorf("a long read of an absent key: %v", err)
	}
	r.server.held.mu.Lock()
	defer r.server.held.mu.Unlock()
	if n := len(r.server.held.by); n != 0 {
		t.Errorf("%d things are held", n)
	}
}
