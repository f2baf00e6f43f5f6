package hostile_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"openvstorage/nbd"
	"openvstorage/nbd/hostile"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// TestUnfinishedTLS: a thousand clients that begin TLS and do not end it hold no more than is
// charged for them, and that is what the limits say; and a client that has a certificate gets
// in, and gets its requests served. In short there are fewer.
func TestUnfinishedTLS(t *testing.T) {
	connections := 1000
	if testing.Short() {
		connections = 50
	}
	for _, a := range hostile.Attacks() {
		if !a.TLS {
			continue
		}
		t.Run(a.Name, func(t *testing.T) {
			ca := nbdtest.NewCA(t)
			config := ca.ServerTLS()
			server, err := nbd.NewServer(nbdtest.Exports{"guest": nbdtest.NewMemory(16 << 20)}, nbd.Options{
				// The remote part of these is the attack and no more: the guest needs
				// a place of theirs, and waits for none to be old enough.
				Limits: nbd.Limits{Connections: connections * 4 / 3, Address: connections, HandshakeTimeout: time.Hour, HandshakeGrace: 1},
				TLS: nbd.TLS{
					Config: func() (*tls.Config, error) { return config, nil },
					Authorize: func(*tls.ConnectionState) (nbd.Access, error) {
						return func(string) nbd.Right { return nbd.WriteAccess }, nil
					},
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- server.ServeTLS(context.Background(), ln, nbd.TLSRequired) }()
			defer func() {
				if err := errors.Join(server.Close()); err != nil {
					t.Error(err)
				}
				<-ended
				if st := server.Stats(); st.Held != st.IdleBytes || st.Stacks != 0 {
					t.Errorf("%d bytes are held for nobody, and stacks of %d", st.Held-st.IdleBytes, st.Stacks)
				}
			}()
			before := heap()
			h, err := a.Begin(hostile.Target{Network: "tcp", Address: ln.Addr().String()}, connections)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if err := h.Nag(); err != nil {
				t.Fatal(err)
			}
			grown, charged := heap()-before, server.Stats().Held
			t.Logf("%d connections: the heap has grown by %d KiB, charged are %d KiB", h.Connections(), grown>>10, charged>>10)
			// A few KiB each are not charged by themselves: what is charged for TLS is
			// more than an unfinished handshake takes.
			if a.Name != "tls-garbage" && grown > charged {
				t.Errorf("the heap has grown by %d, charged are %d", grown, charged)
			}
			guest(t, ca, ln.Addr().String())
		})
	}
}

// guest connects, as often as it is sent away for others, and does all kinds of requests.
func guest(t *testing.T, ca *nbdtest.CA, address string) {
	t.Helper()
	opts := nbdclient.Options{Export: "guest", TLS: ca.ClientTLS(ca.Client("vm"))}
	for {
		c, err := nbdclient.Dial(t.Context(), "tcp", address, opts)
		if err == nil {
			rounds(t, c)
			c.Close()
			return
		}
		if t.Context().Err() != nil || !errors.Is(err, nbdclient.ErrNotTaken) {
			t.Fatalf("the guest is kept out: %v", err)
		}
	}
}
