package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"openvstorage/device"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

func TestCloseDrainsRequestsInFlight(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	gate, _ := gated(dev, nbdtest.OpWrite)
	s := serve(t, dev, nbd.Limits{})
	c := s.client(nbdclient.Options{})
	wait := startAll(c, 3, func(i int) *nbdclient.Request {
		return &nbdclient.Request{Type: nbd.CmdWrite, Offset: uint64(i) * 4096, Data: make([]byte, 128<<10)}
	})
	gate.Arrived(3)
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	gate.Open()
	if err := wait(); err != nil {
		t.Errorf("writes in flight: %v", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, err := nbdclient.Dial(t.Context(), "unix", s.addr, nbdclient.Options{}); err == nil {
		t.Error("a closed server lets clients in")
	}
}

func TestCloseCancelsWhatDoesNotEnd(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	gate, _ := gated(dev, nbdtest.OpRead)
	s := serve(t, dev, nbd.Limits{DrainTimeout: time.Millisecond, Requests: 2})
	c := s.client(nbdclient.Options{})
	wait := startAll(c, 10, func(int) *nbdclient.Request { // more than fit: the reader waits too
		return &nbdclient.Request{Type: nbd.CmdRead, Data: make([]byte, 512)}
	})
	gate.Arrived(2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if wait() == nil {
		t.Fatal("requests at a closed gate succeeded")
	}
}

func TestCloseHangsUpOnHandshakes(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{})
	r := s.options()
	r.Info("disk")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r.closed()
}

func TestDisconnectIsForOneExport(t *testing.T) {
	exports := nbdtest.Exports{"a": nbdtest.NewMemory(testSize), "b": nbdtest.NewMemory(testSize)}
	s := serveExports(t, exports, nbd.Limits{})
	a, b := s.client(nbdclient.Options{Export: "a"}), s.client(nbdclient.Options{Export: "b"})
	for _, c := range []*nbdclient.Client{a, b} { // whose requests are answered is past the handshake
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	infos := s.Connections()
	if len(infos) != 2 || infos[0].Export != "a" || infos[1].Export != "b" {
		t.Fatalf("%+v", infos)
	}
	if err := s.Disconnect(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := a.Flush(); err == nil {
		t.Error("a still works")
	}
	if err := b.Flush(); err != nil {
		t.Error(err)
	}
}

func TestResizeIsSeenByTheNextRequest(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	c := serve(t, dev, nbd.Limits{}).client(nbdclient.Options{})
	p := make([]byte, 512)
	if _, err := c.WriteAt(p, testSize); !errors.Is(err, nbd.ENOSPC) {
		t.Fatal(err)
	}
	dev.Resize(testSize + 512)
	if _, err := c.WriteAt(p, testSize); err != nil {
		t.Fatal(err)
	}
}

func TestTCPAndOtherConnections(t *testing.T) {
	s, err := nbd.NewServer(nbdtest.Exports{"disk": nbdtest.NewMemory(4 << 20)}, nbd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(t.Context(), ln)
	tcp, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	pipe, end := net.Pipe() // what is neither unix nor TCP, as TLS will be
	go s.ServeConn(end)
	pipe2, end2 := net.Pipe()
	go s.ServeConn(end2)
	for conn, opts := range map[net.Conn]nbdclient.Options{tcp: {}, pipe: {}, pipe2: {Compact: true}} {
		c, err := nbdclient.New(t.Context(), conn, opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, 4096, 3 << 20} {
			p, q := bytes.Repeat([]byte{byte(n), 1}, n/2+1), make([]byte, n)
			if _, err := c.WriteAt(p[:n], 7); err != nil {
				t.Fatal(err)
			}
			if _, err := c.ReadAt(q, 7); err != nil || !bytes.Equal(p[:n], q) {
				t.Fatal(n, err)
			}
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

// TestModel runs random requests from several connections, each in its own
// part of the disk, against a slice of bytes, with a device that blocks at
// random.
func TestModel(t *testing.T) {
	const conns, part = 6, 2 << 20
	dev := nbdtest.NewMemory(conns * part)
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(3, 4))
	dev.Hook = func(_ context.Context, op nbdtest.Op, _, _ int64) error {
		mu.Lock()
		defer mu.Unlock()
		switch n := r.IntN(6); {
		case op == nbdtest.OpTryRead && n < 2:
			return device.ErrUnderWay
		case (op == nbdtest.OpTryRead || op == nbdtest.OpTryWrite) && n < 4:
			return device.ErrWouldBlock
		}
		return nil
	}
	s := serve(t, dev, nbd.Limits{Requests: 16})
	var wg sync.WaitGroup
	for i := range conns {
		c := s.client(mode(i % 3).client())
		wg.Go(func() { runModel(t, c, uint64(i)*part, part, uint64(i)) })
	}
	wg.Wait()
}

// runModel keeps requests in flight that do not overlap: the order of those
// that do is the server's.
func runModel(t *testing.T, c *nbdclient.Client, base uint64, size int, seed uint64) {
	const slots = 16
	r := rand.New(rand.NewPCG(seed, 1))
	model := make([]byte, size)
	for range 60 {
		var checks []func() error
		wait := startAll(c, slots, func(i int) *nbdclient.Request {
			slot := size / slots
			at := i*slot + r.IntN(slot)
			n := r.IntN(slot - at%slot + 1)
			if r.IntN(2) == 0 {
				n = min(n, 5000)
			}
			req := &nbdclient.Request{Offset: base + uint64(at), Length: uint64(n)}
			want := model[at : at+n]
			if r.IntN(4) == 0 {
				req.Flags |= nbd.FlagFUA
			}
			switch r.IntN(6) {
			case 0, 1:
				req.Type, req.Data = nbd.CmdRead, make([]byte, n)
				checks = append(checks, func() error {
					if !bytes.Equal(req.Data, want) {
						return errors.New("read differs from the model")
					}
					return nil
				})
			case 2:
				req.Type = nbd.CmdTrim
				clear(want)
			case 3:
				req.Type = nbd.CmdWriteZeroes
				clear(want)
			default:
				req.Type, req.Data = nbd.CmdWrite, make([]byte, n)
				for j := range req.Data {
					req.Data[j] = byte(r.Uint32())
				}
				copy(want, req.Data)
			}
			return req
		})
		if err := wait(); err != nil {
			t.Error(err)
			return
		}
		for _, check := range checks {
			if err := check(); err != nil {
				t.Error(err)
				return
			}
		}
	}
}
