package maintenance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
)

// ErrTooMany is matched by the error of Collect when so many fragments seem to be
// orphans that it is more likely that a manager has lost something.
var ErrTooMany = errors.New("too many orphans")

// Collect deletes the fragments that no object names and none ever will: those
// of uploads and repairs that ended before their commit. It opens a gc epoch in
// every namespace, gives uploads under older ones grace to end, and closes
// those: from then on what they wrote can no more be committed (the first
// fence). Then it goes through the disks, and asks the NSM about each object
// that has fragments of a closed epoch.
//
// That an NSM does not name a fragment is the absence of a record, and by itself
// no reason to delete anything (rule P8). So both managers must agree on what
// became of the namespace (judge); what is found is counted before anything is
// deleted, and beyond a share of what is stored Collect deletes nothing, fails
// with ErrTooMany and says so in Alarm, until Allow; and nothing is deleted while
// MayDelete has a reason.
func (m *Maintenance) Collect(ctx context.Context, grace time.Duration) error {
	return m.collectOnce(ctx, grace, false)
}

// collectOnce is Collect. patient: only what the collection before this one could
// have deleted, too, is deleted. The first after a start thus deletes nothing, and
// whoever started something that should not be finds it whole for as long as
// there is between two collections.
func (m *Maintenance) collectOnce(ctx context.Context, grace time.Duration, patient bool) error {
	if err := m.opt.MayDelete(); err != nil {
		return err
	}
	hosts, err := m.opt.ABM.Hosts(ctx, userfn.Consistent)
	if err != nil {
		return err
	}
	// A namespace of which no epoch is closed is passed over.
	errs := []error{m.openEpochs(ctx, hosts)}
	select {
	case <-time.After(grace):
	case <-ctx.Done():
		return ctx.Err()
	}
	errs = append(errs, m.closeEpochs(ctx, hosts))
	c := &collection{
		m: m, patient: patient,
		spaces: make(map[uint64]*space), objects: make(map[manifest.ObjectID]struct{}),
	}
	for _, h := range hosts {
		host, err := m.opt.Host(h.Number)
		if err != nil {
			return errors.Join(append(errs, err)...) // what it knows would seem to be gone
		}
		c.hosts = append(c.hosts, host)
	}
	return errors.Join(append(errs, c.run(ctx))...)
}

// each runs fn on every namespace of every host that is not being removed. What
// fails in one leaves the others to be done.
func (m *Maintenance) each(ctx context.Context, hosts []abm.Host, fn func(host *nsm.Client, ns nsm.NamespaceInfo) error) error {
	var errs []error
	for _, h := range hosts {
		host, err := m.opt.Host(h.Number)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		spaces, err := m.spaces(ctx, host)
		errs = append(errs, err)
		for _, ns := range spaces {
			if ns.State != nsm.NamespaceActive {
				continue
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := fn(host, ns); err != nil && !errors.Is(err, nsm.ErrNamespaceNotFound) {
				errs = append(errs, fmt.Errorf("namespace %d: %w", ns.Number, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (m *Maintenance) openEpochs(ctx context.Context, hosts []abm.Host) error {
	return m.each(ctx, hosts, func(host *nsm.Client, ns nsm.NamespaceInfo) error {
		if ns.Epochs.Next-ns.Epochs.Minimum > 1 {
			return nil // one that an earlier collection opened will do
		}
		_, err := host.OpenEpoch(ctx, ns.Number, ns.Epochs.Next)
		return err
	})
}

func (m *Maintenance) closeEpochs(ctx context.Context, hosts []abm.Host) error {
	return m.each(ctx, hosts, func(host *nsm.Client, ns nsm.NamespaceInfo) error {
		if ns.Epochs.Next-ns.Epochs.Minimum < 2 {
			return nil // made since the epochs were opened
		}
		_, err := host.CloseEpoch(ctx, ns.Number, ns.Epochs.Next-2)
		return err
	})
}
