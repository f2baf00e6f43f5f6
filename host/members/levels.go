package members

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"openvstorage/arakoon"
	"openvstorage/arakoon/state"
	"openvstorage/host/cluster"
	hosts "openvstorage/host/roster"
	"openvstorage/internal/wire"
	"openvstorage/trust"
)

// A group is raised to a level for good (package arakoon/state), so whoever raises it must know
// that each of its members knows the level, and each host that may get one.
//
// What counts is what a process runs that answers now: a record of what a host once ran would
// count a host that went back to an older release. So each member is asked over a connection
// to the process that has it (kv.OpLevel), and a host without members by a new connection, whose
// preface says it. A member or host that does not answer counts as one that does not know.
//
// Between the answer and the raise a process may be replaced by one of an older release. That
// one meets the raise in its log, or in its state, and stops by name with nothing of it applied;
// the others go on. A host that comes later is refused by name by the level that prefaces ask
// for (Leveling.Least). Members are added only under the lease "membership", which is held here
// from before the first question until the last group is raised.
//
// The config group is raised first, and no other is raised above it: whoever has its records
// knows what a host must know that joins.

// ErrLevel: a group stays at its level.
var ErrLevel = errors.New("no group was raised")

// Levels is what is known of levels now.
type Levels struct {
	Groups []GroupLevel
	Hosts  []HostLevel // those that hold no member
}

// GroupLevel is the level of a group, and what its members say.
type GroupLevel struct {
	Group   string
	Level   uint32
	Members []MemberLevel
}

// MemberLevel is what a member says.
type MemberLevel struct {
	Member uint64
	Host   uuid.UUID // the zero one: the roster does not list the member
	Knows  uint32    // the newest level of its release; 0: see Err
	Err    error     // why it does not say
}

// HostLevel is what a host without members says.
type HostLevel struct {
	Host  uuid.UUID
	Knows uint32
	Err   error
}

// Most is the newest level that all members and hosts know, 0 if one does not answer.
func (l *Levels) Most() uint32 {
	most := uint32(state.LevelNewest)
	for _, g := range l.Groups {
		for _, m := range g.Members {
			most = min(most, m.Knows)
		}
	}
	for _, h := range l.Hosts {
		most = min(most, h.Knows)
	}
	return most
}

// lacks says of which hosts nobody knows that they know a level, and which members they have.
func (l *Levels) lacks(level uint32) (list []string) {
	type lack struct {
		members []string
		why     string
	}
	all := map[uuid.UUID]*lack{}
	var order []uuid.UUID
	add := func(member string, host uuid.UUID, knows uint32, err error) {
		if err == nil && knows >= level {
			return
		}
		of := all[host]
		if of == nil {
			of = &lack{why: fmt.Sprintf("runs an older release, which knows level %d", knows)}
			if err != nil {
				of.why = fmt.Sprintf("does not answer: %v", err)
			}
			all[host], order = of, append(order, host)
		}
		if member != "" {
			of.members = append(of.members, member)
		}
	}
	for _, g := range l.Groups {
		for _, m := range g.Members {
			add(fmt.Sprintf("%s/%d", g.Group, m.Member), m.Host, m.Knows, m.Err)
		}
	}
	for _, h := range l.Hosts {
		add("", h.Host, h.Knows, h.Err)
	}
	for _, host := range order {
		who := "host " + host.String()
		if m := all[host].members; len(m) > 0 {
			who += " (" + strings.Join(m, ", ") + ")"
		}
		list = append(list, who+" "+all[host].why)
	}
	return list
}

// Least is the level that other hosts must know: the highest of the groups with members here.
func (m Leveling) Least() (level uint32) {
	for _, g := range m.all {
		if n := g.node.Load(); n != nil {
			level = max(level, n.Level())
		}
	}
	return level
}

// Levels asks all members of all groups, and the hosts without members, what they know.
func (m Leveling) Levels(ctx context.Context) (*Levels, error) {
	var l Levels
	holds := map[uuid.UUID]bool{}
	for _, listed := range m.file.Now().Groups {
		g := m.all[listed.Name]
		if g == nil {
			return nil, fmt.Errorf("group %q is not known to this release", listed.Name)
		}
		one, err := g.levels(ctx)
		if err != nil {
			return nil, fmt.Errorf("group %s: %w", g.name, err)
		}
		for _, of := range one.Members {
			holds[of.Host] = true
		}
		l.Groups = append(l.Groups, one)
	}
	if len(l.Groups) == 0 {
		return nil, errors.New("this host knows of no groups yet")
	}
	all, err := m.hostLevels(ctx, holds)
	l.Hosts = all
	return &l, err
}

// levels asks the members of a group, all at the same time.
func (g *group) levels(ctx context.Context) (GroupLevel, error) {
	out := GroupLevel{Group: g.name}
	v, err := g.of.view(ctx, g.name)
	if err != nil {
		return out, err
	}
	if v.Changing {
		return out, arakoon.ErrChanging
	}
	ids := slices.Sorted(slices.Values(slices.Concat(v.Voters, v.Learners)))
	out.Members = make([]MemberLevel, len(ids))
	levels := make([]uint32, len(ids))
	var all sync.WaitGroup
	for i, id := range ids {
		h, _ := g.of.file.Now().Place(g.name, id)
		all.Go(func() {
			one := MemberLevel{Member: id, Host: h.ID}
			levels[i], one.Knows, one.Err = g.ask(ctx, id)
			out.Members[i] = one
		})
	}
	all.Wait()
	out.Level = max(state.LevelFirst, slices.Max(levels))
	return out, nil
}

// ask asks one member for the level of its group, and the newest that it knows.
func (g *group) ask(ctx context.Context, member uint64) (has, knows uint32, err error) {
	if n := g.node.Load(); n != nil && g.member.Load() == member {
		return n.Level(), n.Knows(), n.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := g.store.remote()
	if err != nil {
		return 0, 0, err
	}
	l, err := c.Level(ctx, member)
	if errors.Is(err, wire.ErrUnknownOp) {
		return 0, cluster.LevelOf(0), nil // of the first release that made clusters
	}
	return l.Group, l.Knows, err
}

// hostLevels asks the hosts that are in the cluster, but for some.
func (m Leveling) hostLevels(ctx context.Context, but map[uuid.UUID]bool) ([]HostLevel, error) {
	h := m.host.Load()
	if h == nil {
		return nil, errNotOpen
	}
	records, err := hosts.List(ctx, m.Records(), nil)
	if err != nil {
		return nil, fmt.Errorf("which hosts there are: %w", err)
	}
	var list []HostLevel
	var at []string
	for _, r := range records {
		// One that has just joined may not be known here yet, and counts.
		if known, ok := h.Knows(r.ID); ok && known.State != trust.Joined || but[r.ID] {
			continue
		}
		list, at = append(list, HostLevel{Host: r.ID}), append(at, r.Addresses[0])
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var all sync.WaitGroup
	for i := range list {
		one := &list[i]
		if one.Host == m.o.Self {
			one.Knows = cluster.Level
			continue
		}
		all.Go(func() { one.Knows, one.Err = cluster.LevelAt(ctx, h, one.Host, at[i]) })
	}
	all.Wait()
	return list, nil
}

// Leveling is what Members does about levels.
type Leveling struct{ *Members }

// raiseTime bounds how long a person waits for the lease and the members.
const raiseTime = 30 * time.Second

// Raise brings a group to a level, for good, or all groups if group is "". A level of 0 is the
// newest that everybody knows. It refuses, naming them, if members or hosts are away or do not
// know the level. Groups that have the level stay as they are.
func (m Leveling) Raise(ctx context.Context, group string, level uint32) error {
	ctx, cancel := context.WithTimeout(ctx, raiseTime)
	defer cancel()
	if group != "" && m.all[group] == nil {
		return fmt.Errorf("group %q is not known to this release", group)
	}
	if level > state.LevelNewest {
		return fmt.Errorf("%w: %w", ErrLevel, &arakoon.LevelUnknownError{Level: level, Knows: state.LevelNewest})
	}
	held, err := m.lease(ctx)
	if err != nil {
		return err
	}
	bounded, stop := context.WithTimeout(ctx, lookTime) // less than the lease lives
	defer stop()
	err = m.raise(bounded, group, level)
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return errors.Join(err, m.all[Config].store.release(back, held))
}

// lease takes the lease of whoever changes members, as soon as nobody else has it. The steward
// of this host is another owner: it must not change members meanwhile either.
func (m Leveling) lease(ctx context.Context) (arakoon.Lease, error) {
	owner := uuid.NewSHA1(m.o.Self, []byte("level"))
	for {
		held, err := m.all[Config].store.acquire(ctx, lease, owner, leaseTime)
		if !errors.Is(err, arakoon.ErrLeaseHeld) {
			if err != nil {
				err = fmt.Errorf("%w: lease %q: %w", ErrLevel, lease, err)
			}
			return held, err
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return held, fmt.Errorf("%w: members of groups are being changed: %w", ErrLevel, err)
		}
	}
}

// raise raises groups under the lease, the config group first.
func (m Leveling) raise(ctx context.Context, group string, level uint32) error {
	l, err := m.Levels(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLevel, err)
	}
	if level == 0 {
		// Named are those that do not know the newest, if nothing can be raised.
		if level = l.Most(); level == 0 {
			level = state.LevelNewest
		}
	}
	if lacks := l.lacks(level); len(lacks) > 0 {
		return fmt.Errorf("%w to level %d: %s; start them with a release that knows it, or remove the hosts", ErrLevel, level, strings.Join(lacks, "; "))
	}
	return m.raiseTo(ctx, l, group, level)
}

// raiseTo raises groups of which all members know the level.
func (m Leveling) raiseTo(ctx context.Context, l *Levels, group string, level uint32) error {
	order := slices.Clone(l.Groups)
	if group != "" && !slices.ContainsFunc(order, func(g GroupLevel) bool { return g.Group == group }) {
		return fmt.Errorf("%w: the roster has no group %s", ErrLevel, group)
	}
	slices.SortStableFunc(order, func(a, b GroupLevel) int { return first(b.Group) - first(a.Group) })
	for _, g := range order {
		switch {
		case g.Level >= level:
			continue
		case group == "" || group == g.Group:
		case g.Group == Config:
			return fmt.Errorf("%w: group %s is at level %d, and no group may be above it: raise it before %s, or all groups", ErrLevel, Config, g.Level, group)
		default:
			continue
		}
		if err := m.all[g.Group].store.raise(ctx, level); err != nil {
			return fmt.Errorf("group %s: level %d: %w", g.Group, level, err)
		}
		m.o.Logger.Info("a group was raised: releases that do not know its level can hold no member of it any more", "group", g.Group, "level", level)
	}
	return nil
}

func first(group string) int {
	if group == Config {
		return 1
	}
	return 0
}

// fresh raises a group that has no other member yet and is about to get one, to what all hosts
// know: then nobody has to raise the groups of hosts that were all new when they met. A group
// that has others is raised by a person, who may want to go back to the release before. It is
// of no consequence if it fails.
func (m Leveling) fresh(ctx context.Context, name string) {
	n := m.all[name].store.alone()
	if n == nil || n.Level() >= state.LevelNewest {
		return
	}
	list, err := m.hostLevels(ctx, nil)
	l := Levels{Hosts: list}
	level := l.Most()
	if config := m.all[Config].node.Load(); err == nil && config != nil {
		if m.all[Config].store.alone() != nil && level > config.Level() {
			err = config.RaiseLevel(ctx, level, false)
		}
		level = min(level, config.Level())
	}
	if err == nil && level > n.Level() {
		err = n.RaiseLevel(ctx, level, false)
	}
	if err != nil || level == 0 {
		m.o.Logger.Info("a group stays at its level: not all hosts have said what they know", "group", name, "level", n.Level(), "err", err)
	}
}

// adviseTime bounds how long others are waited for before nothing is said.
const adviseTime = time.Second

// Advice says that groups can be raised, "" if they cannot, or if not all members answer. Only
// while a group is below what this release knows is anybody asked.
func (m Leveling) Advice() string {
	low := ""
	for _, name := range m.Names() {
		if n := m.all[name].node.Load(); n != nil && n.Level() < state.LevelNewest {
			low = name
		}
	}
	if low == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(m.loops, adviseTime)
	defer cancel()
	l, err := m.Levels(ctx)
	if err != nil {
		return ""
	}
	most := l.Most()
	var names []string
	for _, g := range l.Groups {
		if g.Level < most {
			names = append(names, fmt.Sprintf("%s is at %d", g.Group, g.Level))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("level %d is known to all hosts, and %s: ovs arakoon level --all newest", most, strings.Join(names, ", "))
}
