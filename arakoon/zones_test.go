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

	"openvstorage/arakoon/state"
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

// leaderInA returns the leader of a group of members 1 to 3, of which 3 is in zone b and leads no more.
func (c *cluster) leaderInA() *Node {
	c.t.Helper()
	if n := c.leader(); n.opt.Member == 3 {
		if err := n.Transfer(c.t.Context(), 1); err != nil {
			c.t.Fatal(err)
		}
	}
	return c.leader(1, 2)
}

// require has a group require zones, after its level is raised.
func (c *cluster) require(n *Node, zones int, asserted bool) {
	c.t.Helper()
	if err := n.RaiseLevel(c.t.Context(), state.LevelZones, true); err != nil {
		c.t.Fatal(err)
	}
	// A member that was only just added has not been heard from yet: it is asked again.
	c.until("zones that can be required", func() bool {
		_, err := n.RequireZones(c.t.Context(), zones, asserted)
		if err != nil && !errors.Is(err, ErrMembers) {
			c.t.Fatal(err)
		}
		return err == nil
	})
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
		n := c.leaderInA()
		c.require(n, 2, false)
		set(t, n, "before", "1")
		c.cutOff(3)
		done := c.blocked(n, "during")
		if s := n.Status(); s.ExpectProgressPossible() || !strings.Contains(s.Obstacle, "zones") {
			t.Errorf("%+v", s)
		}
		// Consistent reads are refused too, and what the member has can be read.
		var away *ZonesError
		if _, err := n.Get(t.Context(), Consistent, []byte("before")); !errors.As(err, &away) || !slices.Equal(away.Away, []string{"b"}) {
			t.Errorf("a consistent read: %v", err)
		}
		if _, err := n.Do(t.Context(), new(Sequence).Set([]byte("refused"), nil)); !errors.Is(err, ErrZones) || !strings.Contains(err.Error(), "ovs recover") {
			t.Errorf("a write: %v", err)
		}
		if v, err := n.Get(t.Context(), Local, []byte("before")); err != nil || string(v) != "1" {
			t.Error(v, err)
		}
		// Another leader in the same zone holds to it too.
		lead := n.opt.Member
		c.kill(lead, killed)
		if err := <-done; !errors.Is(err, ErrUnknownOutcome) {
			t.Fatal(err)
		}
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

// A learner that was just added is not made yet, and holds nothing: no zone is required on its
// account. Whoever makes it asks the group first, which would answer nothing.
func TestZoneOfAMemberThatIsNotMade(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := zoned(t, 2)
		n := c.start(1)
		if err := n.AddLearner(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		if err := n.RaiseLevel(t.Context(), state.LevelNewest, true); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := n.RequireZones(ctx, 2, false); !errors.Is(err, ErrMembers) {
			t.Fatalf("a zone is required that holds nothing: %v", err)
		}
		set(t, n, "while", "1")
		c.start(3)
		c.until("the zone can be required", func() bool {
			_, err := n.RequireZones(t.Context(), 2, false)
			return err == nil
		})
		c.same("while", "1")
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
		c.require(n, 2, false)
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
		c.kill(3, killed)
		c.kill(1, killed)
		n = c.start(1)
		brief, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := n.Get(brief, Consistent, []byte("a")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("read without the other zone: %v", err)
		}
		c.start(3)
		c.until("a zone that is back", func() bool {
			v, err := c.leader(1).Get(t.Context(), Consistent, []byte("cut"))
			return err == nil && string(v) == "1"
		})
		// Whoever asserts that the other zone is off lets through what waits.
		n = c.leader(1)
		c.cutOff(3)
		done = c.blocked(n, "lowered")
		revision, err := n.RequireZones(t.Context(), 1, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if r := n.Requirement(); r != (Requirement{Zones: 1, Since: revision, Lowered: revision, From: 2, Asserted: true}) {
			t.Errorf("%+v", r)
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
		c.require(n, 2, false)
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

// The requirement is in the log and in the state: a restart of all members, and a member that
// got the state as a snapshot, hold to it, and no one needs to be told.
func TestRequirementOutlivesRestarts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := zoned(t, 2)
		c.grow(3)
		c.require(c.leader(), 2, false)
		for round := range 3 {
			for id := range uint64(3) {
				c.kill(id+1, killed)
			}
			for id := range uint64(2) {
				c.start(id + 1)
			}
			n := c.leader(1, 2)
			done := c.blocked(n, fmt.Sprint("round", round))
			c.start(3)
			if err := <-done; err != nil && !errors.Is(err, ErrUnknownOutcome) {
				t.Fatal(err)
			}
			c.until("a group that answers", func() bool {
				_, err := c.leader().Do(t.Context(), new(Sequence).Set([]byte("a"), nil))
				return err == nil
			})
		}
	})
}

// Lowering is answered when a majority knows of it for good: after a power cut of all members
// those of one zone go on without the other one. Until it is, nothing is answered without the
// other zone; a leader that was cut off from it in between holds to what was required before.
func TestLoweringIsKnown(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := zoned(t, 2)
		c.grow(3)
		n := c.leader()
		c.require(n, 2, false)
		lowered, err := n.RequireZones(t.Context(), 1, false)
		if err != nil {
			t.Fatal(err)
		}
		for id := range uint64(3) {
			c.kill(id+1, killed)
		}
		for id := range uint64(2) {
			c.start(id + 1)
		}
		n = c.leader(1, 2)
		set(t, n, "alone", "1")
		c.start(3)
		c.same("alone", "1")
		for id := range uint64(3) {
			if r := c.node(id + 1).Requirement(); r.Lowered != lowered || r.Zones != 1 || r.Asserted {
				t.Errorf("member %d: %+v", id+1, r)
			}
		}
	})
}

// While the record of a lowering is on its way nothing is answered that the other zone lacks.
func TestLoweringWaitsForTheOtherZone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := zoned(t, 2)
		c.grow(3)
		n := c.leaderInA()
		c.require(n, 2, false)
		c.cutOff(3) // nobody has noticed yet
		lowered := make(chan error, 1)
		go func() {
			_, err := n.RequireZones(t.Context(), 1, false)
			lowered <- err
		}()
		done := c.blocked(n, "during")
		select {
		case err := <-lowered:
			t.Fatalf("it was lowered without the other zone: %v", err)
		default:
		}
		c.cutOff()
		if err := <-lowered; err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil && !errors.Is(err, ErrZones) {
			t.Fatal(err)
		}
		set(t, n, "after", "1")
		c.same("after", "1")
	})
}

// Raising is refused where members are in too few zones, and answered when the zones hold
// everything that there is.
func TestRaising(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := zoned(t, 3)
		c.grow(3)
		n := c.leader()
		if err := n.RaiseLevel(t.Context(), state.LevelZones, true); err != nil {
			t.Fatal(err)
		}
		if _, err := n.RequireZones(t.Context(), 2, false); !errors.Is(err, ErrMembers) {
			t.Fatalf("all members are in one zone: %v", err)
		}
		set(t, n, "a", "1")
		c.start(4)
		if err := n.AddLearner(t.Context(), 4); err != nil {
			t.Fatal(err)
		}
		var revision uint64
		c.until("the new member holds something", func() bool {
			var err error
			revision, err = n.RequireZones(t.Context(), 2, false)
			return err == nil
		})
		if last, _ := c.node(4).log.LastIndex(); last < revision {
			t.Errorf("entry %d is required to be in zone b, which has %d", revision, last)
		}
		if _, err := n.RequireZones(t.Context(), 3, false); !errors.Is(err, ErrMembers) {
			t.Errorf("three of two zones: %v", err)
		}
		if again, err := n.RequireZones(t.Context(), 2, false); err != nil || again != revision {
			t.Errorf("what there is already: %d, %v", again, err)
		}
	})
}

// A member that is started in another zone counts for the zone that it is in, by its own
// word: nothing is answered that is in one zone, though all others believe it to be where it
// was.
func TestMemberMovesToAnotherZone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := zoned(t, 2)
		c.grow(3)
		n := c.leaderInA()
		c.require(n, 2, false)
		set(t, n, "before", "1")
		c.kill(3, killed)
		was := c.change
		c.change = func(id uint64, o *Options) {
			was(id, o)
			zone := o.Zone
			o.Zone = func(of uint64) string {
				if of == 3 && id == 3 {
					return "a"
				}
				return zone(of)
			}
		}
		c.start(3)
		time.Sleep(time.Second)
		done := c.blocked(n, "during")
		if e := n.Status().Missing; e == nil || e.Need != 2 || !slices.Equal(e.There, []string{"a"}) {
			t.Errorf("%+v", e)
		}
		c.kill(3, killed)
		c.change = was
		c.start(3)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		c.same("during", "1")
	})
}

// Of several processes of one member the newest counts, whatever comes late.
func TestPlaces(t *testing.T) {
	p := places{self: 1, own: "a", of: map[uint64]*placed{}, roster: func(uint64) string { return "roster" }}
	if p.said(2) != "" || p.zone(2) != "roster" || p.said(1) != "a" {
		t.Error("before it said anything")
	}
	p.note(2, appendStamp(nil, 10, "b"))
	p.note(2, appendStamp(nil, 11, "a"))
	p.note(2, appendStamp(nil, 10, "b"))
	p.note(2, []byte{stampVersion + 1, 0, 0, 0, 0, 0, 0, 0, 0, 'c'})
	p.note(2, append(appendStamp(nil, 12, "x"), make([]byte, stampMax)...))
	if p.said(2) != "a" || p.zone(2) != "a" {
		t.Errorf("it is in %q", p.said(2))
	}
	for start := range uint64(100) {
		p.note(2, appendStamp(nil, 100+start, ""))
	}
	if n := len(p.of[2].past); n > pastStarts || p.said(2) != "" {
		t.Error(n, p.said(2))
	}
	p.forget([]uint64{1})
	if len(p.of) > 0 {
		t.Error(p.of)
	}
}

func FuzzStamp(f *testing.F) {
	f.Add(appendStamp(nil, 1, "zone"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if start, zone, ok := decodeStamp(b); ok && string(appendStamp(nil, start, zone)) != string(b) {
			t.Errorf("%x", b)
		}
	})
}
