package arakoon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"openvstorage/internal/disk/crashdisk"
)

// Without a quorum writes and consistent reads fail within their deadline, with an error that
// says so; what a member has can be read. With the quorum back all goes on.
func TestNoQuorumIsToldInTime(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		lead := c.leader()
		set(t, lead, "k", "v")
		c.same("k", "v")
		for _, cut := range []func(){
			c.apart,
			func() { time.Sleep(10 * time.Second) }, // nobody leads any more
		} {
			cut()
			for id := range uint64(3) {
				n := c.node(id + 1)
				for what, ask := range map[string]func(context.Context) error{
					"a write": func(ctx context.Context) error {
						_, err := n.Do(ctx, new(Sequence).Set([]byte("k"), []byte("w")))
						return err
					},
					"a consistent read": func(ctx context.Context) error { _, err := n.Get(ctx, Consistent, []byte("k")); return err },
					"a session":         func(ctx context.Context) error { _, err := n.NewSession(ctx); return err },
				} {
					began := time.Now()
					ctx, stop := context.WithTimeout(t.Context(), time.Second)
					err := ask(ctx)
					stop()
					var elsewhere *NotLeaderError
					if told := errors.Is(err, context.DeadlineExceeded) || errors.As(err, &elsewhere) || errors.Is(err, ErrUnknownOutcome); !told || time.Since(began) > time.Second {
						t.Errorf("%s at member %d: %v after %v", what, n.opt.Member, err, time.Since(began))
					}
				}
				if v, err := n.Get(t.Context(), Local, []byte("k")); err != nil || string(v) != "v" {
					t.Errorf("member %d reads %q, %v", n.opt.Member, v, err)
				}
			}
		}
		c.cutOff()
		set(t, c.leader(), "k", "x")
		c.same("k", "x")
	})
}

// apart cuts every member off from every other one.
func (c *cluster) apart() {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for a := range uint64(20) {
		for b := range uint64(20) {
			c.net.cut[[2]uint64{a, b}] = true
		}
	}
}

// Twenty clients do five thousand sets each at the same time: each is done once, and all hundred
// thousand are there, also after a restart.
func TestHundredThousandSets(t *testing.T) {
	const clients, sets = 20, 5000
	o := testOptions(crashdisk.New())
	o.SegmentBytes, o.CompactBytes, o.MemTableBytes = 4<<20, 8<<20, 4<<20
	n := open(t, o)
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for i := range sets {
				if _, err := n.Do(t.Context(), new(Sequence).Set(fmt.Appendf(nil, "%02d/%04d", c, i), fmt.Append(nil, i))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	holds := func(n *Node) {
		t.Helper()
		if count, err := n.Count(t.Context(), Consistent, Bounds{}); err != nil || count != clients*sets {
			t.Errorf("%d keys, %v", count, err)
		}
		has(t, n, "19/4999", "4999")
	}
	holds(n)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	holds(open(t, o))
}
