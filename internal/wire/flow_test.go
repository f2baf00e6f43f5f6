package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Answers that nobody releases hold up what is as large, nothing else, and a waiting one
// can be cancelled.
func TestAnswersThatAreNotReleased(t *testing.T) {
	listeners(t, func(t *testing.T, l net.Listener, so ServerOptions, do DialOptions) {
		var bodies atomic.Int64
		queued := make(chan struct{}, 8)
		s := serve(t, l, so, func(_ context.Context, r *Incoming) Answer {
			if r.Op == 2 {
				return Answer{}
			}
			bodies.Add(1)
			queued <- struct{}{}
			return Answer{Body: Wrap(func() { bodies.Add(-1) }, make([]byte, 1<<20))}
		})
		do.Limits = Limits{Body: 1 << 20, LargeWindow: int(largeWindowMin(1 << 20))}
		c := dial(t, do)
		var held []*Reply
		for range 2 {
			r, err := c.Call(t.Context(), Request{Op: 1})
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, r)
			<-queued
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { _, err := c.Call(ctx, Request{Op: 1}); ended <- err }()
		<-queued
		third := make(chan error)
		go func() {
			r, err := c.Call(t.Context(), Request{Op: 1})
			if err == nil {
				r.Release()
			}
			third <- err
		}()
		<-queued
		for range 3 {
			r, err := c.Call(t.Context(), Request{Op: 2})
			if err != nil {
				t.Fatal(err)
			}
			r.Release()
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) || !errors.Is(err, ErrOutcomeUnknown) {
			t.Error(err)
		}
		for _, r := range held {
			r.Release()
		}
		if err := <-third; err != nil {
			t.Error(err)
		}
		c.Close()
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if n := bodies.Load(); n != 0 {
			t.Errorf("%d bodies were not released", n)
		}
	})
}

// A server without memory for a request says so, and has not begun with it.
func TestNoMemoryIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		in, free := make(chan struct{}), make(chan struct{})
		s := serve(t, l, ServerOptions{Memory: 48 << 20, Requests: 3}, func(_ context.Context, r *Incoming) Answer {
			in <- struct{}{}
			<-free
			return Answer{}
		})
		o := options(l)
		o.Dial = l.dial
		c := dial(t, o)
		var all sync.WaitGroup
		call := func(n int) {
			all.Go(func() {
				if _, err := c.Call(t.Context(), Request{Op: 1, Body: Wrap(nil, make([]byte, n))}); err != nil {
					t.Error(err)
				}
			})
			<-in
		}
		call(BodyMax)
		_, err := c.Call(t.Context(), Request{Op: 1, Body: Wrap(nil, make([]byte, BodyMax))})
		if !errors.Is(err, ErrBusy) || !errors.Is(err, ErrNotSent) {
			t.Errorf("without memory: %v", err)
		}
		call(1)
		call(1)
		if _, err = c.Call(t.Context(), Request{Op: 1}); !errors.Is(err, ErrBusy) {
			t.Errorf("beyond the requests: %v", err)
		}
		close(free)
		all.Wait()
		synctest.Wait()
		if st := s.Stats(); st.Memory != 0 || st.Requests != 0 {
			t.Errorf("%+v is left", st)
		}
	})
}

// Requests beyond what the peer takes wait for a place, each priority for its own, and
// can be cancelled there.
func TestPlacesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		free := make(chan struct{})
		serve(t, l, ServerOptions{Limits: Limits{Requests: 2, Maintenances: 1}}, func(context.Context, *Incoming) Answer {
			<-free
			return Answer{}
		})
		o := options(l)
		o.Dial = l.dial
		c := dial(t, o)
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() { c.Call(t.Context(), Request{Priority: Maintenance}) })
		}
		for range 5 {
			all.Go(func() { c.Call(t.Context(), Request{}) })
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		released := false
		go func() {
			_, err := c.Call(ctx, Request{Body: Wrap(func() { released = true })})
			ended <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) || !errors.Is(err, ErrNotSent) || !released {
			t.Errorf("%v, %v", err, released)
		}
		close(free)
		all.Wait()
	})
}

// A caller that gives up while its body is being written is gone at once; the body stays
// until the transport has let go of it.
func TestGivingUpHalfSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		o := DialOptions{Dial: func(context.Context) (net.Conn, error) { return a, nil }, Service: "ovs-kv", Identity: testIdentity()}
		got := make(chan error, 1)
		go func() {
			p, err := readPreface(b)
			if err == nil {
				p.kind, p.text = welcome, ""
				_, err = b.Write(p.append(nil))
			}
			if err == nil {
				_, err = io.ReadFull(b, make([]byte, 1000))
			}
			got <- err
		}()
		c := dial(t, o)
		ctx, cancel := context.WithCancel(t.Context())
		var released atomic.Bool
		ended := make(chan error, 1)
		go func() {
			_, err := c.Call(ctx, Request{Body: Wrap(func() { released.Store(true) }, make([]byte, 10<<20))})
			ended <- err
		}()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) || !errors.Is(err, ErrNotSent) {
			t.Error(err)
		}
		synctest.Wait()
		if released.Load() {
			t.Error("the body was released while it is written")
		}
		if _, err := c.Call(ctx, Request{}); !errors.Is(err, ErrNotSent) {
			t.Error(err)
		}
		c.Close()
		if !released.Load() {
			t.Error("the body was not released")
		}
		b.Close()
	})
}

// A peer that cancels in the middle of an answer gets no more of it, and a word that none
// comes.
func TestCancelInTheMiddleOfAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		var released atomic.Bool
		s := serve(t, l, ServerOptions{}, func(context.Context, *Incoming) Answer {
			return Answer{Body: Wrap(func() { released.Store(true) }, make([]byte, 16<<20))}
		})
		c := stranger(t, l)
		defer c.Close()
		if _, err := c.Write(raw(head{kind: kindRequest, id: 5})); err != nil {
			t.Fatal(err)
		}
		pieces := 0
		for {
			b := make([]byte, headSize)
			if _, err := io.ReadFull(c, b); err != nil {
				t.Fatal(err)
			}
			h, err := decodeHead(b)
			if err != nil {
				t.Fatal(err)
			}
			if h.kind == kindCancel {
				if h.id != 5 {
					t.Errorf("%+v", h)
				}
				break
			}
			if _, err := io.CopyN(io.Discard, c, int64(h.piece)); err != nil {
				t.Fatal(err)
			}
			if pieces++; pieces == 1 {
				if _, err := c.Write(raw(head{kind: kindCancel, id: 5})); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
		}
		synctest.Wait()
		if st := s.Stats(); pieces > 4 || !released.Load() || st.Requests != 0 {
			t.Errorf("%d pieces, released %v, %+v", pieces, released.Load(), st)
		}
	})
}

func TestStatuses(t *testing.T) {
	l := newPipes()
	serve(t, l, ServerOptions{}, func(_ context.Context, r *Incoming) Answer {
		if r.Op == 300 {
			return Answer{Status: 300, Header: []byte("mine")}
		}
		return Answer{Status: uint16(CodeUnknownOp), Header: []byte("no operation 9 here")}
	})
	o := options(l)
	o.Dial = l.dial
	c := dial(t, o)
	r, err := c.Call(t.Context(), Request{Op: 300})
	if err != nil || r.Status != 300 || string(r.Header) != "mine" {
		t.Fatalf("%+v, %v", r, err)
	}
	r.Release()
	if _, err := c.Call(t.Context(), Request{Op: 9}); !errors.Is(err, ErrUnknownOp) || errors.Is(err, ErrOutcomeUnknown) {
		t.Error(err)
	}
	released := 0
	if _, err := c.Call(t.Context(), Request{Header: make([]byte, HeaderMax+1), Body: Wrap(func() { released++ })}); !errors.Is(err, ErrTooLarge) || !errors.Is(err, ErrNotSent) || released != 1 {
		t.Errorf("%v, %d", err, released)
	}
}

// Whoever only looks at the status of an answer cannot run out of room by it.
func TestAnswersWithoutBodyNeedNoRelease(t *testing.T) {
	l := newPipes()
	serve(t, l, ServerOptions{}, func(_ context.Context, r *Incoming) Answer { return Answer{Header: r.Header[:0:0]} })
	o := options(l)
	o.Dial, o.Limits.SmallWindow = l.dial, smallWindowMin
	c := dial(t, o)
	for range 2 * smallWindowMin / overhead {
		if _, err := c.Call(t.Context(), Request{}); err != nil {
			t.Fatal(err)
		}
	}
}
