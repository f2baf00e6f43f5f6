package nbd_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/device"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// resender returns a client's end of a connection in its transmission phase,
// one of a client that sends requests again; served gets the server's last word.
func resender(t testing.TB, s *served, client *nbd.Resender) (*raw, chan error) {
	t.Helper()
	end, done := resenderEnd(t, s, client)
	h := nbdclient.NewHandshake(end)
	if err := h.Start(nbd.FlagFixedNewstyle | nbd.FlagNoZeroes); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Go("disk"); err != nil {
		t.Fatal(err)
	}
	return &raw{t: t, Conn: end}, done
}

func resenderEnd(t testing.TB, s *served, client *nbd.Resender) (*net.UnixConn, chan error) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		ends[i] = c.(*net.UnixConn)
	}
	t.Cleanup(func() { ends[0].Close() })
	ends[0].SetDeadline(time.Now().Add(20 * time.Second)) // a hung test fails by itself
	done := make(chan error, 1)
	go func() { done <- s.ServeResender(ends[1], client) }()
	return ends[0], done
}

// hangUp does what the kernel does with a connection that it gives up: both
// directions are shut, and the socket stays.
func (r *raw) hangUp() {
	r.t.Helper()
	sc, err := r.Conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		r.t.Fatal(err)
	}
	err = sc.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	if err != nil {
		r.t.Fatal(err)
	}
}

// write sends a write of a block and waits for its reply.
func (r *raw) write(off uint64, block []byte) {
	r.t.Helper()
	r.request(nbd.CmdWrite, 0, off, uint64(len(block)), block...)
	if e := r.simple(); e != nbd.OK {
		r.t.Errorf("write at %d: %v", off, e)
	}
}

// left waits for the end of a connection that was hung up.
func left(t testing.TB, done chan error) {
	t.Helper()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// is checks what a block holds.
func is(t testing.TB, dev *nbdtest.Memory, off int64, want byte) {
	t.Helper()
	p := make([]byte, 4096)
	if err := dev.Read(context.Background(), p, off); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, block(want)) {
		t.Errorf("block at %d holds %q, want %q", off, p[0], want)
	}
}

func block(b byte) []byte { return bytes.Repeat([]byte{b}, 4096) }

// A write that waits is cancelled when its client has hung up: it sends it on
// another connection, and must find nothing of this one done later.
func TestResenderThatHangsUp(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	gate, _ := gated(dev, nbdtest.OpWrite)
	s := serve(t, dev, nbd.Limits{}) // whose drain timeout is far longer
	r, done := resender(t, s, new(nbd.Resender))
	r.request(nbd.CmdWrite, 0, 0, 4096, make([]byte, 4096)...)
	gate.Arrived(1)
	r.Close()
	left(t, done)
	gate.Open()
	if n := dev.Unflushed(); n != 0 {
		t.Errorf("%d writes were done", n)
	}
	if n := s.Stats().HungUp; n != 1 {
		t.Errorf("%d connections are counted", n)
	}
}

// One that has closed a direction only gets its replies as any other.
func TestResenderThatHalfCloses(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	gate, _ := gated(dev, nbdtest.OpWrite)
	r, done := resender(t, serve(t, dev, nbd.Limits{}), new(nbd.Resender))
	r.request(nbd.CmdWrite, 0, 0, 4096, make([]byte, 4096)...)
	gate.Arrived(1)
	if err := r.Conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	gate.Open()
	if e := r.simple(); e != nbd.OK {
		t.Error(e)
	}
	r.closed()
	left(t, done)
}

// Requests that a reader holds while it waits for memory, and those behind them
// in its socket, are not done when their client has hung up: it has sent them
// on a connection that was there, or on a new one, and has overwritten them.
func TestOldRequestsWithoutMemory(t *testing.T) {
	for name, old := range map[string]func(r *raw) []byte{
		"write": func(r *raw) []byte { return r.frame(nbd.CmdWrite, 0, 0, 4096, block('o')...) },
		"FUA":   func(r *raw) []byte { return r.frame(nbd.CmdWrite, nbd.FlagFUA, 0, 4096, block('o')...) },
		"big": func(r *raw) []byte { // its payload is received into memory of its own
			return r.frame(nbd.CmdWrite, 0, 0, 128<<10, bytes.Repeat([]byte{'o'}, 128<<10)...)
		},
		"trim": func(r *raw) []byte { return r.frame(nbd.CmdTrim, 0, 0, 4096) },
		"zero": func(r *raw) []byte { return r.frame(nbd.CmdWriteZeroes, 0, 0, 4096) },
	} {
		for _, reconnect := range []bool{false, true} {
			t.Run(name+map[bool]string{false: "/sibling", true: "/new"}[reconnect], func(t *testing.T) {
				testOldRequest(t, old, reconnect)
			})
		}
	}
}

func testOldRequest(t *testing.T, old func(r *raw) []byte, reconnect bool) {
	// Another client has all memory but what the first write takes. That one
	// finds no room in the write buffer; there is some since.
	const task = 4 << 10
	hog, dev := nbdtest.NewMemory(nbd.MaxPayload), nbdtest.NewMemory(testSize)
	hogGate, _ := gated(hog, nbdtest.OpRead)
	gate := nbdtest.NewGate()
	var room, begun atomic.Bool
	dev.Hook = func(ctx context.Context, op nbdtest.Op, _, _ int64) error {
		switch {
		case op == nbdtest.OpTryWrite && !room.Load():
			return device.ErrWouldBlock
		case op == nbdtest.OpWrite && !begun.Swap(true):
			return gate.Wait(ctx)
		}
		return nil
	}
	s := serveExports(t, nbdtest.Exports{"hog": hog, "disk": dev}, nbd.Limits{
		RequestBytes: nbd.MaxPayload + task, ServerBytes: nbd.MaxPayload + task + 4096 + task,
	})
	wait := startAll(s.client(nbdclient.Options{Export: "hog"}), 1, func(int) *nbdclient.Request {
		return &nbdclient.Request{Type: nbd.CmdRead, Data: make([]byte, nbd.MaxPayload)}
	})
	hogGate.Arrived(1)

	var client nbd.Resender
	a, aDone := resender(t, s, &client)
	b, bDone := a, aDone
	if !reconnect {
		b, bDone = resender(t, s, &client)
	}
	a.request(nbd.CmdWrite, 0, 8192, 4096, block('x')...)
	gate.Arrived(1)
	a.send(append(old(a), a.frame(nbd.CmdWrite, 0, 0, 4096, block('o')...)...)...)
	a.hangUp()
	room.Store(true)
	if reconnect {
		b, bDone = resender(t, s, &client)
	}
	b.write(8192, block('x'))
	b.write(0, block('o'))
	b.write(0, block('n'))
	hogGate.Open()
	if err := wait(); err != nil {
		t.Error(err)
	}
	gate.Open()
	left(t, aDone)
	is(t, dev, 0, 'n')
	b.Close()
	left(t, bDone)
}

// So it is with requests that are still in the socket when their repetitions
// were done, whatever kept the reader.
func TestOldRequestsInTheSocket(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	gate := nbdtest.NewGate()
	dev.Hook = func(ctx context.Context, op nbdtest.Op, _, _ int64) error {
		if op == nbdtest.OpTryRead {
			return gate.Wait(ctx) // the reader itself
		}
		return nil
	}
	s := serve(t, dev, nbd.Limits{})
	var client nbd.Resender
	a, aDone := resender(t, s, &client)
	b, bDone := resender(t, s, &client)
	a.request(nbd.CmdRead, 0, 4096, 4096)
	gate.Arrived(1)
	a.request(nbd.CmdWrite, 0, 0, 4096, block('o')...)
	a.hangUp()
	b.write(0, block('o'))
	b.write(0, block('n'))
	gate.Open()
	left(t, aDone)
	is(t, dev, 0, 'n')
	b.Close()
	left(t, bDone)
}

// stubborn is a device that does not give up what it has begun: a write of "o"
// takes until its gate is opened, in a worker, or in the reader if inline.
func stubborn(inline bool) (*nbdtest.Memory, *nbdtest.Gate) {
	dev, gate := nbdtest.NewMemory(testSize), nbdtest.NewGate()
	var begun atomic.Bool
	dev.Hook = func(_ context.Context, op nbdtest.Op, off, _ int64) error {
		switch {
		case op == nbdtest.OpTryWrite && !inline && !begun.Swap(true):
			return device.ErrWouldBlock
		case op == nbdtest.OpWrite, op == nbdtest.OpTryWrite && inline && !begun.Swap(true):
			return gate.Wait(context.Background())
		}
		return nil
	}
	return dev, gate
}

// What was begun on a connection that is hung up ends before its repetition is
// served; what was not begun is dropped.
func TestBegunRequestsAreOutlived(t *testing.T) {
	for _, inline := range []bool{false, true} {
		dev, gate := stubborn(inline)
		s := serve(t, dev, nbd.Limits{})
		var client nbd.Resender
		a, aDone := resender(t, s, &client)
		b, bDone := resender(t, s, &client)
		a.request(nbd.CmdWrite, 0, 0, 4096, block('o')...)
		gate.Arrived(1)
		if inline {
			a.request(nbd.CmdWrite, 0, 4096, 4096, block('o')...)
		}
		a.hangUp()
		b.request(nbd.CmdWrite, 0, 0, 4096, block('r')...)
		outliving(s, 1)
		is(t, dev, 0, 0)
		gate.Open()
		if e := b.simple(); e != nbd.OK {
			t.Error(e)
		}
		is(t, dev, 0, 'r')
		is(t, dev, 4096, 0)
		left(t, aDone)
		b.Close()
		left(t, bDone)
	}
}

// outliving waits until n connections wait for others.
func outliving(s *served, n int64) {
	for s.Stats().Outliving != n {
		runtime.Gosched()
	}
}

// A connection that waits for a sibling may be hung up too: its repetition is
// then repeated on a third one, which waits for both.
func TestRepetitionIsRepeated(t *testing.T) {
	dev, gate := stubborn(true)
	s := serve(t, dev, nbd.Limits{})
	var client nbd.Resender
	a, aDone := resender(t, s, &client)
	b, bDone := resender(t, s, &client)
	c, cDone := resender(t, s, &client)
	a.request(nbd.CmdWrite, 0, 0, 4096, block('o')...)
	gate.Arrived(1)
	a.hangUp()
	b.request(nbd.CmdWrite, 0, 0, 4096, block('r')...)
	outliving(s, 1)
	b.hangUp()
	c.request(nbd.CmdWrite, 0, 0, 4096, block('n')...)
	left(t, bDone) // waits no more
	outliving(s, 1)
	is(t, dev, 0, 0)
	gate.Open()
	if e := c.simple(); e != nbd.OK {
		t.Error(e)
	}
	left(t, aDone)
	is(t, dev, 0, 'n')
	c.Close()
	left(t, cDone)
}

// A client that goes for good has no sibling that finds out: a reader that waits
// for its own requests, for their number or for their memory, is looked after,
// and gives back what it holds. So is one of an ordinary client.
func TestHangUpWhileTheReaderWaits(t *testing.T) {
	const big = 30 << 20
	for name, test := range map[string]struct {
		limits nbd.Limits
		pieces int // that are begun: of 1 MiB each
	}{
		"requests": {nbd.Limits{Requests: 1}, 30},
		"memory":   {nbd.Limits{RequestBytes: 33 << 20, ServerBytes: 33 << 20}, 16},
	} {
		for _, resends := range []bool{true, false} {
			t.Run(name+map[bool]string{false: "/ordinary", true: "/resender"}[resends], func(t *testing.T) {
				dev := nbdtest.NewMemory(64 << 20)
				gate, _ := gated(dev, nbdtest.OpWrite)
				s := serve(t, dev, test.limits)
				r := (*raw)(nil)
				if resends {
					r, _ = resender(t, s, new(nbd.Resender))
				} else {
					r = s.transmit(simple)
				}
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					for range 2 {
						r.Write(r.frame(nbd.CmdWrite, 0, 0, big, make([]byte, big)...))
					}
				}()
				gate.Arrived(test.pieces)
				r.hangUp()
				<-sent
				if err := s.Disconnect(t.Context(), "disk"); err != nil {
					t.Error(err)
				}
				if n := dev.Count(nbdtest.OpWrite); n > test.pieces {
					t.Errorf("%d pieces were begun", n)
				}
				if n := dev.Unflushed(); n != 0 {
					t.Errorf("%d writes were done", n)
				}
			})
		}
	}
}

// Connections of other clients are nobody's siblings.
func TestOtherClientsAreNotFenced(t *testing.T) {
	dev, gate := stubborn(true)
	s := serve(t, dev, nbd.Limits{})
	a, aDone := resender(t, s, new(nbd.Resender))
	b, bDone := resender(t, s, new(nbd.Resender))
	a.request(nbd.CmdWrite, 0, 0, 4096, block('o')...)
	gate.Arrived(1)
	a.hangUp()
	b.write(4096, block('b'))
	gate.Open()
	left(t, aDone)
	b.Close()
	left(t, bDone)
}

// A client that says at once that it sends no more gets the replies to all that
// it has sent.
func TestRepliesToAHalfClosedClient(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{})
	for range 50 {
		r := s.transmit(simple)
		r.request(nbd.CmdWrite, 0, 0, 4096, block('x')...)
		if err := r.Conn.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if e := r.simple(); e != nbd.OK {
			t.Fatal(e)
		}
		r.closed()
	}
}
