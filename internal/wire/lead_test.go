package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// led says how often a caller took the right to read, and whether it is free.
func led(c *Conn) (times uint64, free bool) {
	c.calls.Lock()
	defer c.calls.Unlock()
	return c.lead.led, c.lead.free
}

// hanging is a server whose operation 1 waits at a gate or for the end of its context, and
// whose others echo. conn is a connection to it on which callers read.
func hanging(t *testing.T) (s *Server, conn *Conn, gate chan struct{}) {
	t.Helper()
	gate = make(chan struct{})
	l := newPipes()
	s = serve(t, l, ServerOptions{}, func(ctx context.Context, r *Incoming) Answer {
		if r.Op == 1 {
			select {
			case <-gate:
			case <-ctx.Done():
			}
		}
		return echo(ctx, r)
	})
	o := options(l)
	o.Dial = l.dial
	conn = dial(t, o)
	brisk(t, conn)
	return s, conn, gate
}

// brisk makes so many calls that the next caller reads by itself.
func brisk(t *testing.T, c *Conn) {
	t.Helper()
	for range 2 {
		if _, err := c.Call(t.Context(), Request{}); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait() // answers to calls that were given up
	if _, free := led(c); !free {
		t.Fatal("after two calls in a row the right to read is not free")
	}
}

// A caller that is alone reads by itself. Soon after the last call the connection's goroutine
// does again, and sees what the peer says by itself.
func TestCallersReadWhileCallsAreBrisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, _ := hanging(t)
		before, _ := led(c)
		for range 10 {
			if _, err := c.Call(t.Context(), Request{}); err != nil {
				t.Fatal(err)
			}
		}
		if n, free := led(c); n != before+10 || !free {
			t.Errorf("of 10 callers %d read; the right is free: %v", n-before, free)
		}
		time.Sleep(2*briskTime + time.Millisecond)
		if _, free := led(c); free {
			t.Error("nobody reads an idle connection")
		}
		time.Sleep(time.Minute) // pings keep both ends
		brisk(t, c)
		go s.Close(t.Context())
		began := time.Now()
		<-c.Done()
		if took := time.Since(began); took > 2*briskTime {
			t.Errorf("the end of the connection was seen after %v", took)
		}
	})
}

// A caller that reads ends with its context, at once if it has waited for a while, and the
// connection goes on.
func TestCallersThatReadAreCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, _ := hanging(t)
		for _, d := range []time.Duration{time.Millisecond, briskTime + time.Millisecond, time.Second} {
			before, _ := led(c)
			ctx, stop := context.WithCancel(t.Context())
			time.AfterFunc(d, stop)
			began := time.Now()
			_, err := c.Call(ctx, Request{Op: 1})
			took, most := time.Since(began), d
			if d < 2*briskTime {
				most += 2 * briskTime
			}
			if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrOutcomeUnknown) || took < d || took > most {
				t.Errorf("a call that was given up after %v ended after %v: %v", d, took, err)
			}
			if n, _ := led(c); n != before+1 {
				t.Error("that caller did not read")
			}
			brisk(t, c)
		}
	})
}

// While a caller reads for long, nobody looks at it; what it leaves is read at once.
func TestCallersThatReadForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, gate := hanging(t)
		ended := make(chan error, 1)
		go func() {
			_, err := c.Call(t.Context(), Request{Op: 1})
			ended <- err
		}()
		time.Sleep(2*briskTime + time.Millisecond)
		c.calls.Lock()
		long := c.lead.long
		c.calls.Unlock()
		if !long {
			t.Error("the connection's goroutine goes on to look at a caller that reads for long")
		}
		time.Sleep(time.Hour)
		gate <- struct{}{}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, free := led(c); free {
			t.Error("nobody reads")
		}
		go s.Close(t.Context())
		began := time.Now()
		if <-c.Done(); time.Since(began) > 0 {
			t.Errorf("the end was seen after %v", time.Since(began))
		}
	})
}

// Whoever reads answers the others too, and hands on when it has its own answer.
func TestCallersHandOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, gate := hanging(t)
		began := time.Now()
		call := func(op uint16) <-chan error {
			done := make(chan error, 1)
			go func() {
				_, err := c.Call(t.Context(), Request{Op: op})
				done <- err
			}()
			synctest.Wait()
			return done
		}
		first := call(1)
		for range 3 { // while the first one reads
			if err := <-call(0); err != nil {
				t.Fatal(err)
			}
		}
		second := call(1)
		gate <- struct{}{}
		synctest.Wait()
		gate <- struct{}{}
		if err := errors.Join(<-first, <-second); err != nil || time.Since(began) > 0 {
			t.Errorf("nobody read for %v: %v", time.Since(began), err)
		}
		brisk(t, c)
		third := make(chan error, 1)
		if err := c.Start(t.Context(), Request{}, func(_ *Reply, err error) { third <- err }); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		if err := <-third; err != nil || time.Since(began) > 0 {
			t.Errorf("a request that nobody waits for was answered after %v: %v", time.Since(began), err)
		}
		brisk(t, c)
		fourth := call(1)
		c.Close()
		if err := <-fourth; !errors.Is(err, ErrClosed) || !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("a caller that read when the connection was closed: %v", err)
		}
	})
}

// A caller that leaves in the middle of an answer's frame loses none of its bytes.
func TestLeavingInTheMiddleOfAFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		in := make(chan head, 8)
		go func() {
			p, err := readPreface(b)
			if err != nil {
				return
			}
			p.kind, p.text = welcome, ""
			b.Write(p.append(nil))
			seen := make([]byte, headSize)
			for {
				if _, err := io.ReadFull(b, seen); err != nil {
					return
				}
				if h, err := decodeHead(seen); err == nil {
					in <- h
				}
			}
		}()
		c := dial(t, DialOptions{Dial: pipeTo(a), Service: "ovs-kv", Identity: testIdentity()})
		answer := func() []byte {
			h := <-in
			for h.kind != kindRequest {
				h = <-in
			}
			body := []byte("an answer of which one half comes late")
			return raw(head{kind: kindReply, id: h.id, body: uint32(len(body)), piece: uint32(len(body))}, body...)
		}
		for range 2 {
			go func() { b.Write(answer()) }()
			if _, err := c.Call(t.Context(), Request{}); err != nil {
				t.Fatal(err)
			}
		}
		for _, cut := range []int{1, headSize - 1, headSize, headSize + 5} {
			synctest.Wait()
			if _, free := led(c); !free {
				t.Fatal("the next caller would not read")
			}
			ctx, stop := context.WithTimeout(t.Context(), time.Second)
			var rest []byte
			half := make(chan struct{})
			go func() {
				all := answer()
				b.Write(all[:cut])
				rest = all[cut:]
				close(half)
			}()
			_, err := c.Call(ctx, Request{})
			stop()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("%d bytes of an answer: %v", cut, err)
			}
			<-half
			b.Write(rest)
			for range 2 {
				go func() { b.Write(answer()) }()
				r, err := c.Call(t.Context(), Request{})
				if err != nil || !bytes.HasPrefix(r.Body, []byte("an answer")) {
					t.Fatalf("after %d bytes of an answer to a call that was given up: %v", cut, err)
				}
				r.Release()
			}
		}
	})
}

// Whoever calls, for whatever, and however long it waits, gets its own answer or none.
func TestCallersOfAllKinds(t *testing.T) {
	listeners(t, func(t *testing.T, l net.Listener, so ServerOptions, do DialOptions) {
		serve(t, l, so, echo)
		c := dial(t, do)
		var all sync.WaitGroup
		for i := range 3 {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(1, uint64(i)))
				for n := range 150 {
					body := bytes.Repeat([]byte{byte(n)}, rng.IntN(200))
					if n%16 == 0 {
						body = bytes.Repeat([]byte{byte(n)}, 100_000)
					}
					ctx, stop := t.Context(), context.CancelFunc(func() {})
					if n%5 == 0 {
						ctx, stop = context.WithTimeout(ctx, time.Duration(rng.IntN(300))*time.Microsecond)
					}
					r, err := c.Call(ctx, Request{Body: Wrap(nil, body)})
					switch {
					case err == nil && !bytes.Equal(r.Body, body):
						t.Errorf("%d bytes came back as %d others", len(body), len(r.Body))
					case err != nil && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded):
						t.Error(err)
					case err == nil:
						r.Release()
					}
					stop()
					if i > 0 && n%10 == 0 {
						time.Sleep(time.Duration(rng.IntN(2000)) * time.Microsecond)
					}
				}
			})
		}
		all.Wait()
		if err := c.Err(); err != nil {
			t.Error(err)
		}
	})
}

// A caller that was called off has hurt no transport: TLS goes on where it was.
func TestCallingOffHurtsNoTransport(t *testing.T) {
	listeners(t, func(t *testing.T, l net.Listener, so ServerOptions, do DialOptions) {
		serve(t, l, so, func(ctx context.Context, r *Incoming) Answer {
			if r.Op == 1 {
				<-ctx.Done()
			}
			return echo(ctx, r)
		})
		c := dial(t, do)
		for range 3 {
			ctx, stop := context.WithCancel(t.Context()) // the server does not know when it ends
			time.AfterFunc(5*briskTime, stop)
			if _, err := c.Call(ctx, Request{Op: 1}); !errors.Is(err, context.Canceled) {
				t.Errorf("a call that was given up: %v", err)
			}
			for n := range 10 {
				body := bytes.Repeat([]byte{byte(n)}, 5000)
				r, err := c.Call(t.Context(), Request{Body: Wrap(nil, body)})
				if err != nil || !bytes.Equal(r.Body, body) {
					t.Fatal(err)
				}
				r.Release()
			}
		}
	})
}
