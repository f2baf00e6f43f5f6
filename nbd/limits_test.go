package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/device"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

func TestLimitsValidate(t *testing.T) {
	if err := (nbd.Limits{}).Validate(); err != nil {
		t.Fatal(err)
	}
	err := nbd.Limits{Connections: -1, RequestBytes: 1, ServerBytes: 1}.Validate()
	for _, name := range []string{"Connections", "RequestBytes"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error does not name %s: %v", name, err)
		}
	}
	if _, err := nbd.NewServer(nil, nbd.Options{Limits: nbd.Limits{Requests: -1}}); err == nil {
		t.Error("server with bad limits")
	}
}

func TestConnectionsOverTheLimitAreHungUpOn(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{Connections: 1})
	c := s.client(nbdclient.Options{})
	r := s.options()
	r.Send(nbd.OptExportName, []byte("disk"))
	r.closed()
	if st := s.Stats(); st.Refused != 1 || st.Connections != 1 {
		t.Fatalf("%+v", st)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// gated is a device whose blocking operations of one kind wait at a gate; it
// records how many are in it at once.
func gated(dev *nbdtest.Memory, at nbdtest.Op) (gate *nbdtest.Gate, most *atomic.Int64) {
	gate, most = nbdtest.NewGate(), new(atomic.Int64)
	var now atomic.Int64
	dev.Hook = func(ctx context.Context, op nbdtest.Op, _, _ int64) error {
		switch op {
		case nbdtest.OpTryRead, nbdtest.OpTryWrite:
			return device.ErrWouldBlock
		case at:
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			return gate.Wait(ctx)
		}
		return nil
	}
	return gate, most
}

// startAll starts n requests and returns a function that waits for them.
func startAll(c *nbdclient.Client, n int, make func(i int) *nbdclient.Request) (wait func() error) {
	var wg sync.WaitGroup
	rs := []*nbdclient.Request{}
	for i := range n {
		r := make(i)
		wg.Add(1)
		r.Done = func(*nbdclient.Request) { wg.Done() }
		rs = append(rs, r)
	}
	go c.Start(rs...)
	return func() error {
		wg.Wait()
		var errs []error
		for _, r := range rs {
			errs = append(errs, r.Err)
		}
		return errors.Join(errs...)
	}
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	gate, most := gated(dev, nbdtest.OpRead)
	c := serve(t, dev, nbd.Limits{Requests: 8}).client(nbdclient.Options{})
	wait := startAll(c, 100, func(int) *nbdclient.Request {
		return &nbdclient.Request{Type: nbd.CmdRead, Data: make([]byte, 512)}
	})
	gate.Arrived(8)
	gate.Open()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	if most.Load() > 8 {
		t.Errorf("%d at once", most.Load())
	}
}

func TestRequestBytesAreBounded(t *testing.T) {
	dev := nbdtest.NewMemory(32 << 20)
	gate, most := gated(dev, nbdtest.OpWrite)
	s := serve(t, dev, nbd.Limits{RequestBytes: 40 << 20})
	c := s.client(nbdclient.Options{})
	wait := startAll(c, 5, func(int) *nbdclient.Request {
		return &nbdclient.Request{Type: nbd.CmdWrite, Data: make([]byte, 15<<20)}
	})
	const pieces = 40 // of 1 MiB
	gate.Arrived(pieces - 2)
	if b := s.Stats().BufferBytes; b > 41<<20 {
		t.Errorf("%d bytes of buffers", b)
	}
	gate.Open()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	if most.Load() > pieces {
		t.Errorf("%d at once", most.Load())
	}
}

// TestOneStuckExportDoesNotStopTheOthers: with the server's bytes used up, a
// connection may still have the floor.
func TestOneStuckExportDoesNotStopTheOthers(t *testing.T) {
	stuck, fine := nbdtest.NewMemory(64<<20), nbdtest.NewMemory(testSize)
	gate, _ := gated(stuck, nbdtest.OpRead)
	fine.Hook = func(_ context.Context, op nbdtest.Op, _, _ int64) error {
		if op == nbdtest.OpTryRead || op == nbdtest.OpTryWrite {
			return device.ErrWouldBlock
		}
		return nil
	}
	limits := nbd.Limits{RequestBytes: 33 << 20, ServerBytes: 33 << 20}
	s := serveExports(t, nbdtest.Exports{"stuck": stuck, "fine": fine}, limits)
	a := s.client(nbdclient.Options{Export: "stuck"})
	wait := startAll(a, 3, func(int) *nbdclient.Request {
		return &nbdclient.Request{Type: nbd.CmdRead, Data: make([]byte, 32<<20)}
	})
	gate.Arrived(1)
	b := s.client(nbdclient.Options{Export: "fine"})
	p := make([]byte, testSize)
	for range 3 {
		if _, err := b.WriteAt(p, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := b.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		if err := b.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	gate.Open()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
}

// TestClientThatNeverReads: its memory stays bounded, it is sent away, and
// others do not suffer.
func TestClientThatNeverReads(t *testing.T) {
	const requestBytes = 33 << 20
	s := serve(t, nbdtest.NewMemory(4<<20), nbd.Limits{
		RequestBytes: requestBytes, StallTimeout: 300 * time.Millisecond,
	})
	for i, n := range []uint64{0, 4096, 1 << 20} { // write replies, inline reads, read tasks
		r := s.transmit(mode(i))
		other := s.client(nbdclient.Options{})
		req := bytes.Repeat(r.frame(nbd.CmdRead, 0, 0, n), 64)
		for {
			if _, err := r.Write(req); err != nil {
				break // the server has hung up
			}
			if b := s.Stats().BufferBytes; b > requestBytes+4<<20 {
				t.Fatalf("%d bytes of buffers", b)
			}
		}
		if err := other.Flush(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestClientThatStallsInARequest(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(4<<20), nbd.Limits{StallTimeout: time.Millisecond})
	modes(t, func(t *testing.T, m mode) {
		for _, n := range []int{1, nbd.RequestLen, nbd.ExtendedRequestLen, nbd.ExtendedRequestLen + 100} {
			for _, length := range []uint64{4096, 2 << 20} {
				r := s.transmit(m)
				r.send(r.frame(nbd.CmdWrite, 0, 0, length, make([]byte, 4096)...)[:n]...)
				r.closed()
			}
		}
	})
}

func TestIdleConnectionsHoldNoBuffers(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{StallTimeout: time.Millisecond})
	p := make([]byte, 4096)
	for range 50 {
		c := s.client(nbdclient.Options{})
		if _, err := c.WriteAt(p, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := c.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
	}
	for s.Stats().BufferBytes != 0 { // the last reader is about to find its socket empty
		runtime.Gosched()
	}
	if n := len(s.Connections()); n != 50 {
		t.Fatalf("%d connections; idling is no stall", n)
	}
}

func TestClientGoneInMidRequest(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(4<<20), nbd.Limits{})
	modes(t, func(t *testing.T, m mode) {
		for _, n := range []int{1, 27, 28, 29, 31, 32, 33, 5000, 70 << 10, 200 << 10} {
			r := s.transmit(m)
			r.send(r.frame(nbd.CmdWrite, 0, 0, 200<<10, make([]byte, 200<<10)...)[:n]...)
			r.Close()
		}
	})
	if err := s.client(nbdclient.Options{}).Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestLostClientCancelsItsRequests(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	gate, _ := gated(dev, nbdtest.OpRead)
	s := serve(t, dev, nbd.Limits{DrainTimeout: time.Millisecond})
	c := s.client(nbdclient.Options{})
	wait := startAll(c, 4, func(int) *nbdclient.Request {
		return &nbdclient.Request{Type: nbd.CmdRead, Data: make([]byte, 512)}
	})
	gate.Arrived(4)
	c.Abort()
	if err := wait(); !errors.Is(err, nbdclient.ErrClosed) {
		t.Fatal(err)
	}
	if err := s.Disconnect(t.Context(), "disk"); err != nil { // returns once the gate was left by cancellation
		t.Fatal(err)
	}
}

func TestListenerEndsWithItsContext(t *testing.T) {
	s, err := nbd.NewServer(nbdtest.Exports{}, nbd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Serve(ctx, ln); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
