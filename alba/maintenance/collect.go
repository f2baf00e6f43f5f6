package maintenance

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/osd"
)

// collectPage is how many keys of a disk are looked at in one step.
const collectPage = 1000

// Collect deletes the fragments that no object names and none ever will: those
// of uploads and repairs that ended before their commit. It opens a gc epoch in
// every namespace, gives uploads under older ones grace to end, and closes
// those: from then on what they wrote can no more be committed (the first
// fence). Then it goes through the disks, and asks the NSM about each object
// that has fragments of a closed epoch.
func (m *Maintenance) Collect(ctx context.Context, grace time.Duration) error {
	hosts, err := m.opt.ABM.Hosts(ctx, abm.Consistent)
	if err != nil {
		return err
	}
	if err := m.openEpochs(ctx, hosts); err != nil {
		return err
	}
	select {
	case <-time.After(grace):
	case <-ctx.Done():
		return ctx.Err()
	}
	c := &collection{m: m, spaces: make(map[uint64]*closedSpace)}
	if c.hosts, err = m.closeEpochs(ctx, hosts); err != nil {
		return err
	}
	var errs []error
	for _, d := range m.opt.Fleet.All() {
		if d.Missing() == nil {
			errs = append(errs, c.disk(ctx, d))
		}
	}
	return errors.Join(errs...)
}

// each runs fn on every namespace of every host that is not being removed.
func (m *Maintenance) each(ctx context.Context, hosts []abm.Host, fn func(host *nsm.Client, ns nsm.NamespaceInfo) error) error {
	for _, h := range hosts {
		host, err := m.opt.Host(h.Number)
		if err != nil {
			return err
		}
		spaces, err := m.spaces(ctx, host)
		if err != nil {
			return err
		}
		for _, ns := range spaces {
			if ns.State != nsm.NamespaceActive {
				continue
			}
			if err := fn(host, ns); err != nil && !errors.Is(err, nsm.ErrNamespaceNotFound) {
				return err
			}
		}
	}
	return nil
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

func (m *Maintenance) closeEpochs(ctx context.Context, hosts []abm.Host) (all []*nsm.Client, err error) {
	for _, h := range hosts {
		host, err := m.opt.Host(h.Number)
		if err != nil {
			return nil, err
		}
		all = append(all, host)
	}
	return all, m.each(ctx, hosts, func(host *nsm.Client, ns nsm.NamespaceInfo) error {
		if ns.Epochs.Next-ns.Epochs.Minimum < 2 {
			return nil // made since the epochs were opened
		}
		_, err := host.CloseEpoch(ctx, ns.Number, ns.Epochs.Next-2)
		return err
	})
}

// collection is one pass over the disks.
type collection struct {
	m      *Maintenance
	hosts  []*nsm.Client
	spaces map[uint64]*closedSpace
}

// closedSpace is a namespace as the pass found it.
type closedSpace struct {
	host    *nsm.Client // nil: there is no such namespace any more
	minimum uint64      // epochs before it are closed
}

// space finds a namespace. One that no host knows is gone for good: its number
// is not used again, and was known before the first fragment was written.
func (c *collection) space(ctx context.Context, ns uint64) (*closedSpace, error) {
	if s := c.spaces[ns]; s != nil {
		return s, nil
	}
	s := new(closedSpace)
	for _, host := range c.hosts {
		info, err := host.Namespaces(ctx, ns-1, 1, nsm.Consistent)
		if err != nil {
			return nil, err
		}
		if len(info) == 1 && info[0].Number == ns {
			s.host, s.minimum = host, info[0].Epochs.Minimum
			if info[0].State != nsm.NamespaceActive {
				s.minimum = 0 // its cleanup comes first
			}
			break
		}
	}
	c.spaces[ns] = s
	return s, nil
}

// disk goes through the keys of a disk.
func (c *collection) disk(ctx context.Context, d *fleet.Disk) error {
	var first []byte
	for ctx.Err() == nil {
		page, err := d.Range(ctx, first, nil, collectPage)
		if err != nil || len(page) == 0 {
			return err
		}
		var orphans []osd.Info
		var last manifest.ObjectID
		var o *nsm.Object
		for _, info := range page {
			k, err := manifest.ParseKey(info.Key)
			if err != nil {
				continue // not ours to judge
			}
			s, err := c.space(ctx, k.Namespace)
			if err != nil {
				return err
			}
			if s.host != nil && info.Epoch >= s.minimum {
				continue // it may still be committed
			}
			if s.host != nil && (o == nil || last != k.Object) {
				if o, err = lookup(ctx, s.host, k); err != nil {
					return err
				}
				last = k.Object
			}
			if s.host == nil || !names(o, k, d.Number) {
				orphans = append(orphans, info)
			}
		}
		if err := c.delete(ctx, d, orphans); err != nil {
			return err
		}
		first = append(page[len(page)-1].Key, 0)
	}
	return ctx.Err()
}

// delete deletes keys that no object named when they were looked up, each only if
// it is still of the epoch that it had then. This is what makes the deletion of a
// fragment that an object names impossible (rule O7), whoever else is at work:
//
//   - The epoch was closed before the look-up. What was committed under it was
//     committed before, and the look-up would have shown it.
//   - A repair may write the same key again, if one before it did not get to its
//     commit: both take the object's next revision. It does so under an epoch that
//     is open, before its commit, and what it wrote is never written over under an
//     older one (rewrite.write). So the key is of a newer epoch from before the
//     commit on, and the delete is refused; or it comes before that write.
func (c *collection) delete(ctx context.Context, d *fleet.Disk, orphans []osd.Info) error {
	for len(orphans) > 0 {
		asserts, updates := make([]osd.Assert, len(orphans)), make([]osd.Update, len(orphans))
		for i, info := range orphans {
			asserts[i] = osd.Assert{Kind: osd.NotNewer, Key: info.Key, Epoch: info.Epoch}
			updates[i] = osd.Update{Key: info.Key, Delete: true}
		}
		err := d.Apply(ctx, asserts, updates)
		var newer *osd.AssertError
		if errors.As(err, &newer) {
			left := len(orphans)
			orphans = slices.DeleteFunc(orphans, func(o osd.Info) bool { return bytes.Equal(o.Key, newer.Key) })
			if len(orphans) < left {
				continue // all or none: the rest once more
			}
		}
		if err != nil {
			return err
		}
		c.m.stats.orphans.Add(uint64(len(orphans)))
		c.m.stats.deleted.Add(uint64(len(orphans)))
		c.m.opt.Logger.Info("deleted fragments that no object names", "disk", d.Number, "fragments", len(orphans))
		return nil
	}
	return nil
}

// lookup returns the object with an id; one without chunks if there is none.
func lookup(ctx context.Context, host *nsm.Client, k manifest.Key) (*nsm.Object, error) {
	o, err := host.GetByID(ctx, k.Namespace, k.Object, nsm.Consistent)
	if errors.Is(err, nsm.ErrNotFound) || errors.Is(err, nsm.ErrNamespaceNotFound) {
		return new(nsm.Object), nil
	}
	return o, err
}

// names reports whether an object has this fragment on this disk.
func names(o *nsm.Object, k manifest.Key, disk uint64) bool {
	if int(k.Chunk) >= len(o.Chunks) || int(k.Fragment) >= len(o.Chunks[k.Chunk].Fragments) {
		return false
	}
	f := o.Chunks[k.Chunk].Fragments[k.Fragment]
	return f.OSD == disk && f.Version == k.Version
}
