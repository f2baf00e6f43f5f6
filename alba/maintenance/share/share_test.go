package share_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/maintenance/share"
	"openvstorage/alba/nsm/nsmtest"
)

var ctx = context.Background()

// clock is a clock of one agent: it runs as the test says.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func queue(t *testing.T) abm.Queue {
	t.Helper()
	s := nsmtest.New(abm.Functions()...)
	c := abm.NewClient(s, s)
	check(t, c.Init(ctx, [16]byte{1}))
	return abm.Queue{Client: c}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func agent(q abm.Queue, name string, c *clock) *share.Share {
	return share.New(share.Options{Queue: q, Holder: name, Kind: "repair/", Lease: 8 * time.Second, Now: c.now})
}

// A piece has one agent; that of a dead agent is taken over once its lease is over, by
// whoever saw all of that time pass, and the dead one knows by itself that it may change
// nothing any more.
func TestTakeOver(t *testing.T) {
	q := queue(t)
	var one, two clock
	a, b := agent(q, "a", &one), agent(q, "b", &two)
	_, err := q.AddWork(ctx, []abm.NewWork{{Name: "other/1"}}) // not ours
	check(t, err)
	check(t, a.Offer(ctx, "p", []byte("do it")))
	check(t, a.Offer(ctx, "p", []byte("do it"))) // once
	h, err := a.Take(ctx)
	if err != nil || h == nil || string(h.Data()) != "do it" || h.Name() != "p" {
		t.Fatal(h, err)
	}
	if n, err := b.Count(ctx); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	take := func() *share.Held {
		t.Helper()
		h, err := b.Take(ctx)
		check(t, err)
		return h
	}
	for range 5 {
		two.at = two.at.Add(7 * time.Second)
		check(t, h.Keep(ctx)) // it lives
		if take() != nil {
			t.Fatal("taken from one who lives")
		}
	}
	two.at = two.at.Add(7 * time.Second)
	if take() != nil {
		t.Fatal("taken before the lease was over")
	}
	one.at = one.at.Add(6 * time.Second)
	if err := h.Err(); !errors.Is(err, share.ErrLost) {
		t.Fatal("a silent agent may change things:", err)
	}
	two.at = two.at.Add(time.Second)
	over := take()
	if over == nil || over.Attempts() != 2 {
		t.Fatal("not taken over")
	}
	if err := h.Keep(ctx); !errors.Is(err, share.ErrLost) {
		t.Fatal(err)
	}
	check(t, h.Finish(ctx)) // changes nothing
	if n, _ := b.Count(ctx); n != 1 {
		t.Fatal("the piece was finished by one who had lost it")
	}
	check(t, over.Finish(ctx))
	if n, _ := b.Count(ctx); n != 0 {
		t.Fatal("it is there still")
	}
}

// Agents whose clocks run apart by a quarter take, keep, drop and finish pieces at random.
// No two of them believe at a time that they may change what a piece is about.
func TestOneAtATime(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		q := queue(t)
		clocks := make([]clock, 3)
		agents := make([]*share.Share, 3)
		for i := range agents {
			agents[i] = agent(q, fmt.Sprint("agent", i), &clocks[i])
		}
		held := make([]map[string]*share.Held, 3)
		for i := range held {
			held[i] = make(map[string]*share.Held)
		}
		for range 200 {
			i := r.IntN(3)
			switch r.IntN(6) {
			case 0:
				check(t, agents[i].Offer(ctx, fmt.Sprint(r.IntN(3)), nil))
			case 1, 2:
				h, err := agents[i].Take(ctx)
				check(t, err)
				if h != nil {
					held[i][h.Name()] = h
				}
			case 3:
				for _, h := range held[i] {
					_ = h.Keep(ctx)
				}
			case 4:
				for name, h := range held[i] {
					if h.Err() == nil && r.IntN(4) == 0 {
						check(t, h.Finish(ctx))
						delete(held[i], name)
					}
				}
			case 5:
				step := time.Duration(r.IntN(2000)) * time.Millisecond
				for j := range clocks {
					clocks[j].at = clocks[j].at.Add(step * time.Duration(100-r.IntN(20)) / 100)
				}
			}
			who := make(map[string]int)
			for j := range held {
				for name, h := range held[j] {
					if h.Err() != nil {
						continue
					}
					if who[name]++; who[name] > 1 {
						t.Fatalf("seed %d: two agents have piece %s", seed, name)
					}
				}
			}
		}
	}
}

// A claim is of one agent, and a piece that is cut off waits for another.
func TestClaimAndDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queue(t)
		a := share.New(share.Options{Queue: q, Holder: "a", Kind: "k/"})
		b := share.New(share.Options{Queue: q, Holder: "b", Kind: "k/"})
		h, err := a.Claim(ctx, "plan")
		if err != nil || h == nil {
			t.Fatal(err)
		}
		if other, err := b.Claim(ctx, "plan"); err != nil || other != nil {
			t.Fatal("claimed twice", err)
		}
		cut, cancel := context.WithCancel(ctx)
		err = h.Do(cut, func(ctx context.Context) error {
			// Far longer than the lease: it is kept meanwhile.
			time.Sleep(10 * share.DefaultLease)
			if other, err := b.Claim(ctx, "plan"); err != nil || other != nil {
				t.Error("taken from one who lives", err)
			}
			cancel()
			return ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if n, err := b.Count(ctx); n != 1 || err != nil {
			t.Fatal("what was cut off is not in the queue any more", err)
		}
		h, err = b.Claim(ctx, "plan")
		if err != nil || h == nil {
			t.Fatal("what was cut off does not wait", err)
		}
		check(t, h.Do(ctx, func(context.Context) error { return nil }))
		if n, err := a.Count(ctx); n != 0 || err != nil {
			t.Fatal(n, err)
		}
	})
}

// An agent that cannot reach the ABM stops by itself before its lease is over.
func TestCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := nsmtest.New(abm.Functions()...)
		c := abm.NewClient(s, s)
		check(t, c.Init(ctx, [16]byte{1}))
		w := &wall{Store: s}
		a := share.New(share.Options{Queue: abm.Queue{Client: abm.NewClient(w, w)}, Holder: "a", Kind: "k/"})
		check(t, a.Offer(ctx, "p", nil))
		h, err := a.Take(ctx)
		check(t, err)
		w.down = true
		begin := time.Now()
		err = h.Do(ctx, func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		if !errors.Is(err, share.ErrLost) || time.Since(begin) >= share.DefaultLease {
			t.Fatalf("%v after %v", err, time.Since(begin))
		}
	})
}

// wall stands between an agent and the ABM.
type wall struct {
	*nsmtest.Store
	down bool
}

func (w *wall) Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	if w.down {
		return nil, errors.New("cut off")
	}
	return w.Store.Call(ctx, name, version, arg)
}
