package maintenance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/fleet"
	"openvstorage/alba/nsm"
)

// refresh asks every disk how full it is, and notes since when those are gone
// that do not answer.
func (m *Maintenance) refresh(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	there := make(map[uint64]bool)
	for _, d := range m.opt.Fleet.All() {
		err := d.Refresh(ctx)
		// One that is there, and cannot be opened as the machine lacks something,
		// is not gone: it starts no rebuild.
		if there[d.Number] = !errors.Is(err, fleet.ErrMissing) || errors.Is(err, fleet.ErrUnopened); there[d.Number] {
			delete(m.missing, d.Number)
		} else if _, known := m.missing[d.Number]; !known {
			m.missing[d.Number] = time.Now()
		}
	}
	for number := range m.missing {
		if _, known := there[number]; !known {
			delete(m.missing, number)
		}
	}
}

// usable names the disks that can take fragments now.
func (m *Maintenance) usable() string {
	var b strings.Builder
	for _, d := range m.opt.Fleet.Disks() {
		if d.Usable() {
			fmt.Fprintf(&b, "%d ", d.OSD)
		}
	}
	return b.String()
}

// changed reports whether disks have come or gone since the last survey.
func (m *Maintenance) changed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.surveyed != m.usable()
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
		if m.opt.RebuildAfter > 0 && time.Since(since) >= m.opt.RebuildAfter {
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
		page, err := c.OSDs(ctx, after, abm.MaxPage, abm.Consistent)
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
