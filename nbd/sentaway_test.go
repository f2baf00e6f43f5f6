package nbd_test

import (
	"net"
	"testing"
	"time"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// silent connects n times, and says nothing; the server has greeted all of them.
func (s *served) silent(addr net.Addr, n int) (conns []net.Conn) {
	s.t.Helper()
	for range n {
		c, err := net.Dial(addr.Network(), addr.String())
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second)) // a hung test fails by itself
		if _, err := c.Read(make([]byte, 18)); err != nil {
			s.t.Fatal(err)
		}
		conns = append(conns, c)
	}
	return conns
}

// hungUp tells whether the server has hung up on a client that is silent.
func hungUp(c net.Conn, wait time.Duration) bool {
	c.SetDeadline(time.Now().Add(wait))
	_, err := c.Read(make([]byte, 1))
	timeout, ok := err.(net.Error)
	return err != nil && !(ok && timeout.Timeout())
}

// TestSilentClientsMakeRoom: clients that take all places and say nothing keep nobody out. The oldest
// are sent away first, and a client that has finished its handshake stays.
func TestSilentClientsMakeRoom(t *testing.T) {
	limits := nbd.Limits{Connections: 64, HandshakeTimeout: time.Hour, HandshakeGrace: 1}
	local := func(s *served) net.Addr { return &net.UnixAddr{Net: "unix", Name: s.addr} }
	remote := func(s *served) net.Addr { return s.listen("tcp", "127.0.0.1:0") }
	for name, tt := range map[string]struct {
		addr   func(s *served) net.Addr
		places int
	}{
		"unix": {local, 60},
		"tcp":  {remote, 24},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, nbdtest.NewMemory(testSize), limits)
			addr := tt.addr(s)
			connect := func() *nbdclient.Client {
				c, err := nbdclient.Dial(t.Context(), addr.Network(), addr.String(), nbdclient.Options{Export: "disk"})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			}
			old := connect()
			silent := s.silent(addr, tt.places-1)
			guests := []*nbdclient.Client{old, connect(), connect()}
			for i, c := range silent[:2] {
				if !hungUp(c, 20*time.Second) {
					t.Errorf("silent client %d is still there", i)
				}
			}
			for _, c := range silent[2:] {
				if hungUp(c, time.Millisecond) {
					t.Error("one was sent away for nobody")
				}
			}
			for len(guests) < tt.places {
				guests = append(guests, connect())
			}
			for _, g := range guests {
				if err := g.Flush(); err != nil {
					t.Error(err)
				}
			}
			if _, err := nbdclient.Dial(t.Context(), addr.Network(), addr.String(), nbdclient.Options{Export: "disk"}); err == nil {
				t.Error("one more than there are places")
			}
		})
	}
}

// TestSilentClientsOfThisMachineStay: strangers by network send away only each
// other.
func TestSilentClientsOfThisMachineStay(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{Connections: 64, Address: 64, HandshakeTimeout: time.Hour, HandshakeGrace: 1})
	silent := s.silent(&net.UnixAddr{Net: "unix", Name: s.addr}, 30)
	if n, told := s.full(s.listen("tcp", "127.0.0.1:0")); n != 30 {
		t.Errorf("%d connections, then %v", n, told)
	}
	for _, c := range silent {
		if hungUp(c, time.Millisecond) {
			t.Fatal("a stranger by network took the place of a local client")
		}
	}
}

// TestFloodEndsNoHandshakes: whoever has just come is not sent away, however many
// others come.
func TestFloodEndsNoHandshakes(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{Connections: 64, HandshakeTimeout: time.Hour, HandshakeGrace: time.Hour})
	addr := &net.UnixAddr{Net: "unix", Name: s.addr}
	first := s.silent(addr, 60)
	if _, err := nbdclient.Dial(t.Context(), addr.Network(), addr.String(), nbdclient.Options{Export: "disk"}); err == nil {
		t.Error("one more than there are places")
	}
	for _, c := range first {
		if hungUp(c, time.Millisecond) {
			t.Fatal("one was sent away that had just come")
		}
	}
}
