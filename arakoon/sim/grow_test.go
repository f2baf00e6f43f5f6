package sim

import (
	"context"
	"errors"
	"slices"
	"time"

	"openvstorage/arakoon"
)

// join adds to the options of a member what others need of it.
func (g *group) join(m *machine, l *life, o *arakoon.Options) {
	if g.plan.members > 1 {
		o.Transport, o.Fetcher, o.Joining = port{g.net, l}, fetcher{g, l}, m.joining
	}
	if g.plan.zones > 0 {
		o.Zone = g.zone
	}
}

// Where zones are required two of them must have what is answered. Of two zones one has all
// but few members.
const zonesNeeded = 2

func (g *group) zone(id uint64) string {
	if g.plan.zones == 2 {
		return []string{"a", "b", "a"}[id%3]
	}
	return []string{"a", "b", "c"}[id%3]
}

// requireZones has nothing answered from now on before two zones have it. A group that has
// one member cannot begin so.
func (g *group) requireZones() {
	if !g.require(zonesNeeded, false) {
		g.watch.violation("zones cannot be required%s", g.status())
		return
	}
}

// require sets in how many zones everything must be held.
func (g *group) require(zones int, asserted bool) bool {
	if zones < zonesNeeded {
		g.watch.lowers()
	}
	return g.lead(func(ctx context.Context, n *arakoon.Node) error {
		revision, err := n.RequireZones(ctx, zones, asserted)
		if err == nil && zones == zonesNeeded {
			g.watch.requires(revision, g.zone)
		}
		return err
	})
}

// hint is the machine that leads, as a node knows.
func (g *group) hint(n *arakoon.Node) *machine {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.machines[n.Leader()]
}

// errNever says that lead need not try again.
var errNever = errors.New("this member is not to be replaced")

// lead has the leader do something, again and again until that succeeds: a change that is
// refused because too few members are heard from is taken later. When the time for faults is over it gives up: settle brings the rest to an end.
func (g *group) lead(do func(ctx context.Context, n *arakoon.Node) error) bool {
	for {
		if m := g.leader(); m != nil {
			if n, _ := m.node(); n != nil {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				err := do(ctx, n)
				cancel()
				if err == nil || errors.Is(err, errNever) {
					return err == nil
				}
			}
		}
		if !g.wait(100 * time.Millisecond) {
			return false
		}
	}
}

// learners starts new members as learners, and returns their ids.
func (g *group) learners(count int) (ids []uint64, ok bool) {
	for range count {
		m := g.add(true)
		ids = append(ids, m.id)
		g.tasks.Go(m.start)
	}
	return ids, g.lead(func(ctx context.Context, n *arakoon.Node) error { return n.AddLearner(ctx, ids...) })
}

// grow makes voters of new members, and reports whether that was done.
func (g *group) grow(count int) bool {
	if g.size()+count > arakoon.VotersMax {
		return false
	}
	ids, ok := g.learners(count)
	return ok && g.lead(func(ctx context.Context, n *arakoon.Node) error { return n.Promote(ctx, ids...) })
}

// shrink takes the two voters out that joined first: one of them may lead. They and their
// disks are destroyed as soon as that is done, or they run on, must disturb nobody, and are
// dismissed when all has settled.
func (g *group) shrink(atOnce bool) {
	var out []uint64
	done := g.lead(func(ctx context.Context, n *arakoon.Node) error {
		if out == nil {
			if now := n.Members().Voters; len(now) >= 3 {
				out = now[:2]
			}
		}
		return n.Remove(ctx, out...)
	})
	if done && atOnce {
		g.dismiss(out)
	}
}

// dismiss ends machines for good.
func (g *group) dismiss(ids []uint64) {
	for _, m := range g.all() {
		if slices.Contains(ids, m.id) {
			m.wipe()
			g.forget(m)
		}
	}
}

// replace destroys a machine with its disk, and puts a new one in its place.
func (g *group) replace(m *machine) {
	voter := g.lead(func(_ context.Context, n *arakoon.Node) error {
		if now := n.Members(); len(now.Voters) < 3 || !slices.Contains(now.Voters, m.id) || len(now.Outgoing) > 0 {
			return errNever
		}
		return nil
	})
	if !voter {
		return
	}
	m.wipe()
	if g.instead([]uint64{m.id}) {
		g.dismiss([]uint64{m.id})
	}
}

// wipe ends a machine and its disk.
func (m *machine) wipe() {
	for gone := false; !gone; {
		if l := m.current(); l != nil {
			m.end(l, lost)
		}
		m.mu.Lock()
		if gone = m.now == nil; gone {
			m.disk = nil // and so it is never started again
		}
		m.mu.Unlock()
	}
}

// instead makes new members voters in the place of old ones.
func (g *group) instead(old []uint64) bool {
	ids, ok := g.learners(len(old))
	return ok && g.lead(func(ctx context.Context, n *arakoon.Node) error {
		now := n.Members()
		if !slices.ContainsFunc(now.All(), func(id uint64) bool { return slices.Contains(old, id) }) {
			return nil
		}
		without := func(list, out []uint64) []uint64 {
			return slices.DeleteFunc(list, func(id uint64) bool { return slices.Contains(out, id) })
		}
		return n.ChangeMembers(ctx, arakoon.Members{
			Voters: append(without(without(now.Voters, old), ids), ids...), Learners: without(without(now.Learners, old), ids),
		})
	})
}

// transfer has a leader give the lead away.
func (g *group) transfer(m *machine) {
	if n, _ := m.node(); n != nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = n.Transfer(ctx, 0)
	}
}

// settle brings changes of the members to an end that were under way when the faults
// ended: lost voters are replaced, learners are removed, others are dismissed.
func (g *group) settle() {
	if g.plan.members == 1 {
		return
	}
	g.quiet = make(chan struct{})
	over := time.AfterFunc(healing, func() { close(g.quiet) })
	defer over.Stop()
	if !g.lead(g.settleOnce) {
		g.watch.violation("the members have not settled within %v", healing)
	}
}

var errAgain = errors.New("look again")

func (g *group) settleOnce(ctx context.Context, n *arakoon.Node) error {
	now := n.Members()
	if len(now.Outgoing) > 0 {
		return errAgain
	}
	var gone, strange []uint64
	for _, m := range g.all() {
		m.mu.Lock()
		lost := m.disk == nil
		m.mu.Unlock()
		switch {
		case !now.Has(m.id):
			strange = append(strange, m.id)
		case lost && slices.Contains(now.Voters, m.id):
			gone = append(gone, m.id)
		}
	}
	if len(strange) > 0 {
		// A change that removed them may not be done yet, and then they are needed.
		if err := n.ChangeMembers(ctx, arakoon.Members{Voters: now.Voters, Learners: now.Learners}); err != nil {
			return err
		}
		g.dismiss(strange)
	}
	switch {
	case len(gone) > 0:
		g.instead(gone)
		return errAgain
	case len(now.Learners) > 0:
		if err := n.Remove(ctx, now.Learners...); err != nil {
			return err
		}
		return errAgain
	}
	return nil
}
