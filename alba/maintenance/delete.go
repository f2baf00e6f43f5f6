package maintenance

import (
	"context"
	"errors"

	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
)

// deleteObsolete deletes on their disks the fragments that no object names any
// more, and then has the NSM forget them.
func (m *Maintenance) deleteObsolete(ctx context.Context, host *nsm.Client) error {
	var errs []error
	for _, d := range m.opt.Fleet.All() {
		if d.Missing() != nil {
			continue // when it is back
		}
		errs = append(errs, m.deleteOn(ctx, host, d))
	}
	return errors.Join(errs...)
}

// deleteAll is deleteObsolete on all hosts.
func (m *Maintenance) deleteAll(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.deleteAllLocked(ctx)
}

func (m *Maintenance) deleteAllLocked(ctx context.Context) error {
	hosts, err := m.opt.ABM.Hosts(ctx, userfn.Consistent)
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range hosts {
		host, err := m.opt.Host(h.Number)
		if err == nil {
			err = m.deleteObsolete(ctx, host)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (m *Maintenance) deleteOn(ctx context.Context, host *nsm.Client, d *fleet.Disk) error {
	for ctx.Err() == nil {
		if m.opt.MayDelete() != nil {
			return nil // it stays listed
		}
		keys, err := host.ListObsolete(ctx, d.Number, nil, nsm.MaxKeys, userfn.Consistent)
		if err != nil || len(keys) == 0 {
			return err
		}
		updates := make([]osd.Update, len(keys))
		for i, k := range keys {
			updates[i] = osd.Update{Key: diskKey(k).Append(nil), Delete: true}
		}
		if err := d.ApplyAside(ctx, nil, updates); err != nil {
			return err
		}
		if _, err := host.MarkDeleted(ctx, d.Number, keys); err != nil {
			return err
		}
		m.stats.deleted.Add(uint64(len(keys)))
	}
	return ctx.Err()
}

// diskKey returns the key under which a disk has a fragment.
func diskKey(k nsm.FragmentKey) manifest.Key {
	return manifest.Key{Namespace: k.Namespace, Object: k.ID, Chunk: k.Chunk, Fragment: uint8(k.Fragment), Version: k.Version}
}
