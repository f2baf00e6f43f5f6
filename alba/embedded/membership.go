package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"openvstorage/alba/abm"
	"openvstorage/alba/fleet"
	"openvstorage/alba/maintenance"

	"github.com/google/uuid"
)

// ErrNoOSD is matched by the error of calls on a disk number that nobody has.
var ErrNoOSD = errors.New("no such disk")

// Membership changes which disks a backend has.
type Membership struct {
	layout
	abm       *abm.Client
	fleet     *fleet.Fleet
	asds      *asdSet
	places    *places
	mounts    *mountCheck
	decisions *decisions
	zone      string // of this machine; "": it has none
}

// CheckPlace refuses a directory for a new ASD that looks like a mount point with
// nothing mounted, with ErrUnmounted. It also logs a directory that shares its file
// system with the data directory or with other ASDs.
func (m *Membership) CheckPlace(dir string) error { return m.mounts.check(dir) }

// AddOSD makes an ASD in an empty directory and takes it into the backend. It returns
// the number of the disk. A dir of "" is the next directory under DIR/asd.
func (m *Membership) AddOSD(ctx context.Context, dir string) (uint64, error) {
	var number uint64
	err := m.asds.held(func() error {
		id, err := m.register(ctx, dir)
		if err != nil {
			return err
		}
		return m.decisions.decide(ctx, func(ctx context.Context) (err error) {
			number, err = m.abm.ClaimOSD(ctx, id)
			return err
		})
	})
	if err != nil {
		return 0, err
	}
	return number, m.decisions.settle(ctx)
}

// ReplaceOSD gives a disk up for good, with all that it holds, and takes a new ASD in
// its place. The new ASD is made in an empty directory; a dir of "" is that of the old
// disk. What the old disk held is made again from other disks. A disk that is there is
// not given up: that would throw away good fragments.
func (m *Membership) ReplaceOSD(ctx context.Context, old uint64, dir string) (uint64, error) {
	var number uint64
	// The old disk cannot come back between the check and the decision.
	err := m.asds.held(func() error {
		d := m.fleet.Disk(old)
		if d == nil {
			return m.gone(ctx, old)
		}
		if err := m.mayReplace(d, dir); err != nil {
			return err
		}
		if dir == "" && m.own(d.Node) {
			dir = m.path(d.Place)
		}
		id, err := m.register(ctx, dir)
		if err != nil {
			return err
		}
		return m.decisions.decide(ctx, func(ctx context.Context) (err error) {
			number, err = m.abm.ReplaceOSD(ctx, old, id)
			return err
		})
	})
	if err != nil {
		return 0, err
	}
	return number, m.decisions.settle(ctx)
}

// mayReplace refuses to give up a disk that is there, and to use the place of one that
// does not answer.
func (m *Membership) mayReplace(d *fleet.Disk, dir string) error {
	why, missing := d.Reason(), d.Missing() // in this order: it may answer again in between
	switch {
	case missing != nil && dir == "" && !m.own(d.Node):
		return fmt.Errorf("disk %d is one of host %s, and its place is not here: give a directory of this host with --asd", d.Number, d.Node)
	case errors.Is(missing, fleet.ErrUnopened):
		return fmt.Errorf("disk %d is there, and cannot be opened now: %w: mend that; nothing on it is lost", d.Number, cmp.Or(why, missing))
	case missing == nil:
		return fmt.Errorf("disk %d is there, in %s: take it away first, or move its data off with `ovs alba osd remove`", d.Number, m.where(d.Node, d.Place))
	case dir == "" && errors.Is(missing, fleet.ErrNotAnswering):
		return fmt.Errorf("disk %d does not answer: %s cannot be used; give another directory with --asd", d.Number, m.path(d.Place))
	}
	return nil
}

// RemoveOSD drains a disk: its fragments move to others, and the disk is forgotten
// when it holds none.
func (m *Membership) RemoveOSD(ctx context.Context, number uint64) error {
	if m.fleet.Disk(number) == nil {
		return m.gone(ctx, number)
	}
	err := m.decisions.decide(ctx, func(ctx context.Context) error { return m.abm.DecommissionOSD(ctx, number) })
	if err != nil {
		return err
	}
	return m.decisions.settle(ctx)
}

// register makes an ASD in a directory and has the ABM know it, or goes on with what
// an earlier call began there. The ABM knows the ASD first: an ASD that the ABM does
// not know could not be told from one with data. No disk comes or goes meanwhile.
func (m *Membership) register(ctx context.Context, dir string) (uuid.UUID, error) {
	begun, err := m.unclaimed(ctx)
	if err != nil {
		return uuid.Nil, err
	}
	if dir == "" {
		if dir, err = m.places.free(begun); err != nil {
			return uuid.Nil, err
		}
	}
	endpoint := m.endpoint(dir)
	id, again := begun[endpoint]
	if there, err := m.places.identity(ctx, dir); again && err == nil && there.ID == id {
		return id, nil
	}
	if err := m.places.checkEmpty(ctx, dir); err != nil {
		return uuid.Nil, err
	}
	if !again {
		id = uuid.New()
		err := m.decisions.decide(ctx, func(ctx context.Context) error {
			return m.abm.RegisterOSD(ctx, abm.OSD{LongID: id, Node: m.node(), Endpoint: []byte(endpoint), Zone: m.zone})
		})
		if err != nil {
			return uuid.Nil, err
		}
	}
	return id, m.places.makeASD(ctx, id, endpoint)
}

// unclaimed returns the ASDs, by endpoint, that the ABM knows and that have no number:
// the calls that took them in were cut short.
func (m *Membership) unclaimed(ctx context.Context) (map[string]uuid.UUID, error) {
	all, err := maintenance.AllOSDs(ctx, m.abm)
	begun := make(map[string]uuid.UUID)
	for _, o := range m.mine(all) {
		if o.Number == 0 {
			begun[string(o.Endpoint)] = uuid.UUID(o.LongID)
		}
	}
	return begun, err
}

// gone says of a disk that the fleet does not have what became of it.
func (m *Membership) gone(ctx context.Context, number uint64) error {
	all, err := maintenance.AllOSDs(ctx, m.abm)
	if err != nil {
		return err
	}
	return whatBecame(m.layout, all, number)
}
