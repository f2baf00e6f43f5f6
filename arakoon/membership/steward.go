package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/google/uuid"

	"openvstorage/arakoon/placement"
	"openvstorage/arakoon/roster"
)

// Errors that a Hosts gives and a Steward tells apart.
var (
	// ErrUsed: the host has had this member and has it no more. The number is lost.
	ErrUsed = errors.New("member number was used")
	// ErrChanged: somebody else changed the roster meanwhile.
	ErrChanged = errors.New("roster was changed meanwhile")
)

// Rosters is the roster in the config group.
type Rosters interface {
	// Read returns the roster as of now.
	Read(ctx context.Context) (*roster.Roster, error)
	// Write puts a group in the place of the one that was read, or returns ErrChanged if
	// that is not what the config group holds.
	Write(ctx context.Context, was, now roster.Group) error
}

// View is a group's own account of its members.
type View struct {
	Voters, Learners []uint64
	CaughtUp         []uint64 // learners that lack so little that they may vote
	Leader           uint64
	Changing         bool
	Zones            int  // that must hold everything; 0 and 1: no requirement
	MayRequire       bool // the level of the group is high enough to require zones
}

func (v *View) has(id uint64) bool {
	return slices.Contains(v.Voters, id) || slices.Contains(v.Learners, id)
}

// Groups are the groups themselves. Every call is served by the group's master.
type Groups interface {
	View(ctx context.Context, group string) (View, error)
	AddLearner(ctx context.Context, group string, member uint64) error
	Change(ctx context.Context, group string, voters, learners []uint64) error
	// Require sets in how many zones the group must hold everything.
	Require(ctx context.Context, group string, zones int) error
}

// Hosts are the hosts that members are on.
type Hosts interface {
	// Places says what placement must know of the hosts of a roster.
	Places(ctx context.Context, r *roster.Roster) []placement.Host
	// Make has a host make a member, which the group has committed, or confirm that it has
	// it. It returns ErrUsed if the host has had the member before.
	Make(ctx context.Context, host uuid.UUID, group string, member uint64) error
	// Drop tells a host that a member may be removed. The host asks the group itself before
	// it deletes anything. An error is of no consequence: the host asks at its next start.
	Drop(ctx context.Context, host uuid.UUID, group string, member uint64) error
}

// Steward takes the steps. It is not safe for concurrent use.
type Steward struct {
	Rosters Rosters
	Groups  Groups
	Hosts   Hosts
	Most    int // voters of a group; 0: placement.VotersMost
	Logger  *slog.Logger
}

// Report says how a group stands after a pass.
type Report struct {
	Group string
	Step  placement.Step // the step that was taken, or why none was
	Err   error          // why the step, or looking at the group, failed
}

// Pass looks at each group once and takes at most one step in each. Rest of all groups, and no
// error, means that nothing is left to do until hosts change. A step that has failed is taken
// again, or made good, by a later pass.
func (s *Steward) Pass(ctx context.Context) ([]Report, error) {
	r, err := s.Rosters.Read(ctx)
	if err != nil {
		return nil, fmt.Errorf("membership: the roster cannot be read: %w", err)
	}
	places := s.Hosts.Places(ctx, r)
	var reports []Report
	for _, g := range r.Groups {
		step, err := s.step(ctx, places, g)
		if err != nil {
			err = fmt.Errorf("membership: group %s: %w", g.Name, err)
		}
		reports = append(reports, Report{g.Name, step, err})
		if ctx.Err() != nil {
			return reports, ctx.Err()
		}
	}
	return reports, nil
}

// step takes one step in a group: first what an earlier Steward left half done.
func (s *Steward) step(ctx context.Context, places []placement.Host, g roster.Group) (placement.Step, error) {
	v, err := s.Groups.View(ctx, g.Name)
	if err != nil {
		return placement.Step{}, err
	}
	if v.Changing {
		return placement.Step{Kind: placement.Wait, Why: "a change of the members is under way"}, nil
	}
	if g, err = s.tidy(ctx, g, v); err != nil {
		return placement.Step{}, err
	}
	if err := s.unlisted(g, v); err != nil {
		return placement.Step{}, err
	}
	removed, unmade := s.remake(ctx, g, v)
	if removed {
		return placement.Step{Kind: placement.Wait, Why: "a member that its host has lost is removed"}, unmade
	}
	next := placement.Next(places, s.asPlaced(g, v))
	switch next.Kind {
	case placement.Add:
		err = s.add(ctx, g, next.Host)
	case placement.Change:
		err = s.Groups.Change(ctx, g.Name, next.Voters, next.Learners)
	case placement.Rest:
		step, err := s.require(ctx, places, g, v)
		return step, errors.Join(err, unmade)
	default:
		return next, unmade // which does not stand in the way of other steps
	}
	if err == nil && s.Logger != nil {
		s.Logger.Info("members of an Arakoon group change", "group", g.Name, "why", next.Why)
	}
	return next, err
}

// require brings what a group requires of zones to what the roster wants, when its members are
// where they should be. A roster that says nothing wants nothing changed.
func (s *Steward) require(ctx context.Context, places []placement.Host, g roster.Group, v View) (placement.Step, error) {
	want := int(g.RequireZones)
	if want == 0 || want == max(v.Zones, 1) {
		return placement.Step{Kind: placement.Rest}, nil
	}
	names := map[string]bool{}
	for _, m := range g.Members {
		if i := slices.IndexFunc(places, func(h placement.Host) bool { return h.ID == m.Host && h.Alive && h.Zone != "" }); i >= 0 {
			names[places[i].Zone] = true
		}
	}
	switch {
	case len(names) < want && want > v.Zones:
		return placement.Step{Kind: placement.Wait, Why: fmt.Sprintf("%d zones are to be required, and members that can be reached are in %d", want, len(names))}, nil
	case !v.MayRequire:
		return placement.Step{Kind: placement.Wait, Why: "zones can be required when the group's level is raised"}, nil
	}
	step := placement.Step{Kind: placement.Wait, Why: fmt.Sprintf("%d zones must hold everything from now on", want)}
	err := s.Groups.Require(ctx, g.Name, want)
	if err == nil && s.Logger != nil {
		s.Logger.Info("an Arakoon group requires zones", "group", g.Name, "zones", want)
	}
	return step, err
}

// unlisted refuses to go on if the group has members that no roster tells of. Then the roster
// is an old one, and to make it true by removing members would be to delete for want of a
// record (P8).
func (s *Steward) unlisted(g roster.Group, v View) error {
	for _, id := range slices.Concat(v.Voters, v.Learners) {
		if !slices.ContainsFunc(g.Members, func(m roster.Member) bool { return m.ID == id }) {
			return fmt.Errorf("member %d is in the group and not in the roster: restore the config group, or remove the member by hand", id)
		}
	}
	return nil
}

// tidy takes members off the roster that the group does not have, and tells their hosts.
func (s *Steward) tidy(ctx context.Context, g roster.Group, v View) (roster.Group, error) {
	gone := func(m roster.Member) bool { return !v.has(m.ID) }
	if !slices.ContainsFunc(g.Members, gone) {
		return g, nil
	}
	// Whoever leads may see a change that is not done: those that it removes may yet be
	// needed by those that stay. Asked for once more, it is answered when it is done.
	if err := s.Groups.Change(ctx, g.Name, v.Voters, v.Learners); err != nil {
		return g, err
	}
	now := g
	now.Members = slices.DeleteFunc(slices.Clone(g.Members), gone)
	if err := s.Rosters.Write(ctx, g, now); err != nil {
		return g, err
	}
	for _, m := range g.Members {
		if !gone(m) {
			continue
		}
		if err := s.Hosts.Drop(ctx, m.Host, g.Name, m.ID); err != nil && s.Logger != nil {
			s.Logger.Warn("a host was not told that its member is removed; it finds out at its next start", "group", g.Name, "member", m.ID, "host", m.Host, "err", err)
		}
	}
	return now, nil
}

// remake has hosts make the learners that they do not have yet. It reports whether it has
// removed one from the group, as its host has lost it.
func (s *Steward) remake(ctx context.Context, g roster.Group, v View) (removed bool, errs error) {
	for _, m := range g.Members {
		if !slices.Contains(v.Learners, m.ID) || slices.Contains(v.CaughtUp, m.ID) {
			continue
		}
		err := s.Hosts.Make(ctx, m.Host, g.Name, m.ID)
		if errors.Is(err, ErrUsed) {
			learners := slices.DeleteFunc(slices.Clone(v.Learners), func(id uint64) bool { return id == m.ID })
			return true, s.Groups.Change(ctx, g.Name, v.Voters, learners)
		}
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("host %s does not make member %d: %w", m.Host, m.ID, err))
		}
	}
	return false, errs
}

// add gives a number away and makes a member of it.
func (s *Steward) add(ctx context.Context, g roster.Group, host uuid.UUID) error {
	id := g.Next
	now := g
	now.Next++
	now.Members = append(slices.Clone(g.Members), roster.Member{ID: id, Host: host})
	if err := s.Rosters.Write(ctx, g, now); err != nil {
		return err
	}
	if err := s.Groups.AddLearner(ctx, g.Name, id); err != nil {
		return err
	}
	return s.Hosts.Make(ctx, host, g.Name, id)
}

// asPlaced is a group in the form that placement decides on.
func (s *Steward) asPlaced(g roster.Group, v View) placement.Group {
	p := placement.Group{RequireZones: v.Zones, Most: s.Most} // what is in force
	for _, m := range g.Members {
		p.Members = append(p.Members, placement.Member{
			ID: m.ID, Host: m.Host, Voter: slices.Contains(v.Voters, m.ID),
			CaughtUp: slices.Contains(v.CaughtUp, m.ID), Leads: v.Leader == m.ID,
		})
	}
	return p
}
