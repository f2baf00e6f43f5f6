package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A message that is never ended ends its connection after Limits.Whole, however much else
// its sender says meanwhile; one that takes almost as long is taken.
func TestMessageThatIsNeverEnded(t *testing.T) {
	for name, end := range map[string]bool{"never": false, "late": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				s := serve(t, l, ServerOptions{Limits: Limits{Whole: time.Minute}}, echo)
				c := stranger(t, l)
				defer c.Close()
				go func() { // what the server says is of no interest
					b := make([]byte, 4096)
					for {
						if _, err := c.Read(b); err != nil {
							return
						}
					}
				}()
				if _, err := c.Write(raw(head{kind: kindRequest, id: 1, body: 3, piece: 1}, 1)); err != nil {
					t.Fatal(err)
				}
				var gone error
				for id := uint64(2); id < 116 && gone == nil; id += 2 {
					time.Sleep(time.Second)
					for i := range uint64(2) { // others come whole, in two frames
						_, gone = c.Write(append(raw(head{kind: kindRequest, id: id + i, body: 2, piece: 1}, 1), raw(head{kind: kindPiece, id: id + i, body: 2, piece: 1}, 1)...))
					}
				}
				if gone != nil {
					t.Fatalf("before a minute was over: %v", gone)
				}
				if end {
					if _, err := c.Write(raw(head{kind: kindPiece, id: 1, body: 3, piece: 2}, 1, 2)); err != nil {
						t.Fatal(err)
					}
				}
				for range 7 {
					time.Sleep(time.Second)
					c.Write(raw(head{kind: kindPing}))
				}
				time.Sleep(time.Second)
				if _, err := c.Write(raw(head{kind: kindPing})); (err == nil) != end {
					t.Errorf("after more than a minute: %v", err)
				}
				if end != (s.Stats().Conns == 1) {
					t.Errorf("%+v", s.Stats())
				}
			})
		})
	}
}

// A message that is never ended does not make the connection remember all that came later.
func TestAgesAreForgotten(t *testing.T) {
	var e endpoint
	e.partly = map[uint64]*inbound{}
	begin := func(id uint64) *inbound {
		in := &inbound{since: int64(id)}
		e.partly[id] = in
		e.order = append(e.order, in)
		e.oldest.CompareAndSwap(0, in.since)
		return in
	}
	first := begin(1)
	second := begin(2)
	for id := uint64(3); id < 10000; id++ {
		e.parted(id, begin(id))
		if len(e.order) > 200 || e.oldest.Load() != 1 {
			t.Fatalf("%d messages are remembered, the oldest is of %d", len(e.order), e.oldest.Load())
		}
	}
	e.parted(1, first)
	if e.oldest.Load() != 2 {
		t.Errorf("the oldest is of %d", e.oldest.Load())
	}
	e.parted(2, second)
	if e.oldest.Load() != 0 || len(e.order) != 0 {
		t.Errorf("%d messages are remembered", len(e.order))
	}
}

// What is started in order reaches an inline handler in order; each is told of once, also
// if the connection ends.
func TestStartKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		var seen []uint64
		serve(t, l, ServerOptions{Services: map[string]*Service{"ovs-kv": {
			Inline: func(uint16) bool { return true },
			Handler: HandlerFunc(func(_ context.Context, r *Incoming) Answer {
				seen = append(seen, binary.LittleEndian.Uint64(r.Header))
				return Answer{}
			}),
		}}}, nil)
		o := options(l)
		o.Dial = l.dial
		c := dial(t, o)
		const n = 500
		told := make(chan error, n)
		for i := range uint64(n) {
			body := Wrap(nil, make([]byte, i*100))
			if err := c.Start(t.Context(), Request{Header: binary.LittleEndian.AppendUint64(nil, i), Body: body}, func(_ *Reply, err error) { told <- err }); err != nil {
				t.Fatal(err)
			}
		}
		for range n {
			if err := <-told; err != nil {
				t.Fatal(err)
			}
		}
		if len(seen) != n || !slices.IsSorted(seen) {
			t.Errorf("%d came, in order: %v", len(seen), slices.IsSorted(seen))
		}
	})
}

// A call that was started is told of the end of its connection exactly once, whoever ends
// it, and whenever.
func TestStartIsToldOnce(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			l := newPipes()
			serve(t, l, ServerOptions{}, func(ctx context.Context, _ *Incoming) Answer { <-ctx.Done(); return Answer{} })
			o := options(l)
			o.Dial = l.dial
			c := dial(t, o)
			told, started := make(chan error, 100), 0
			go c.Close()
			for range 20 {
				if c.Start(t.Context(), Request{}, func(_ *Reply, err error) { told <- err }) == nil {
					started++
				}
			}
			synctest.Wait()
			if len(told) != started {
				t.Fatalf("%d were started, %d were told", started, len(told))
			}
		})
	}
}

// What is detached is the caller's for good, and its room is free at once.
func TestDetach(t *testing.T) {
	l := newPipes()
	kept := make(chan []byte, 100)
	s := serve(t, l, ServerOptions{Limits: Limits{Body: 1 << 20, LargeWindow: int(largeWindowMin(1 << 20))}}, func(_ context.Context, r *Incoming) Answer {
		kept <- r.Take().Detach()
		return Answer{}
	})
	o := options(l)
	o.Dial = l.dial
	c := dial(t, o)
	for i := range 20 { // many times the window
		body := make([]byte, 1<<20)
		body[0], body[1<<20-1] = byte(i), byte(i)
		if _, err := c.Call(t.Context(), Request{Body: Wrap(nil, body)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		if b := <-kept; len(b) != 1<<20 || b[0] != byte(i) || b[1<<20-1] != byte(i) {
			t.Errorf("body %d has been used again", i)
		}
	}
	if n := s.Stats().Memory; n != 0 {
		t.Errorf("%d bytes are taken from the pool", n)
	}
	if b := Wrap(nil, []byte("a"), []byte("b")).Detach(); string(b) != "ab" {
		t.Errorf("%q", b)
	}
	freed := 0
	if b := Wrap(func() { freed++ }, []byte("abc")).Detach(); string(b) != "abc" || freed != 1 {
		t.Errorf("%q, freed %d times", b, freed)
	}
	if b := (*Buffer)(nil).Detach(); b != nil {
		t.Errorf("%q", b)
	}
}

// Whoever dialled can say that another one than was meant has answered.
func TestDialAdmits(t *testing.T) {
	l := newPipes()
	serve(t, l, ServerOptions{}, echo)
	o := options(l)
	o.Dial = l.dial
	wrong := errors.New("another host")
	o.Admit = func(p *Peer) error { return wrong }
	if _, err := Dial(t.Context(), o); !errors.Is(err, wrong) || !errors.Is(err, ErrDenied) || !errors.Is(err, ErrNotSent) {
		t.Error(err)
	}
}
