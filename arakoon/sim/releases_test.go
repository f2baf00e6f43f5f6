package sim

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/state"
)

// A quarter of the groups begin with members of an older release: it does not know the newest
// level, nor the function that clients call as soon as they may. While all goes on, with any
// other faults, the members are started again with the newer release, one after the other, and
// then the group is raised. A member that met the function before would stop, which is a
// violation.

// newerExtend is extend as the newer release has it.
var newerExtend = arakoon.Function{Name: extend.Name, Version: 2, Run: extend.Run, Level: state.LevelNewest}

// upgrades draws whether a seed's history is that of a rolling upgrade, and when it begins. What
// else is drawn for a seed stays as it is.
func upgrades(p plan) (at time.Duration, happens bool) {
	rng := rand.New(rand.NewPCG(p.seed, 11))
	return time.Duration(rng.Int64N(int64(p.length))) / 2, p.members > 1 && rng.IntN(4) == 0
}

// release adds to a member's options what depends on its release.
func (m *machine) release(o *arakoon.Options) {
	o.Functions = []arakoon.Function{extend}
	if m.older.Load() {
		o.Knows = state.LevelNewest - 1
		return
	}
	o.Functions = append(o.Functions, newerExtend)
}

// firstLevel is the level that a group begins with: all members know it.
func (g *group) firstLevel() uint32 {
	if g.older.Load() {
		return state.LevelNewest - 1
	}
	return state.LevelNewest
}

// upgrade starts each member again with the newer release. Members that come from now on, or are
// down, have it at their next start. When all have it the group is raised.
func (g *group) upgrade(at time.Duration) {
	if !g.wait(at) {
		return
	}
	g.older.Store(false)
	rng := rand.New(rand.NewPCG(g.plan.seed, 12))
	all := g.all()
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, m := range all {
		m.older.Store(false)
		g.watch.note("member %d: its release is newer from the next start on", m.id)
		if l := m.current(); l != nil && m.closes(l) {
			g.wait(time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
			m.start()
		}
		g.wait(time.Duration(rng.Int64N(int64(500 * time.Millisecond))))
	}
	raised := g.lead(func(ctx context.Context, n *arakoon.Node) error { return n.RaiseLevel(ctx, state.LevelNewest, true) })
	if raised {
		g.watch.note("the group is raised to level %d", state.LevelNewest)
		g.raised.Store(true)
	}
}

// Before it is raised the group refuses what its older members do not know, at the one that
// leads whatever its release, and goes on; afterwards it takes it.
func TestOlderMembersAreNotAskedForTheNew(t *testing.T) {
	scenario(t, plan{members: 3, older: true}, func(t *testing.T, g *group) {
		newer := input{kind: add, wanted: some("new"), newer: true}
		c := newClient(g, 902)
		for range 20 {
			if c.write(newer) != 0 {
				t.Fatal("a function is called that no member knows")
			}
		}
		g.older.Store(false)
		for _, m := range g.all()[:2] {
			m.older.Store(false)
			m.shut()
			m.start()
			g.works(t)
			g.leads(t, m)
			for range 20 {
				if c.write(newer) != 0 {
					t.Fatal("a function is called that not all members know")
				}
			}
		}
		g.upgrade(0)
		for began := time.Now(); c.write(newer) == 0; time.Sleep(20 * time.Millisecond) {
			if time.Since(began) > healing {
				t.Fatalf("the function is refused still%s", g.status())
			}
		}
	})
}

// leads gives a machine the lead.
func (g *group) leads(t *testing.T, m *machine) {
	t.Helper()
	for began := time.Now(); g.master(t) != m; time.Sleep(20 * time.Millisecond) {
		if n, _ := g.master(t).node(); n != nil {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			_ = n.Transfer(ctx, m.id)
			cancel()
		}
		if time.Since(began) > healing || g.watch.err() != nil {
			t.Fatalf("member %d does not lead%s", m.id, g.status())
		}
	}
}
