package wire

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A request whose answer is too large was done all the same: nobody may think that it is
// safe to send again.
func TestAnAnswerThatIsTooLargeIsNoRefusal(t *testing.T) {
	l := newPipes()
	var ran atomic.Int64
	serve(t, l, ServerOptions{}, func(_ context.Context, r *Incoming) Answer {
		ran.Add(1)
		if r.Op == 1 {
			return Answer{Header: make([]byte, HeaderMax+1)}
		}
		return Answer{Body: Wrap(nil, make([]byte, 2<<20))}
	})
	o := options(l)
	o.Dial, o.Limits.Body = l.dial, 1<<20
	c := dial(t, o)
	for op := range uint16(2) {
		_, err := c.Call(t.Context(), Request{Op: op})
		if !errors.Is(err, ErrTooLarge) || !errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrNotSent) || ran.Load() != int64(op)+1 {
			t.Errorf("operation %d, done %d times: %v", op, ran.Load(), err)
		}
	}
}

// Disconnect reaches a peer that was admitted before and is not served yet, and a request of
// which a part is there.
func TestDisconnectReachesAllThatWasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		asked, decided := make(chan struct{}), make(chan struct{})
		var ran atomic.Int64
		s := serve(t, l, ServerOptions{Services: map[string]*Service{"ovs-kv": {
			Handler: HandlerFunc(func(context.Context, *Incoming) Answer { ran.Add(1); return Answer{} }),
			Admit:   func(context.Context, *Peer) error { asked <- struct{}{}; <-decided; return nil },
		}}}, nil)
		o := options(l)
		o.Dial = l.dial
		result := make(chan error, 1)
		go func() {
			c, err := Dial(t.Context(), o)
			if err == nil {
				_, err = c.Call(t.Context(), Request{Op: 1})
				c.Close()
			}
			result <- err
		}()
		<-asked
		if n := s.Disconnect(func(*Peer) bool { return true }, errors.New("revoked")); n != 1 {
			t.Errorf("%d were disconnected", n)
		}
		decided <- struct{}{}
		if err := <-result; err == nil || ran.Load() != 0 {
			t.Errorf("a peer that was cut off while it was admitted is served: %v", err)
		}

		go func() { <-asked; decided <- struct{}{} }()
		bad := stranger(t, l)
		defer bad.Close()
		if _, err := bad.Write(raw(head{kind: kindRequest, id: 1, body: 2, piece: 1}, 1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.Disconnect(func(*Peer) bool { return true }, errors.New("revoked"))
		synctest.Wait() // the farewell waits for its reader
		if _, err := bad.Write(raw(head{kind: kindPiece, id: 1, body: 2, piece: 1}, 1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if ran.Load() != 0 {
			t.Error("a request that was whole after Disconnect was done")
		}
	})
}

// One address cannot take all places for handshakes, as it need not say who it is for that.
func TestOneAddressLeavesHandshakesToOthers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, l, ServerOptions{}, echo)
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for range 200 {
		c, err := from.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	c, err := Dial(t.Context(), options(l))
	if err != nil {
		t.Fatalf("%+v: %v", s.Stats(), err)
	}
	c.Close()
}

// A peer that broke the protocol is reported as such, also if it does not go when it is told.
func TestWhoeverBreaksTheProtocolAndStaysIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		told := make(chan error, 1)
		serve(t, l, ServerOptions{Refused: func(_ net.Addr, why error) { told <- why }}, echo)
		bad := stranger(t, l)
		defer bad.Close()
		if _, err := bad.Write(make([]byte, headSize)); err != nil {
			t.Fatal(err)
		}
		select {
		case why := <-told:
			if !errors.Is(why, ErrProtocol) {
				t.Error(why)
			}
		case <-time.After(time.Minute):
			t.Error("nobody was told")
		}
	})
}

// What was answered before Close arrives, also at a peer that reads it late and says
// something meanwhile.
func TestCloseDoesNotLoseAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const size = 512 << 10
	sent := make(chan struct{})
	s := serve(t, l, ServerOptions{}, func(context.Context, *Incoming) Answer {
		return Answer{Body: Wrap(func() { close(sent) }, make([]byte, size))}
	})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	limits, _ := Limits{}.withDefaults()
	p := preface{kind: hello, id: testIdentity(), text: "ovs-kv\x00"}
	limits.announce(&p)
	if _, err := c.Write(append(p.append(nil), raw(head{kind: kindRequest, id: 1})...)); err != nil {
		t.Fatal(err)
	}
	if _, err := readPreface(c); err != nil {
		t.Fatal(err)
	}
	<-sent
	closed := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() { closed <- s.Close(ctx) }()
	time.Sleep(50 * time.Millisecond)
	if _, err := c.Write(raw(head{kind: kindPing})); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	n, err := io.Copy(io.Discard, io.LimitReader(c, size+4*headSize))
	if n < size {
		t.Errorf("%d bytes of an answer of %d: %v", n, size, err)
	}
	c.Close()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestDeadlinesThatAreFarAway(t *testing.T) {
	for _, d := range []time.Duration{math.MaxInt64, math.MaxInt64 - time.Hour, (math.MaxUint32 + 1) * time.Millisecond} {
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(d).AddDate(100, 0, 0))
		if ms, err := milliseconds(ctx); ms != 0 || err != nil {
			t.Errorf("%v: %d, %v", d, ms, err)
		}
		cancel()
	}
}

// A server that gives up an answer, or answers, before the request has left breaks the
// protocol: the call would have ended, and its request would leave afterwards.
func TestAnswersBeforeTheirRequests(t *testing.T) {
	for name, early := range map[string][]byte{
		"cancel": raw(head{kind: kindCancel, id: 3}),
		"reply":  raw(head{kind: kindReply, id: 3}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				defer b.Close()
				go func() {
					p, err := readPreface(b)
					if err != nil {
						return
					}
					p.kind, p.text, p.windows[0] = welcome, "", smallWindowMin
					b.Write(p.append(nil))
				}()
				c := dial(t, DialOptions{Dial: pipeTo(a), Service: "ovs-kv", Identity: testIdentity()})
				ended := make(chan error, 3)
				for range 3 {
					go func() {
						_, err := c.Call(t.Context(), Request{Body: Wrap(nil, make([]byte, smallMax-overhead))})
						ended <- err
					}()
					synctest.Wait()
				}
				if _, err := io.ReadFull(b, make([]byte, 2*(headSize+smallMax-overhead))); err != nil {
					t.Fatal(err)
				}
				if _, err := b.Write(early); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				go b.Write(raw(head{kind: kindWindow, word: smallMax}))
				left, seen := 0, make([]byte, headSize)
				b.SetReadDeadline(time.Now().Add(time.Second))
				for { // what comes yet
					if _, err := io.ReadFull(b, seen); err != nil {
						break
					}
					h, err := decodeHead(seen)
					if err != nil {
						t.Fatal(err)
					}
					if h.kind == kindRequest {
						left++
					}
					io.CopyN(io.Discard, b, int64(h.header+h.piece))
				}
				if err := c.Err(); left != 0 || !errors.Is(err, ErrProtocol) {
					t.Errorf("%d requests left after their calls, %v", left, err)
				}
				b.Close()
				for range 3 {
					if err := <-ended; left > 0 {
						t.Log(err)
					}
				}
			})
		})
	}
}
