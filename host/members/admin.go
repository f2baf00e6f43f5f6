package members

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"openvstorage/arakoon/roster"
	"openvstorage/internal/control"
	"openvstorage/trust"
)

// adminTime bounds how long the maintenance of a host may take to begin.
const adminTime = time.Minute

// administration is the members of all hosts, for what a person has done with hosts.
type administration struct{ *Members }

func administer(m *Members) administration { return administration{m} }

// Mode says whether members leave a host, and whether it is in maintenance.
func (m *Members) Mode(host uuid.UUID) (leaves, maintenance bool) {
	h, _ := m.file.Now().Host(host)
	return h.Leaves, h.Maintenance
}

// listedHost is a host of the roster, or why it is not there.
func listedHost(r *roster.Roster, host uuid.UUID) (roster.Host, error) {
	h, listed := r.Host(host)
	if !listed {
		return h, fmt.Errorf("%w: it holds no members of groups: it has not the role arakoon, or has joined just now", control.ErrInvalid)
	}
	return h, nil
}

// Drain has the members on a host go elsewhere, and returns when none is left on it; left is
// told how many have left, and may be nil. It is refused where they could go nowhere. When ctx
// ends the members go on leaving: that is in the roster, and ends with Undrain.
func (m *Members) Drain(ctx context.Context, host uuid.UUID, left func(done, total int64)) error {
	err := m.book().Change(ctx, func(r *roster.Roster) error {
		h, err := listedHost(r, host)
		if err != nil {
			return err
		}
		if err := administer(m).mayLeave(r, host); err != nil {
			return fmt.Errorf("%w: %w", control.ErrBusy, err)
		}
		h.Leaves = true
		r.PutHost(h)
		return nil
	})
	if err != nil {
		return err
	}
	if err := m.refresh(ctx); err != nil {
		return err
	}
	m.stir()
	for total := len(m.On(host)); ; {
		changed := m.file.Changed()
		on := m.On(host)
		total = max(total, len(on))
		if left != nil {
			left(int64(total-len(on)), int64(total))
		}
		if len(on) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(leaveLook):
			_ = m.refresh(ctx) // the next one may succeed
		case <-ctx.Done():
			return fmt.Errorf("%s have not left yet, and go on leaving: %w", strings.Join(on, ", "), ctx.Err())
		}
	}
}

// mayLeave says why the members of a host could go nowhere, nil if they can. A host in no zone
// counts for none.
func (m administration) mayLeave(r *roster.Roster, host uuid.UUID) error {
	takes, zones := false, map[string]bool{}
	for _, h := range r.Hosts {
		if holds, _ := m.may(h.ID); holds && h.ID != host && !h.Leaves && !h.Maintenance {
			takes, zones[h.Zone] = true, true
		}
	}
	if !takes {
		return errors.New("its members of groups can go nowhere: no other host has the role arakoon and takes members")
	}
	delete(zones, "")
	for _, g := range r.Groups {
		if _, on := g.MemberOn(host); on && len(zones) < int(g.RequireZones) {
			return fmt.Errorf("group %s requires %d zones, and without it members can be in %d", g.Name, g.RequireZones, len(zones))
		}
	}
	return nil
}

// may says whether a host may hold members, and whether it was removed, by the cluster's
// records as this host knows them.
func (m *Members) may(id uuid.UUID) (holds, removed bool) {
	h, known := m.host.Load().Knows(id)
	if !known {
		return false, false
	}
	return h.State == trust.Joined && h.Roles&trust.RoleArakoon != 0, h.State == trust.Removed
}

// Undrain lets members be on a host again.
func (m *Members) Undrain(ctx context.Context, host uuid.UUID) error {
	if err := m.book().Change(ctx, func(r *roster.Roster) error { return setLeaves(r, host, false) }); err != nil {
		return err
	}
	m.stir()
	return m.refresh(ctx)
}

// refresh takes the roster up as it is in the config group now.
func (m *Members) refresh(ctx context.Context) error {
	r, err := m.book().Read(ctx)
	if err != nil {
		return err
	}
	return m.take(r)
}

// standing is a group as its master sees it, which has confirmed that it leads.
type standing struct {
	name   string
	leader uint64
	voters []uint64
	zones  int             // that must hold everything, by what is in force
	there  map[uint64]bool // members that are heard from
	busy   bool            // its members are about to change
}

// stands asks a group's master who is there.
func (m administration) stands(ctx context.Context, name string) (s standing, err error) {
	v, err := m.view(ctx, name)
	if err != nil {
		return s, fmt.Errorf("group %s does not answer, so nobody can tell what it would lose: %w", name, err)
	}
	s = standing{name: name, leader: v.Leader, voters: v.Voters, zones: v.Zones, busy: v.Changing, there: map[uint64]bool{v.Leader: true}}
	if len(v.Voters) == 1 && len(v.Learners) == 0 {
		return s, nil
	}
	c, err := m.all[name].store.remote()
	if err != nil {
		return s, err
	}
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	status, err := c.Status(ctx, v.Leader)
	if err != nil {
		return s, fmt.Errorf("group %s: %w", name, err)
	}
	for _, f := range status.Followers {
		s.there[f.Member] = s.there[f.Member] || f.Active
	}
	return s, nil
}

// without says why a group would stop while some hosts are away, nil if it goes on. A host in no
// zone counts for none.
func (s *standing) without(g roster.Group, r *roster.Roster, away map[uuid.UUID]bool) error {
	if s.busy {
		return fmt.Errorf("the members of group %s are about to change; try again", s.name)
	}
	left, zones := 0, map[string]bool{}
	for _, of := range g.Members {
		if !s.there[of.ID] || away[of.Host] {
			continue
		}
		if h, _ := r.Host(of.Host); h.Zone != "" {
			zones[h.Zone] = true
		}
		if slices.Contains(s.voters, of.ID) {
			left++
		}
	}
	if left <= len(s.voters)/2 {
		return fmt.Errorf("group %s would have %d of %d voters, which is no majority: it would stop", s.name, left, len(s.voters))
	}
	if s.zones > 1 && len(zones) < s.zones {
		return fmt.Errorf("group %s requires %d zones, and would have members in %d: it would stop", s.name, s.zones, len(zones))
	}
	return nil
}

// errOthers: between the look at the groups and the change others changed who is away.
var errOthers = errors.New("the roster was changed meanwhile")

// Maintain begins or ends the maintenance of a host. It begins when all groups can do without
// the host, beside all others that are in maintenance, and nothing is led there any more. A
// steward sees to it that this stays so.
func (m *Members) Maintain(ctx context.Context, host uuid.UUID, on bool) error {
	ctx, cancel := context.WithTimeout(ctx, adminTime)
	defer cancel()
	if !on {
		if err := administer(m).maintenance(ctx, host, false, nil); err != nil {
			return err
		}
		m.stir()
		return m.refresh(ctx)
	}
	for {
		err := administer(m).begin(ctx, host)
		if !errors.Is(err, errOthers) {
			return err
		}
	}
}

// maintenance writes whether a host is in maintenance. If it is to be, the roster must be that
// of seen, a revision, unless it is nil.
func (m administration) maintenance(ctx context.Context, host uuid.UUID, on bool, seen *uint64) error {
	return m.book().Change(ctx, func(r *roster.Roster) error {
		h, err := listedHost(r, host)
		if err != nil {
			return err
		}
		if seen != nil && r.Revision != *seen {
			return errOthers
		}
		h.Maintenance = on
		r.PutHost(h)
		return nil
	})
}

// begin begins a maintenance. First it is in the roster, so that nobody gives a lead to the
// host any more; then the leads go. If one cannot, the host is not in maintenance.
func (m administration) begin(ctx context.Context, host uuid.UUID) error {
	r, err := m.book().Read(ctx)
	if err != nil {
		return err
	}
	h, err := listedHost(r, host)
	if err != nil {
		return err
	}
	away := map[uuid.UUID]bool{host: true}
	for _, other := range r.Hosts {
		if other.Maintenance {
			away[other.ID] = true
		}
	}
	for _, g := range r.Groups {
		if _, on := g.MemberOn(host); !on {
			continue
		}
		s, err := m.stands(ctx, g.Name)
		if err != nil {
			return err
		}
		if err := s.without(g, r, away); err != nil {
			return fmt.Errorf("%w: %w", control.ErrBusy, err)
		}
	}
	if !h.Maintenance {
		if err := m.maintenance(ctx, host, true, &r.Revision); err != nil {
			return err
		}
	}
	err = m.refresh(ctx)
	if err == nil {
		err = m.giveLeads(ctx)
	}
	if err == nil || h.Maintenance {
		return err
	}
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTime)
	defer cancel()
	return errors.Join(err, m.maintenance(back, host, false, nil))
}

// leadAgain is how long is waited before it is asked again who leads.
const leadAgain = 100 * time.Millisecond

// giveLeads takes the lead from all members on hosts in maintenance, and returns when none of
// them leads.
func (m administration) giveLeads(ctx context.Context) error {
	var last error
	for {
		led, err := m.ledInMaintenance(ctx, m.file.Now())
		if err == nil && len(led) == 0 {
			return nil
		}
		for _, of := range led {
			if err == nil {
				err = m.giveLead(ctx, of)
			}
		}
		if err != nil {
			last = err
		}
		select {
		case <-time.After(leadAgain):
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("it leads groups still: %w", ctx.Err()), last)
		}
	}
}

// led is a group that a member on a host in maintenance leads, and who is to lead it.
type led struct {
	group string
	to    uint64
}

// ledInMaintenance are the groups that are led by members on hosts in maintenance and have
// another voter that is there, the config group last. It asks nobody while no host is in
// maintenance.
func (m administration) ledInMaintenance(ctx context.Context, r *roster.Roster) (list []led, err error) {
	away := map[uuid.UUID]bool{}
	for _, h := range r.Hosts {
		if h.Maintenance {
			away[h.ID] = true
		}
	}
	if len(away) == 0 {
		return nil, nil
	}
	names := slices.DeleteFunc(m.Names(), func(name string) bool { return name == Config })
	for _, name := range append(names, Config) {
		g, listed := r.Group(name)
		if !listed || !slices.ContainsFunc(g.Members, func(of roster.Member) bool { return away[of.Host] }) {
			continue
		}
		s, err := m.stands(ctx, name)
		if err != nil {
			return nil, err
		}
		if to := s.successor(g, away); to != 0 {
			list = append(list, led{name, to})
		}
	}
	return list, nil
}

// successor is a voter that is to lead in place of one on a host that is away, 0 if that one
// does not lead, or there is none.
func (s *standing) successor(g roster.Group, away map[uuid.UUID]bool) uint64 {
	on := map[uint64]uuid.UUID{}
	for _, of := range g.Members {
		on[of.ID] = of.Host
	}
	if !away[on[s.leader]] {
		return 0
	}
	for _, id := range slices.Sorted(maps.Keys(on)) {
		if s.there[id] && !away[on[id]] && slices.Contains(s.voters, id) {
			return id
		}
	}
	return 0
}

// giveLead has another voter lead a group.
func (m administration) giveLead(ctx context.Context, of led) error {
	c, err := m.all[of.group].store.remote()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	if err := c.DropMaster(ctx, of.to); err != nil {
		return fmt.Errorf("group %s: member %d does not take the lead over from a host in maintenance: %w", of.group, of.to, err)
	}
	m.o.Logger.Info("the lead of a group leaves a host in maintenance", "group", of.group, "to", of.to)
	return nil
}
