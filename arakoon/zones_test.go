package arakoon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Whatever members acknowledge, in whatever order, and however the members change: raft
// hears of nobody beyond what enough zones hold, is told all of it in the end, and never
// less than before.
func TestZonesModel(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		zoneOf := func(id uint64) string { return []string{"a", "a", "b", "c", "b", "", "c"}[id%7] }
		need := 2 + rng.IntN(2)
		z := zones{need: need, zone: zoneOf}
		members := []uint64{1, 2, 3, 4}
		held, given, allowed := map[uint64]uint64{}, map[uint64]uint64{}, uint64(0)
		take := func(acks []ack) {
			// The highest index that members of enough zones hold, naively.
			for index := allowed; index <= 200; index++ {
				var names []string
				for _, id := range members {
					if name := zoneOf(id); held[id] >= index && name != "" && !slices.Contains(names, name) {
						names = append(names, name)
					}
				}
				if len(names) >= need {
					allowed = index
				}
			}
			for _, a := range acks {
				if a.index > allowed || a.index > held[a.member] {
					t.Fatalf("seed %d: raft hears that %d holds %d; it holds %d, and enough zones %d", seed, a.member, a.index, held[a.member], allowed)
				}
				given[a.member] = max(given[a.member], a.index)
			}
			for _, id := range members {
				if want := min(held[id], allowed); given[id] < want {
					t.Fatalf("seed %d: raft heard that %d holds %d, and could hear %d", seed, id, given[id], want)
				}
			}
		}
		z.begin(1)
		take(z.setMembers(members))
		for step := range uint64(100) {
			switch rng.IntN(20) {
			case 0:
				members = nil
				for id := range uint64(7) {
					if rng.IntN(3) > 0 {
						members = append(members, id)
					}
				}
				take(z.setMembers(members))
			case 1: // another term: nothing that was acknowledged counts
				clear(held)
				clear(given)
				allowed = 0
				z.begin(step + 10)
			default:
				if len(members) == 0 {
					continue
				}
				id := members[rng.IntN(len(members))]
				held[id] = max(held[id], uint64(rng.IntN(200)))
				take(z.acknowledge(id, held[id]))
			}
		}
	}
}

// zoned is a group of which the members up to one are in zone a, the others in b.
func zoned(t *testing.T, last uint64) *cluster {
	c := newCluster(t)
	c.change = func(_ uint64, o *Options) {
		o.Zone = func(id uint64) string {
			if id <= last {
				return "a"
			}
			return "b"
		}
	}
	return c
}

// blocked begins a write that must not come to anything, and checks that it does not.
func (c *cluster) blocked(n *Node, key string) <-chan error {
	c.t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := n.Do(c.t.Context(), new(Sequence).Set([]byte(key), []byte("1")))
		done <- err
	}()
	time.Sleep(20 * time.Second)
	synctest.Wait()
	select {
	case err := <-done:
		c.t.Fatalf("%s was answered: %v", key, err)
	default:
	}
	for id := range uint64(4) {
		if m := c.node(id + 1); m != nil {
			var absent *ErrNotFound
			if v, err := m.Get(c.t.Context(), Local, []byte(key)); !errors.As(err, &absent) {
				c.t.Fatalf("member %d has applied %s: %q, %v", id+1, key, v, err)
			}
		}
	}
	return done
}

// With two zones required and one of them cut off nothing is committed, though there is a
// majority; nothing of it is applied or read; when the cut is healed it goes on.
func TestZoneCutOff(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := zoned(t, 2)
		c.grow(3)
		n := c.leader()
		if n.opt.Member == 3 {
			if err := n.Transfer(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			n = c.node(1)
		}
		for id := range uint64(3) {
			c.node(id + 1).RequireZones(2)
		}
		set(t, n, "before", "1")
		c.cutOff(3)
		done := c.blocked(n, "during")
		if s := n.Status(); s.ExpectProgressPossible() || !strings.Contains(s.Obstacle, "zones") {
			t.Errorf("%+v", s)
		}
		has(t, n, "before", "1") // what was answered before can be read
		// Another leader in the same zone holds to it too.
		lead := n.opt.Member
		c.kill(lead, killed)
		if err := <-done; !errors.Is(err, ErrUnknownOutcome) {
			t.Fatal(err)
		}
		c.change = func(old func(uint64, *Options)) func(uint64, *Options) {
			return func(id uint64, o *Options) { old(id, o); o.RequireZones = 2 }
		}(c.change)
		c.start(lead)
		n = c.leader(1, 2)
		done = c.blocked(n, "again")
		if !n.Leading() { // it may have lost the lead to the other one meanwhile
			t.Fatal("no stable leader")
		}
		c.cutOff()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		c.same("again", "1")
	})
}

// Two hosts: one voter, and a learner in another zone that holds all that is answered.
func TestSynchronousLearner(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := zoned(t, 2)
		n := c.start(1)
		c.start(3)
		if err := n.AddLearner(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		n.RequireZones(2)
		for i := range 10 {
			index, _, err := n.Write(t.Context(), new(Sequence).Set([]byte("a"), fmt.Append(nil, i)))
			if err != nil {
				t.Fatal(err)
			}
			if last, _ := c.node(3).log.LastIndex(); last < index {
				t.Fatalf("entry %d was answered, the learner holds up to %d", index, last)
			}
		}
		if err := n.Remove(t.Context(), 3); !errors.Is(err, ErrMembers) {
			t.Errorf("the only member of a zone that is required was removed: %v", err)
		}
		c.cutOff(3)
		done := c.blocked(n, "cut")
		c.cutOff()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		// Started alone, the voter opens and answers nothing before the learner is there.
		c.change = func(old func(uint64, *Options)) func(uint64, *Options) {
			return func(id uint64, o *Options) { old(id, o); o.RequireZones = 2 }
		}(c.change)
		c.kill(3, killed)
		c.kill(1, killed)
		n = c.start(1)
		brief, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := n.Get(brief, Consistent, []byte("a")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("read without the other zone: %v", err)
		}
		c.start(3)
		has(t, c.leader(1), "cut", "1")
		// Whoever lowers the requirement lets through what waits.
		c.cutOff(3)
		done = c.blocked(n, "lowered")
		n.RequireZones(1)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// A majority in one zone is not enough either, whoever it is made of: four of five members
// have it all, the leader waits for the fifth.
func TestMajorityInOneZone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := zoned(t, 4)
		c.grow(5)
		n := c.leader()
		for id := range uint64(5) {
			c.node(id + 1).RequireZones(2)
		}
		set(t, n, "before", "1")
		c.cutOff(5)
		done := c.blocked(n, "during")
		c.cutOff()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		c.same("during", "1")
	})
}
