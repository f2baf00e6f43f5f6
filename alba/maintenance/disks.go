package maintenance

import (
	"context"
	"errors"
	"maps"
	"math/bits"
	"slices"
	"strconv"

	"openvstorage/alba/abm"
	"openvstorage/alba/fleet"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/policy"
)

// refresh asks every disk how full it is, and notes since when those are gone
// that do not answer.
func (m *Maintenance) refresh(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refreshLocked(ctx)
}

func (m *Maintenance) refreshLocked(ctx context.Context) {
	m.refreshed = m.opt.Now()
	there := make(map[uint64]bool)
	for d, err := range m.opt.Fleet.Refresh(ctx) {
		m.seeAbsent(d, err)
		// One that is there, and cannot be opened as the machine lacks something,
		// is not gone: it starts no rebuild.
		if there[d.Number] = !errors.Is(err, fleet.ErrMissing) || errors.Is(err, fleet.ErrUnopened); there[d.Number] {
			delete(m.missing, d.Number)
		} else if _, known := m.missing[d.Number]; !known {
			m.missing[d.Number] = m.opt.Now()
		}
	}
	for number := range m.missing {
		if _, known := there[number]; !known {
			delete(m.missing, number)
		}
	}
}

// seeAbsent has fragments looked for at once that a disk says it lacks.
func (m *Maintenance) seeAbsent(d *fleet.Disk, err error) {
	lacks := uint64(0)
	if err == nil {
		lacks = d.Known().Absent
	}
	if lacks > m.absent[d.Number] {
		m.absentNow.Ring()
	}
	m.absent[d.Number] = lacks
}

// between does what cannot wait for the end of a long work, which may take hours:
// every tick the disks are asked how full they are, and what is to be deleted is.
// It reports whether a tick has passed.
func (m *Maintenance) between(ctx context.Context) bool {
	if m.opt.Now().Sub(m.refreshed) < m.opt.Tick || ctx.Err() != nil {
		return false
	}
	m.refreshLocked(ctx)
	select {
	case <-m.wake.Rung():
		m.woken.Store(true) // the run of all that this one woke is still due
		m.try(ctx, "delete fragments", m.deleteAllLocked)
	default:
	}
	return true
}

// sight tells the disks of one moment from those of another, as far as repair goes:
// which there are, which take fragments, about how much more (to a factor of two),
// and which are to be left.
func (m *Maintenance) sight() string {
	b := m.sighted[:0]
	for _, d := range m.opt.Fleet.Disks() {
		b = strconv.AppendUint(b, d.OSD, 10)
		if _, there := m.opt.Fleet.Alive(d.OSD); !there {
			b = append(b, '-')
		}
		if d.Usable() {
			b = append(b, '+')
			if known := m.opt.Fleet.Disk(d.OSD); known != nil {
				b = strconv.AppendInt(b, int64(bits.Len64(known.Known().Room)), 10)
			}
		}
		b = append(b, ' ')
	}
	for _, number := range m.leaving() {
		b = strconv.AppendUint(append(b, '!'), number, 10)
	}
	m.sighted = b
	return string(b)
}

// leaving returns the disks whose fragments must be elsewhere, in order.
func (m *Maintenance) leaving() []uint64 { return slices.Sorted(maps.Keys(m.leave)) }

// takers returns the disks as placement sees them: those that are to be left, or
// have no room for a fragment of so many bytes, take none.
func (m *Maintenance) takers(bytes uint32) []policy.Disk {
	disks := m.opt.Fleet.Disks()
	for i := range disks {
		d := m.opt.Fleet.Disk(disks[i].OSD)
		if d == nil || m.leave[d.Number] || d.Known().Room < uint64(bytes) {
			disks[i].Failing = true
		}
	}
	return disks
}

// changed reports whether the disks are others than at the last survey.
func (m *Maintenance) changed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.surveyed != m.sight()
}

// findLeaving finds the disks whose fragments must be elsewhere: those that the
// ABM calls lost or draining, and those that are missing for long.
func (m *Maintenance) findLeaving(ctx context.Context) error {
	leave := make(map[uint64]bool)
	var lost []abm.OSD
	all, err := AllOSDs(ctx, m.opt.ABM)
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.Number != 0 && (o.State == abm.OSDLost || o.State == abm.OSDDraining) {
			leave[o.Number] = true
			lost = append(lost, o)
		}
	}
	for number, since := range m.missing {
		if m.opt.RebuildAfter > 0 && m.opt.Now().Sub(since) >= m.opt.RebuildAfter {
			leave[number] = true
		}
	}
	m.leave, m.lost = leave, lost
	return nil
}

// AllOSDs returns all OSDs that the ABM knows.
func AllOSDs(ctx context.Context, c *abm.Client) ([]abm.OSD, error) {
	var all []abm.OSD
	var after *[16]byte
	for {
		page, err := c.OSDs(ctx, after, abm.MaxPage, userfn.Consistent)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < abm.MaxPage {
			return all, nil
		}
		after = &page[len(page)-1].LongID
	}
}

// retire has the managers forget the disks that are lost, or were drained, and
// hold nothing any more.
func (m *Maintenance) retire(ctx context.Context, hosts []abm.Host) error {
	var errs []error
	for _, o := range m.lost {
		if o.State == abm.OSDDraining && m.opt.Fleet.Disk(o.Number) != nil && m.opt.Fleet.Disk(o.Number).Missing() != nil {
			continue // what is to be deleted on it waits until it is back
		}
		done := true
		for _, h := range hosts {
			host, err := m.opt.Host(h.Number)
			if err == nil {
				var gone bool
				gone, err = forget(ctx, host, o.Number)
				done = done && gone
			}
			if err != nil {
				errs = append(errs, err)
				done = false
			}
		}
		if !done {
			continue
		}
		if err := m.opt.ABM.PurgeOSD(ctx, o.Number); err != nil && !errors.Is(err, abm.ErrNotFound) {
			errs = append(errs, err)
			continue
		}
		m.opt.Fleet.Remove(o.Number)
		m.opt.Logger.Info("a disk that was lost or drained holds nothing any more and is forgotten", "disk", o.Number)
	}
	return errors.Join(errs...)
}

// forget has an NSM host forget a disk, if nothing is on it.
func forget(ctx context.Context, host *nsm.Client, number uint64) (bool, error) {
	for {
		step, err := host.ForgetOSD(ctx, number)
		switch {
		case errors.Is(err, nsm.ErrInUse):
			return false, nil
		case errors.Is(err, nsm.ErrNotFound):
			return true, nil
		case err != nil:
			return false, err
		case step.Done:
			return true, nil
		case step.Removed == 0: // objects have fragments on it still
			return false, nil
		}
	}
}

// heldBytes returns how many bytes disks hold, live and to be deleted, by number.
func (m *Maintenance) heldBytes(ctx context.Context) (map[uint64]uint64, error) {
	hosts, err := m.opt.ABM.Hosts(ctx, userfn.Consistent)
	if err != nil {
		return nil, err
	}
	held := make(map[uint64]uint64)
	for _, h := range hosts {
		host, err := m.opt.Host(h.Number)
		if err != nil {
			return nil, err
		}
		for after := uint64(0); ; {
			page, err := host.OSDs(ctx, after, nsm.MaxKeys, userfn.Consistent)
			if err != nil {
				return nil, err
			}
			for _, o := range page {
				held[o.Number] += o.Live.Bytes + o.Obsolete.Bytes
				after = o.Number
			}
			if len(page) < nsm.MaxKeys {
				break
			}
		}
	}
	return held, nil
}
