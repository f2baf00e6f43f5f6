package members

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/groups"
	"openvstorage/arakoon/membership"
	"openvstorage/arakoon/roster"
	"openvstorage/arakoon/state"
)

// keeper is this host as what makes and drops the members on it.
type keeper struct{ of *Members }

var _ membership.Keeper = keeper{}

// Make implements membership.Keeper: it is told by a steward that the group has committed the
// number. The roster is durable before the member, which finds the others by it.
func (k keeper) Make(ctx context.Context, name string, number uint64, r *roster.Roster) error {
	m := k.of
	open := m.opened.Load()
	if open == nil {
		return errNotOpen
	}
	g := m.all[name]
	if g == nil {
		return fmt.Errorf("group %q is not known to this release", name)
	}
	if err := m.making.Take(ctx); err != nil {
		return err
	}
	defer m.making.Give()
	if err := m.take(r); err != nil {
		return err
	}
	if at, ok := m.listed(name, m.o.Self); !ok || at.ID != number {
		return fmt.Errorf("the roster does not list member %d of group %s on host %s", number, name, m.o.Self)
	}
	if open.Holds(name, number) {
		return nil // it is there, or has failed and is opened anew
	}
	if open.Node(name) != nil {
		return fmt.Errorf("group %s: member %d: %w: number %d", name, number, groups.ErrOther, g.member.Load())
	}
	if open.Made(name, number) {
		return fmt.Errorf("group %s: member %d: %w", name, number, membership.ErrUsed)
	}
	spec, err := g.with(number, true)
	if err != nil {
		return err
	}
	err = open.Make(ctx, spec)
	if err != nil {
		g.detach()
	}
	if errors.Is(err, groups.ErrUsed) {
		err = fmt.Errorf("%w: %w", membership.ErrUsed, err)
	}
	if err == nil {
		m.o.Logger.Info("this host holds a member of a group now", "group", name, "member", number)
	}
	return err
}

// Drop implements membership.Keeper: it asks the group, and deletes nothing unless the group
// says that it goes on without the member. On the first host, whose vDisks use the groups, its
// record says from then on that the group is elsewhere.
func (k keeper) Drop(ctx context.Context, name string, number uint64) error {
	m := k.of
	open, g := m.opened.Load(), m.all[name]
	if open == nil {
		return errNotOpen
	}
	if err := m.making.Take(ctx); err != nil {
		return err
	}
	defer m.making.Give()
	if g == nil || !open.Holds(name, number) {
		return nil
	}
	if _, listed := m.listed(name, m.o.Self); listed {
		// The roster may be told by nobody any more: of the config group the member here was
		// removed, which this host watches.
		if err := m.refresh(ctx); err != nil {
			return err
		}
	}
	gone, err := m.removed(ctx, name, number)
	if err != nil {
		return err
	}
	if !gone {
		return fmt.Errorf("group %s has member %d still", name, number)
	}
	g.detach()
	if err := open.Drop(name, number); err != nil {
		return err
	}
	m.o.Logger.Info("this host holds a member of a group no more: the group has removed it", "group", name, "member", number)
	return nil
}

// removed asks the group's master whether it goes on without a member that it has had. The
// master confirms with a consistent read that it leads: what an old one says counts for nothing.
func (m *Members) removed(ctx context.Context, name string, number uint64) (bool, error) {
	v, err := m.view(ctx, name)
	if err != nil {
		return false, err
	}
	if v.Changing || v.Leader == 0 || v.Leader == number || slices.Contains(v.Voters, number) || slices.Contains(v.Learners, number) {
		return false, nil
	}
	g, _ := m.file.Now().Group(name)
	if was := m.all[name].life.Load(); was != g.Life {
		// No group has removed it: a person has given it up, for a backup perhaps that has
		// less than it holds (P8).
		return false, fmt.Errorf("group %s is of life %d, and member %d here is of life %d: it was given up by a recovery, and its files stay", name, g.Life, number, was)
	}
	if number >= g.Next {
		return false, nil // it was never given away: the roster here is old
	}
	for _, of := range g.Members {
		if of.ID == number {
			return false, nil // it is listed, and about to be added
		}
	}
	return true, nil
}

// view is a group's account of itself, by its master, which has confirmed that it leads.
func (m *Members) view(ctx context.Context, name string) (v membership.View, err error) {
	g := m.all[name]
	if g == nil {
		return v, fmt.Errorf("group %q is not known to this release", name)
	}
	if n := g.store.alone(); n != nil && n.Err() == nil {
		return membership.View{Voters: n.Members().Voters, Leader: n.Leader(), Zones: n.Requirement().Zones, MayRequire: n.Level() >= state.LevelZones}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	c, err := g.store.remote()
	if err != nil {
		return v, err
	}
	leader, err := c.WhoMaster(ctx)
	if err != nil {
		return v, err
	}
	s, err := c.Status(ctx, leader)
	if err != nil {
		return v, err
	}
	if !s.Leads {
		return v, fmt.Errorf("group %s: member %d leads no more", name, leader)
	}
	if _, err := c.MultiGet(ctx, arakoon.Consistent, []byte("host/generation")); err != nil {
		return v, err
	}
	again, err := c.Status(ctx, leader)
	if err != nil {
		return v, err
	}
	if !again.Leads || again.Term != s.Term {
		return v, fmt.Errorf("group %s: the lead has changed meanwhile", name)
	}
	v = membership.View{Voters: s.Voters, Learners: s.Learners, Leader: leader, Changing: len(s.Outgoing) > 0, Zones: s.Requirement.Zones}
	if v.MayRequire = s.Requirement.Since > 0; !v.MayRequire {
		l, err := c.Level(ctx, leader)
		v.MayRequire = err == nil && l.Group >= state.LevelZones
	}
	for _, f := range s.Followers {
		if f.Learner && f.Active && !f.Snapshot && f.Match > 0 && f.Lag <= caughtUpLag {
			v.CaughtUp = append(v.CaughtUp, f.Member)
		}
	}
	return v, nil
}

const (
	// viewTime bounds how long a group is asked about its members.
	viewTime = 5 * time.Second
	// caughtUpLag is how many entries a learner may lack and still become a voter: package
	// arakoon refuses more.
	caughtUpLag = 64
)
