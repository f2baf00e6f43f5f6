package arakoon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"openvstorage/internal/disk/crashdisk"
)

// Whatever is killed, cut off, raised and lowered, and whoever leads: the member of the other
// zone has all that was answered while two zones were required, and, if the requirement was
// lowered, all that was answered up to there; and it knows which of both it is.
func TestRecoverTheOtherZoneAtRandom(t *testing.T) {
	for seed := range uint64(12) {
		inBubble(t, func(t *testing.T) { recoverAtRandom(t, seed) })
	}
}

type ctx = context.Context

// brief calls fn with a context that ends soon.
func brief(t *testing.T, fn func(ctx) error) error {
	within, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := fn(within); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func recoverAtRandom(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 14))
	c := zoned(t, 2)
	zone := c.change
	c.change = func(id uint64, o *Options) { zone(id, o); o.SyncPatience = SyncPatience }
	if rng.IntN(2) == 0 {
		c.grow(3)
	} else {
		n := c.start(1)
		c.start(3)
		if err := n.AddLearner(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
	}
	c.require(c.leader(), 2, false)
	members := []uint64{1, 3}
	if c.node(2) != nil {
		members = []uint64{1, 2, 3}
	}
	answered := map[string]uint64{}
	do := func(fn func(n *Node) error) { // by whoever leads, and not for long
		for _, id := range members {
			if n := c.node(id); n != nil && n.Leading() {
				if err := fn(n); err != nil && !errors.Is(err, ErrUnknownOutcome) && !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrZones) &&
					!errors.Is(err, ErrMembers) && !errors.Is(err, ErrTransfer) && !errors.Is(err, ErrNotCaughtUp) {
					t.Fatalf("seed %d: %v", seed, err)
				}
				return
			}
		}
	}
	for i := range 60 {
		switch id := members[rng.IntN(len(members))]; rng.IntN(12) {
		case 0, 1:
			c.kill(id, func(d *crashdisk.FS) *crashdisk.FS { return d.Crash(rng, crashdisk.LoseAll) })
			time.Sleep(time.Duration(rng.IntN(int(time.Second))))
			c.start(id)
		case 2:
			c.cutOff(id)
		case 3, 4:
			c.cutOff()
			time.Sleep(time.Duration(rng.IntN(int(3 * time.Second))))
		case 5:
			do(func(n *Node) error {
				return brief(t, func(ctx ctx) error { return n.Transfer(ctx, members[rng.IntN(len(members))]) })
			})
		case 6:
			zones := 1 + rng.IntN(2)
			do(func(n *Node) error {
				return brief(t, func(ctx ctx) error { _, err := n.RequireZones(ctx, zones, false); return err })
			})
		}
		key := fmt.Sprint("key", i)
		do(func(n *Node) error {
			return brief(t, func(ctx ctx) error {
				index, _, err := n.Write(ctx, new(Sequence).Set([]byte(key), []byte("1")))
				if err == nil {
					answered[key] = index
				}
				return err
			})
		})
	}
	for _, id := range members {
		c.kill(id, func(d *crashdisk.FS) *crashdisk.FS { return d.Crash(rng, crashdisk.LoseAll) })
	}
	s, err := Survey(c.options(3))
	if err != nil {
		t.Fatal(err)
	}
	n := c.recovered(3, 1)
	for key, index := range answered {
		if s.Requirement.Zones == 2 && index > s.Requirement.Since || index <= s.Requirement.Lowered {
			if v, err := n.Get(t.Context(), Consistent, []byte(key)); err != nil || string(v) != "1" {
				t.Errorf("seed %d: %s, answered at %d, is lost: %v; %v", seed, key, index, err, s.Requirement)
			}
		}
	}
	t.Logf("seed %d: %d answered; %v; in sync %v", seed, len(answered), s.Requirement, s.InSync)
}
