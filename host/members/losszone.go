package members

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/arakoon/roster"
	"openvstorage/arakoon/state"
	"openvstorage/host/cluster"
)

// assertTime bounds how long Lose and Assert take.
const assertTime = 2 * zonesTime

// Loss is what is given up when a requirement is lowered without the zones that are away.
type Loss struct {
	Zones  []string       // of which no member is heard from
	Hosts  []cluster.Lost // that are of the cluster still
	Groups []GroupZones   // as they are, or after Assert as they have become
}

// standings are the groups as their masters say, by their names.
type standings map[string]kv.Status

// Lose says what Assert would give up, and refuses what it would refuse.
func (z Zoning) Lose(ctx context.Context, zones int) (Loss, error) {
	ctx, cancel := context.WithTimeout(ctx, assertTime)
	defer cancel()
	l, _, err := z.loss(ctx, zones)
	if err == nil {
		l.Groups = z.List(ctx)
	}
	return l, err
}

// loss finds out which zones are away, and refuses where no group lacks one, as then nobody has
// to say so, and where a host of such a zone answers. What was begun before and cut short goes
// on: then the config group is lowered on a person's word, and the roster is not.
func (z Zoning) loss(ctx context.Context, zones int) (l Loss, all standings, err error) {
	m := z.Of
	if zones < 1 || zones > state.ZonesMax {
		return l, nil, fmt.Errorf("%w: %d zones; 1 to %d can be", ErrZones, zones, state.ZonesMax)
	}
	all, lacking := standings{}, false
	for _, name := range m.Names() {
		s, err := z.status(ctx, name)
		if err != nil {
			return l, nil, fmt.Errorf("group %s: %w; `ovs recover` is the way where no majority is", name, err)
		}
		all[name] = s
		if s.Requirement.Zones <= zones {
			continue
		}
		if !strings.HasPrefix(s.Obstacle, arakoon.ErrZones.Error()) {
			return l, nil, fmt.Errorf("%w: group %s hears from all zones that it requires: use `ovs arakoon require-zones %d`", ErrZones, name, zones)
		}
		lacking = true
	}
	config := all[Config].Requirement
	if config.Zones <= zones { // so it answers
		if err := m.refresh(ctx); err != nil {
			return l, nil, err
		}
	}
	r := m.file.Now()
	wish, _ := r.Group(Config)
	if begun := config.Asserted && config.Zones <= zones && int(wish.RequireZones) > zones; !lacking && !begun {
		return l, nil, fmt.Errorf("%w: no group requires more than %d zones and lacks one", ErrZones, zones)
	}
	l.Zones = all.away(r)
	if l.Hosts, err = (cluster.Management{Host: m.host.Load()}).LostIn(ctx, l.Zones); err != nil {
		return l, nil, err
	}
	for _, h := range l.Hosts {
		if h.Answers {
			return l, nil, fmt.Errorf("%w: host %s of zone %s is not off (%s): stop it for good if it is to be given up, or have its zone heard from again", ErrZones, h.ID, h.Zone, h.State)
		}
	}
	return l, all, nil
}

// away are the zones that a group has members in, none of which its master hears from.
func (all standings) away(r *roster.Roster) (names []string) {
	for name, s := range all {
		active := map[uint64]bool{s.Leader: true}
		for _, f := range s.Followers {
			active[f.Member] = active[f.Member] || f.Active
		}
		g, _ := r.Group(name)
		heard := map[string]bool{"": true}
		for _, of := range g.Members {
			h, _ := r.Host(of.Host)
			heard[h.Zone] = heard[h.Zone] || active[of.ID]
		}
		for _, of := range g.Members {
			h, _ := r.Host(of.Host)
			if has := slices.Contains(s.Voters, of.ID) || slices.Contains(s.Learners, of.ID); has && !heard[h.Zone] {
				names = append(names, h.Zone)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Assert lowers what all groups require, though other zones are away, and gives the hosts of
// these up: a person says that they are off for good. named are these hosts as that person was
// shown them; it is refused if they are others by now. The order:
//
//  1. the config group is lowered, with the record that says so: before that it takes nothing;
//  2. the hosts are no members of the cluster any more, by its records: every other host refuses
//     them by name, as peers and as clients, and the steward makes their members anew, under
//     numbers that were never used;
//  3. the other groups are lowered;
//  4. the roster has the wish. As long as it has the one before, whoever is cut short can have all
//     of this done again, and is shown what is left.
//
// A steward raises nothing meanwhile, as the zones are away. If one comes back between 1 and 2,
// nothing is lost: its hosts are members as before, and the steward requires the zone again.
func (z Zoning) Assert(ctx context.Context, zones int, named []uuid.UUID) (Loss, error) {
	m := z.Of
	ctx, cancel := context.WithTimeout(ctx, assertTime)
	defer cancel()
	l, all, err := z.loss(ctx, zones)
	if err != nil {
		return l, err
	}
	var lost []uuid.UUID
	for _, h := range l.Hosts {
		lost = append(lost, h.ID)
	}
	if !sameHosts(lost, named) {
		return l, fmt.Errorf("%w: other hosts than those that were shown would be given up; nothing was changed: look again", ErrZones)
	}
	lower := func(name string) error {
		if all[name].Requirement.Zones <= zones {
			return nil
		}
		if err := m.all[name].store.require(ctx, zones, true); err != nil {
			return fmt.Errorf("group %s: %w", name, err)
		}
		m.o.Logger.Warn("a person says that other zones are off: the requirement of zones is lowered without them", "group", name, "zones", zones, "off", l.Zones)
		return nil
	}
	if err := lower(Config); err != nil {
		return l, err
	}
	err = cluster.Management{Host: m.host.Load()}.GiveUp(ctx, lost, l.Zones)
	for _, name := range m.Names() {
		if err == nil && name != Config {
			err = lower(name)
		}
	}
	if err == nil {
		err = m.book().Change(ctx, func(r *roster.Roster) error {
			for i := range r.Groups {
				r.Groups[i].RequireZones = uint8(zones)
			}
			return nil
		})
	}
	if err = errors.Join(err, m.read()); err != nil {
		return l, fmt.Errorf("it is begun, and not done: run it again: %w", err)
	}
	m.stir()
	l.Groups = z.List(ctx)
	return l, nil
}

func sameHosts(a, b []uuid.UUID) bool {
	order := func(x, y uuid.UUID) int { return strings.Compare(x.String(), y.String()) }
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, order)
	slices.SortFunc(b, order)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}
