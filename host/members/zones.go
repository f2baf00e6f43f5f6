package members

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/arakoon/roster"
	"openvstorage/arakoon/state"
	"openvstorage/host/groupkeys"
)

// ErrZones: zones cannot be required so.
var ErrZones = errors.New("zones cannot be required")

// zonesTime bounds how long RequireZones waits until the groups are there.
const zonesTime = 20 * time.Second

// Zoning is what Of does about zones.
type Zoning struct{ Of *Members }

// GroupZones is how a group stands to the zones that are to be required.
type GroupZones struct {
	Group       string
	Wanted      int                 // 0: nobody has said anything
	Requirement arakoon.Requirement // that is in force, as its master says
	Zones       []string            // that its members are in
	Err         error               // why its master could not be asked
}

// InForce reports whether what is wanted is required.
func (g GroupZones) InForce() bool {
	return g.Err == nil && max(g.Wanted, 1) == max(g.Requirement.Zones, 1)
}

// List asks the masters of all groups which zones they require.
func (z Zoning) List(ctx context.Context) (list []GroupZones) {
	m := z.Of
	r := m.file.Now()
	for _, name := range m.Names() {
		g, _ := r.Group(name)
		one := GroupZones{Group: name, Wanted: int(g.RequireZones), Zones: zonesOf(r, g)}
		one.Requirement, one.Err = z.requirement(ctx, name)
		list = append(list, one)
	}
	return list
}

// requirement asks a group's master.
func (z Zoning) requirement(ctx context.Context, name string) (arakoon.Requirement, error) {
	m := z.Of
	g := m.all[name]
	if n := g.store.alone(); n != nil && n.Err() == nil {
		return n.Requirement(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	s, err := z.status(ctx, name)
	return s.Requirement, err
}

// zonesOf are the zones of a group's members, by the roster.
func zonesOf(r *roster.Roster, g roster.Group) (names []string) {
	for _, of := range g.Members {
		if h, known := r.Host(of.Host); known && h.Zone != "" {
			names = append(names, h.Zone)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Require sets in how many zones all groups must hold everything, those that are made
// later too; 1 is no requirement. It is refused where hosts that may hold members are in fewer
// zones. The order: the wish is durable in the roster first, so that whoever is the steward
// does not bring a group back to the one before, and goes on if this host dies; then each group
// gets its entry, which says itself when it holds (arakoon.ZoneCalls.RequireZones). Raising waits
// for members that are still to be made; what is not in force when it returns comes by itself.
func (z Zoning) Require(ctx context.Context, zones int) ([]GroupZones, error) {
	m := z.Of
	ctx, cancel := context.WithTimeout(ctx, zonesTime)
	defer cancel()
	if zones < 1 || zones > state.ZonesMax {
		return nil, fmt.Errorf("%w: %d zones; 1 to %d can be", ErrZones, zones, state.ZonesMax)
	}
	if err := z.wish(ctx, zones); err != nil {
		return nil, err
	}
	m.stir()
	for again := false; ; again = true {
		if again {
			select {
			case <-time.After(lookAgain):
			case <-ctx.Done():
				return z.List(context.WithoutCancel(ctx)), nil
			}
		}
		list := z.List(ctx)
		late := slices.DeleteFunc(slices.Clone(list), GroupZones.InForce)
		if len(late) == 0 {
			return list, nil
		}
		for _, g := range late {
			// A refusal has its time: the steward is at it too.
			if err := m.all[g.Group].store.require(ctx, zones, false); err != nil && ctx.Err() == nil {
				m.o.Logger.Debug("zones are not required yet", "group", g.Group, "zones", zones, "err", err)
			}
		}
	}
}

// wish writes into the roster what is wanted. A swap does not end with ctx: whoever asked is told
// then what it waits for.
func (z Zoning) wish(ctx context.Context, zones int) error {
	m := z.Of
	done := make(chan error, 1)
	go func() { // it ends with the swap, and with the client of the group
		done <- m.book().Change(ctx, func(r *roster.Roster) error {
			if names := z.placesFor(r); zones > 1 && len(names) < zones {
				return fmt.Errorf("%w: %d zones, and hosts that may hold members are in %d: %s", ErrZones, zones, len(names), strings.Join(names, ", "))
			}
			for i := range r.Groups {
				r.Groups[i].RequireZones = uint8(zones)
			}
			return nil
		})
	}()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = fmt.Errorf("%w: the change of the roster goes on for up to %v, and `ovs arakoon require-zones` shows what became of it: %w", arakoon.ErrUnknownOutcome, groupkeys.SwapTime, ctx.Err())
	}
	if err == nil {
		return m.read()
	}
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), viewTime)
	defer cancel()
	if s, e := z.status(ask, Config); e == nil && s.Obstacle != "" {
		err = fmt.Errorf("%w: %s", err, s.Obstacle)
	}
	return err
}

// status is that of a group's master.
func (z Zoning) status(ctx context.Context, name string) (s kv.Status, err error) {
	c, err := z.Of.all[name].store.remote()
	if err != nil {
		return s, err
	}
	leader, err := c.WhoMaster(ctx)
	if err != nil {
		return s, err
	}
	return c.Status(ctx, leader)
}

// placesFor are the zones of the hosts that may hold members.
func (z Zoning) placesFor(r *roster.Roster) (names []string) {
	for _, h := range r.Hosts {
		if holds, removed := z.Of.may(h.ID); holds && !removed && !h.Leaves && h.Zone != "" {
			names = append(names, h.Zone)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// want has what this host was started with wanted, if nobody has said anything before. It is
// kept in the roster from then on, and changed by Require.
func (z Zoning) want() {
	m := z.Of
	for m.o.RequireZones > 0 && m.loops.Err() == nil {
		changed := m.file.Changed()
		settled := m.Known() && len(m.file.Now().Groups) >= len(m.all)
		for _, g := range m.file.Now().Groups {
			settled = settled && g.RequireZones > 0
			if has := int(g.RequireZones); has > 0 && has != m.o.RequireZones && g.Name == Config {
				m.o.Logger.Warn("--require-zones counts for the first start alone: `ovs arakoon require-zones` changes it", "given", m.o.RequireZones, "required", has)
			}
		}
		if settled {
			return
		}
		ctx, cancel := context.WithTimeout(m.loops, readTime)
		err := m.book().Change(ctx, func(r *roster.Roster) error {
			for i := range r.Groups {
				if r.Groups[i].RequireZones == 0 {
					r.Groups[i].RequireZones = uint8(m.o.RequireZones)
				}
			}
			return nil
		})
		if err == nil {
			err = m.read()
		}
		cancel()
		if err != nil {
			m.o.Logger.Debug("the requirement of zones is not written yet", "err", err)
		}
		select {
		case <-time.After(followAgain):
		case <-changed:
		case <-m.loops.Done():
		}
	}
}

// text says in words how the groups stand to zones, "" if nobody asked for any. It asks
// nobody: it is as the members here have it.
func (z Zoning) text() string {
	m := z.Of
	r := m.file.Now()
	config, _ := r.Group(Config)
	wanted, lowered, inForce := int(config.RequireZones), "", true
	for _, name := range m.Names() {
		n := m.all[name].node.Load()
		if n == nil || n.Err() != nil {
			continue
		}
		s := n.Status()
		if s.Missing != nil {
			return fmt.Sprintf("; group %s answers nothing: %v", name, s.Missing)
		}
		if q := s.Requirement; q.Lowered > 0 && q.Zones < q.From {
			lowered = fmt.Sprintf("; %d zones were required until revision %d of group %s", q.From, q.Lowered, name)
		}
		inForce = inForce && max(s.Requirement.Zones, 1) >= wanted
	}
	switch {
	case wanted < 2:
		return lowered
	case inForce:
		return fmt.Sprintf("; everything is held in %d zones before it is answered", wanted)
	}
	return fmt.Sprintf("; %d zones are asked for, and not required yet: hosts that may hold members are in %d (%s)", wanted, len(z.placesFor(r)), strings.Join(z.placesFor(r), ", "))
}
