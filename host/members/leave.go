package members

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"openvstorage/arakoon/roster"
)

// leaveTime bounds how long a host's members may take to go elsewhere.
const leaveTime = time.Minute

// leaveLook is how often the roster is read meanwhile: this host may be the one whose member
// of the config group, by which it hears of changes, was removed.
const leaveLook = time.Second

// ErrStays: a host cannot be removed now.
var ErrStays = errors.New("the host cannot be removed now")

// Leave gets a host ready to be removed. It refuses, by the name of a group, where that has
// no majority, or too few zones, to go on with. The members of a host that is there go elsewhere
// first: Leave returns when none is left on it, and it has deleted them. Once it is no host any more that
// may hold members, it could not ask their groups whether it is to. If they do not, the host is as it was before.
// Those of one that is lost
// are replaced later, when the cluster's records say that it was
// removed.
func (m *Members) Leave(ctx context.Context, host uuid.UUID, lost bool) error {
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	for _, name := range m.Names() {
		if _, err := m.view(ctx, name); err != nil {
			return fmt.Errorf("%w: group %s does not answer, so nobody can tell what it would lose: %w", ErrStays, name, err)
		}
	}
	if lost {
		return administer(m).spare(ctx, host)
	}
	drained := false // before, by a person
	err := m.book().Change(ctx, func(r *roster.Roster) error {
		h, _ := r.Host(host)
		drained = h.Leaves
		if err := administer(m).mayLeave(r, host); len(onHost(r, host)) > 0 && err != nil {
			return fmt.Errorf("%w: %w", ErrStays, err)
		}
		return setLeaves(r, host, true)
	})
	if err != nil {
		return err
	}
	m.stir()
	w := &stewardship{Members: m, callers: map[uuid.UUID]*caller{}}
	defer w.close()
	had := map[string]uint64{}
	for {
		changed := m.file.Changed()
		on := m.On(host)
		for _, g := range m.file.Now().Groups {
			if of, there := g.MemberOn(host); there {
				had[g.Name] = of.ID
			}
		}
		kept := ErrStays
		if len(on) == 0 {
			if kept = w.dropped(ctx, host, had); kept == nil {
				return nil
			}
		}
		select {
		case <-changed:
		case <-time.After(leaveLook):
			_ = m.refresh(ctx) // the next one may succeed
		case <-ctx.Done():
			back, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTime)
			defer cancel()
			err := m.book().Change(back, func(r *roster.Roster) error { return setLeaves(r, host, drained) })
			if len(on) == 0 {
				return errors.Join(fmt.Errorf("%w: its members went elsewhere, but it has not deleted them yet: try again: %w", ErrStays, kept), err)
			}
			return errors.Join(fmt.Errorf("%w: %s did not go elsewhere: are the other hosts there?", ErrStays, strings.Join(on, ", ")), err)
		}
	}
}

// dropped has a host delete members that have left it, and returns nil if it has none of them.
func (w *stewardship) dropped(ctx context.Context, host uuid.UUID, had map[string]uint64) error {
	for name, number := range had {
		if err := (bounded{w.remote()}).Drop(ctx, host, name, number); err != nil {
			return err
		}
		delete(had, name)
	}
	return nil
}

// spare refuses to give a host up, whether it is there or not, without which a group would
// stop: the records of the config group could not even say that it is wanted back.
func (m administration) spare(ctx context.Context, host uuid.UUID) error {
	r, err := m.book().Read(ctx)
	if err != nil {
		return err
	}
	for _, g := range r.Groups {
		if _, on := g.MemberOn(host); !on {
			continue
		}
		s, err := m.stands(ctx, g.Name)
		if err == nil {
			err = s.without(g, r, map[uuid.UUID]bool{host: true})
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrStays, err)
		}
	}
	return nil
}

// setLeaves says of a host that is listed whether it is about to leave.
func setLeaves(r *roster.Roster, host uuid.UUID, leaves bool) error {
	if h, listed := r.Host(host); listed {
		h.Leaves = leaves
		r.PutHost(h)
	}
	return nil
}

// On are the members on a host, as GROUP/NUMBER, as this host's roster has them.
func (m *Members) On(host uuid.UUID) []string { return onHost(m.file.Now(), host) }

// onHost are the members on a host, as GROUP/NUMBER.
func onHost(r *roster.Roster, host uuid.UUID) (list []string) {
	for _, g := range r.Groups {
		if of, on := g.MemberOn(host); on {
			list = append(list, fmt.Sprintf("%s/%d", g.Name, of.ID))
		}
	}
	return list
}

// Safety says in words how many hosts the groups can lose, and whether groups can be raised
// (Advice).
func (m *Members) Safety() string { return m.lossText() + Zoning{m}.text() }

// lossText says how many hosts the groups can lose.
func (m *Members) lossText() string {
	text := m.safety()
	if advice := (Leveling{m}).Advice(); advice != "" {
		text += "; " + advice
	}
	return text
}

// safety says how many hosts the groups can lose. It asks nobody: voters are as the member
// here has them, or as the roster has the members.
func (m *Members) safety() string {
	r := m.file.Now()
	least := 0
	for i, g := range r.Groups {
		n := len(g.Members)
		if of := m.all[g.Name]; of != nil {
			if node := of.node.Load(); node != nil {
				n = len(node.Members().Voters)
			}
		}
		if i == 0 || n < least {
			least = n
		}
	}
	takes, drained := 0, "" // one that members leave is no host for them
	for _, h := range r.Hosts {
		if !h.Leaves {
			takes++
		} else {
			drained = ", or end a drain (`ovs host drain H --undo`)"
		}
	}
	switch {
	case len(r.Groups) == 0:
		return "groups: none is known yet"
	case least >= 5:
		return fmt.Sprintf("groups: %d voters each, two hosts may be lost", least)
	case least >= 3:
		return fmt.Sprintf("groups: %d voters each, one host may be lost", least)
	case takes == 2:
		return "groups: two hosts, nothing fails over by itself; join a third" + drained + mirrored(m)
	}
	return "groups: 1 voter each, no host may be lost; join two hosts" + drained
}
