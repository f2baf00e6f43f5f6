package nbd_test

import (
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// NBD's handshake and that of TLS have one deadline: the second does not get time of its own.
func TestOneDeadlineOverHandshakeAndTLS(t *testing.T) {
	ca := nbdtest.NewCA(t)
	config := ca.ServerTLS()
	synctest.Test(t, func(t *testing.T) {
		s, err := nbd.NewServer(one(nbdtest.NewMemory(testSize)), nbd.Options{
			Limits: nbd.Limits{HandshakeTimeout: 10 * time.Second},
			TLS:    nbd.TLS{Config: func() (*tls.Config, error) { return config, nil }},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		a, b := net.Pipe()
		start, ended := time.Now(), make(chan error, 1)
		go func() { ended <- s.ServeConnTLS(a, nbd.TLSRequired) }()
		h := nbdclient.NewHandshake(b)
		if err := h.Start(nbd.FlagFixedNewstyle); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second) // of the bubble's clock
		if _, err := h.Option(nbd.OptStartTLS, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		// The head of a record, and then nothing.
		if _, err := b.Write([]byte{22, 3, 1, 2, 0}); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "TLS") {
			t.Errorf("%v", err)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("the server gave up after %v", took)
		}
		b.Close()
	})
}

// await waits for something that the server does by and by.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for !done() {
		if t.Context().Err() != nil {
			t.Fatal(what)
		}
		runtime.Gosched()
	}
}

// A connection of TLS that waits holds no buffer of the server, as without TLS.
func TestIdleTLSHoldsNoBuffer(t *testing.T) {
	s := serveTLS(t, one(nbdtest.NewMemory(4<<20)), nbd.TLSRequired, nbd.Limits{}, nil)
	var clients []*nbdclient.Client
	for range 20 {
		c, err := s.open("disk", "vm")
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	for _, n := range []int{1, 4096, 1 << 20} {
		for _, c := range clients {
			if _, err := c.WriteAt(make([]byte, n), 0); err != nil {
				t.Fatal(err)
			}
		}
		await(t, "buffers are given back", func() bool { return s.Stats().BufferBytes == 0 })
	}
}

// A hello that does not end is not read to its end.
func TestLongHelloIsNotRead(t *testing.T) {
	s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSRequired, nbd.Limits{HandshakeTimeout: time.Hour}, nil)
	conn, h := s.raw()
	if _, err := h.Option(nbd.OptStartTLS, nil); err != nil {
		t.Fatal(err)
	}
	// 60 KiB of a handshake message, in records.
	b := append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0xf0, 0}, make([]byte, 16<<10-4)...)
	for range 2 {
		b = append(append(b, 22, 3, 1, 0x40, 0), make([]byte, 16<<10)...)
	}
	_, _ = conn.Write(b) // the server may have ended it by now
	ends(t, conn)
}

// A record that was changed on its way ends that connection alone.
func TestChangedRecordEndsTheConnection(t *testing.T) {
	s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSRequired, nbd.Limits{}, nil)
	good, err := s.open("disk", "vm")
	if err != nil {
		t.Fatal(err)
	}
	for name, record := range map[string][]byte{
		"forged":     append([]byte{23, 3, 3, 0, 45}, make([]byte, 45)...),
		"plain text": nbd.AppendRequest(nil, nbd.Request{Type: nbd.CmdWrite, Length: 512}),
		"hello":      append([]byte{22, 3, 1, 0, 40, 1}, make([]byte, 39)...), // renegotiation
		"too long":   {23, 3, 3, 0xff, 0xff},
	} {
		conn, h := s.raw()
		tc, err := h.StartTLS(conn, s.ca.ClientTLS(s.ca.Client("vm")))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Go("disk"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(record); err != nil {
			t.Fatal(err)
		}
		if n, _ := io.Copy(io.Discard, tc); n != 0 {
			t.Errorf("%s: answered with %d bytes", name, n)
		}
	}
	if err := good.Flush(); err != nil {
		t.Error(err)
	}
	await(t, "one connection is left", func() bool { return len(s.Connections()) == 1 })
}

// A client that takes no replies is sent away.
func TestUnreadTLSRepliesEndTheConnection(t *testing.T) {
	s := serveTLS(t, one(nbdtest.NewMemory(32<<20)), nbd.TLSRequired, nbd.Limits{StallTimeout: 100 * time.Millisecond}, nil)
	conn, h := s.raw()
	tc, err := h.StartTLS(conn, s.ca.ClientTLS(s.ca.Client("vm")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Go("disk"); err != nil {
		t.Fatal(err)
	}
	await(t, "the client is there", func() bool { return len(s.Connections()) == 1 })
	for range 4 {
		if _, err := tc.Write(nbd.AppendRequest(nil, nbd.Request{Type: nbd.CmdRead, Length: 32 << 20})); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the client is gone", func() bool { return len(s.Connections()) == 0 })
}

// What a server says that stops, or a client that leaves, is the end of TLS too: nobody can
// cut a stream off unseen.
func TestTLSEndsWithAGoodbye(t *testing.T) {
	s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSRequired, nbd.Limits{}, nil)
	for name, end := range map[string]func(*tls.Conn, *nbdclient.Handshake) error{
		"abort": func(tc *tls.Conn, h *nbdclient.Handshake) error {
			_, err := h.Option(nbd.OptAbort, nil)
			return err
		},
		"disc": func(tc *tls.Conn, h *nbdclient.Handshake) error {
			if _, err := h.Go("disk"); err != nil {
				return err
			}
			_, err := tc.Write(nbd.AppendRequest(nil, nbd.Request{Type: nbd.CmdDisc}))
			return err
		},
		"stop": func(tc *tls.Conn, h *nbdclient.Handshake) error {
			if _, err := h.Go("disk"); err != nil {
				return err
			}
			await(t, "the client is there", func() bool { return len(s.Connections()) == 1 })
			return s.Disconnect(t.Context(), "disk")
		},
	} {
		conn, h := s.raw()
		tc, err := h.StartTLS(conn, s.ca.ClientTLS(s.ca.Client("vm")))
		if err != nil {
			t.Fatal(err)
		}
		if err := end(tc, h); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := tc.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: %v, want the end", name, err)
		}
		await(t, "the client is gone", func() bool { return len(s.Connections()) == 0 })
	}
}
