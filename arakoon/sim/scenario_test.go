package sim

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/arakoon"
)

// scenario plays what a test does with a group that is well, with clients beside it; then all
// is healed and judged as in any history.
func scenario(t *testing.T, p plan, do func(t *testing.T, g *group)) {
	t.Helper()
	var g *group
	if p.compact == 0 {
		p.compact = 1 << 40
	}
	p.seed, p.weather, p.clients = 1, fair, 2
	synctest.Test(t, func(t *testing.T) {
		g = newGroup(p)
		first := g.add(false)
		first.start()
		g.raise(first)
		for g.size() < p.members && g.watch.err() == nil {
			g.grow(2)
		}
		if p.zones > 0 {
			g.requireZones()
		}
		for i := range p.clients {
			g.trials.Go(newClient(g, i).run)
		}
		g.works(t)
		do(t, g)
		close(g.quiet)
		g.trials.Wait()
		g.heal()
		g.stop()
	})
	if err := g.watch.err(); err != nil {
		t.Errorf("%v\n%s", err, g.watch.story())
	}
	if _, err := g.record.judge(undecided); err != nil {
		t.Error(err)
	}
}

// works waits until the group answers a write.
func (g *group) works(t *testing.T) {
	t.Helper()
	c := newClient(g, 900)
	for began := time.Now(); c.write(c.some(set)) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > healing {
			t.Fatalf("no write within %v%s", healing, g.status())
		}
	}
}

// stands holds that the group answers no write for a while.
func (g *group) stands(t *testing.T) {
	t.Helper()
	c := newClient(g, 901)
	for range 3 {
		if c.write(c.some(set)) != 0 {
			t.Error("a write was answered")
		}
	}
}

// master is the machine that leads.
func (g *group) master(t *testing.T) *machine {
	t.Helper()
	for range 1000 {
		if m := g.leader(); m != nil {
			return m
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("nobody leads", g.status())
	return nil
}

// slaves are the others.
func (g *group) slaves(t *testing.T) []*machine {
	m := g.master(t)
	return slices.DeleteFunc(g.all(), func(o *machine) bool { return o == m })
}

func (m *machine) shut() {
	if l := m.current(); l != nil {
		m.closes(l)
	}
}

func (g *group) isolated(m *machine) (mend func()) {
	var list []direction
	for _, id := range g.ids() {
		if id != m.id {
			list = append(list, direction{m.id, id}, direction{id, m.id})
		}
	}
	return g.net.sever(list)
}

// All nodes are stopped, and only the slaves started: they go on without the master.
func TestStopAllStartOnlySlaves(t *testing.T) {
	scenario(t, plan{members: 3}, func(t *testing.T, g *group) {
		slaves := g.slaves(t)
		for _, m := range g.all() {
			m.shut()
		}
		for _, m := range slaves {
			m.start()
		}
		g.works(t)
	})
}

// Each node is restarted in turn, again and again.
func TestRestartsInALoop(t *testing.T) {
	scenario(t, plan{members: 3, compact: 32 << 10}, func(t *testing.T, g *group) {
		for range 7 {
			for _, m := range g.all() {
				m.shut()
				m.start()
				g.works(t)
			}
		}
	})
}

// A node that was wiped is replaced, and the new one catches up though the log is gone that
// it would need.
func TestWipedNodeCatchesUp(t *testing.T) {
	scenario(t, plan{members: 3, compact: 16 << 10}, func(t *testing.T, g *group) {
		time.Sleep(10 * time.Second)
		g.replace(g.slaves(t)[0])
		if g.works(t); g.fetched.Load() == 0 {
			t.Error("no snapshot was fetched")
		}
	})
}

// A node that was away catches up while others write, though it is interrupted again and
// again: its network is cut, and it is killed.
func TestInterruptedCatchUpUnderLoad(t *testing.T) {
	scenario(t, plan{members: 3, compact: 16 << 10}, func(t *testing.T, g *group) {
		m := g.slaves(t)[0]
		m.shut()
		time.Sleep(10 * time.Second)
		for i := range 6 {
			m.start()
			time.Sleep(time.Duration(1+i*7) * time.Millisecond)
			mend := g.isolated(m)
			time.Sleep(100 * time.Millisecond)
			mend()
			if l := m.current(); l != nil && i%2 == 0 {
				m.end(l, killed)
			}
		}
		m.start()
		g.works(t)
		g.caughtUp(t, m)
	})
}

// The master is cut off, again and again: each time another one takes over, and what was
// answered stays.
func TestMasterBlockedInALoop(t *testing.T) {
	scenario(t, plan{members: 3}, func(t *testing.T, g *group) {
		for range 8 {
			mend := g.isolated(g.master(t))
			g.works(t)
			mend()
			time.Sleep(time.Second)
		}
	})
}

// A slave's disk is full, and then the master's: the group goes on, and so does the node when
// there is room.
func TestFullDiskOfANode(t *testing.T) {
	scenario(t, plan{members: 3, compact: 32 << 10}, func(t *testing.T, g *group) {
		for _, m := range []*machine{g.slaves(t)[0], g.master(t)} {
			l := m.current()
			l.still(func() { l.ill, l.quota = true, l.fault.Limit("/", 0) })
			for range 20 {
				g.works(t)
				time.Sleep(200 * time.Millisecond)
			}
			l.still(l.wellLocked)
			g.works(t)
		}
	})
}

// The master is dropped: idle, under load, and where there is no other node.
func TestDropMaster(t *testing.T) {
	ctx := context.Background()
	scenario(t, plan{members: 3}, func(t *testing.T, g *group) {
		for range 5 {
			m := g.master(t)
			n, _ := m.node()
			if err := n.Transfer(ctx, 0); err != nil {
				t.Errorf("drop master: %v", err)
			}
			if g.works(t); g.master(t) == m {
				t.Error("it leads again")
			}
			time.Sleep(time.Second)
		}
	})
	scenario(t, plan{members: 1}, func(t *testing.T, g *group) {
		n, _ := g.master(t).node()
		if err := n.Transfer(ctx, 0); !errors.Is(err, arakoon.ErrTransfer) {
			t.Errorf("drop master of a single node: %v", err)
		}
	})
}

// While two of three nodes are down nobody is the master, no progress is to be expected, and
// nothing is answered; with one of them back there is one.
func TestWhoMasterWithNodesDown(t *testing.T) {
	scenario(t, plan{members: 3}, func(t *testing.T, g *group) {
		slaves := g.slaves(t)
		left, _ := g.master(t).node()
		for _, m := range slaves {
			m.shut()
		}
		time.Sleep(5 * time.Second)
		if s := left.Status(); s.ExpectProgressPossible() || s.Leader != 0 || s.Obstacle == "" {
			t.Errorf("with two nodes down: %+v", s)
		}
		g.stands(t)
		slaves[0].start()
		g.works(t)
		if s := left.Status(); !s.ExpectProgressPossible() || s.Leader == 0 {
			t.Errorf("with one node down: %+v", s)
		}
	})
}

// One to two to three nodes, expand and shrink: one to three to five voters and back, with
// writes all the time, and those that go are destroyed at once.
func TestExpandAndShrink(t *testing.T) {
	scenario(t, plan{members: 3, compact: 32 << 10}, func(t *testing.T, g *group) {
		for _, step := range []func() bool{
			func() bool { return g.grow(2) },
			func() bool { g.shrink(true); return true },
			func() bool { g.shrink(true); return true },
			func() bool { return g.grow(2) },
		} {
			if !step() {
				t.Error("a step was not taken")
			}
			g.works(t)
		}
		if n := g.size(); n != 3 {
			t.Errorf("%d machines are left", n)
		}
	})
}

// kill cuts the power of all members of a zone.
func (g *group) killZone(name string) (list []*machine) {
	for _, m := range g.all() {
		if l := m.current(); l != nil && g.zone(m.id) == name && m.end(l, killed) {
			list = append(list, m)
		}
	}
	return list
}

// Of three zones any one may die, and the group goes on.
func TestOfThreeZonesOneMayDie(t *testing.T) {
	for _, members := range []int{3, 5} {
		scenario(t, plan{members: members, zones: 3}, func(t *testing.T, g *group) {
			for _, name := range []string{"a", "b", "c"} {
				dead := g.killZone(name)
				g.works(t)
				for _, m := range dead {
					m.start()
				}
				time.Sleep(5 * time.Second)
				g.works(t)
			}
		})
	}
}

// Of two zones none may die: the group answers nothing, until the zone is back or a person
// says that the other zone is enough.
func TestOfTwoZonesNoneMayDie(t *testing.T) {
	for _, name := range []string{"a", "b"} {
		scenario(t, plan{members: 3, zones: 2}, func(t *testing.T, g *group) {
			dead := g.killZone(name)
			time.Sleep(5 * time.Second)
			g.stands(t)
			for _, m := range dead {
				m.start()
			}
			g.works(t)
		})
	}
	scenario(t, plan{members: 3, zones: 2}, func(t *testing.T, g *group) {
		small, large := "a", "b"
		if len(slices.DeleteFunc(g.all(), func(m *machine) bool { return g.zone(m.id) == "b" })) > 1 {
			small, large = "b", "a"
		}
		dead := g.killZone(small)
		time.Sleep(5 * time.Second)
		g.stands(t)
		if len(dead) != 1 || large == small {
			t.Fatal(dead)
		}
		if !g.require(1, true) { // from here on one zone is enough
			t.Error("it is not lowered", g.status())
		}
		g.works(t)
		for _, m := range dead {
			m.start()
		}
	})
}
