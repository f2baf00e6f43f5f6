package maintenance

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
)

// deletion takes fragments that no object names any more off their disks. The NSM
// hosts list them: that an object once named a fragment and gave it up is the record
// that rule P8 demands.
type deletion struct {
	managers
	fleet     *fleet.Fleet
	mayDelete func() error // why nothing may be deleted now, or nil

	mu      sync.Mutex // one pass over a host's lists at a time: two would delete the same keys
	deleted atomic.Uint64
}

// all deletes what the lists of all hosts name.
func (x *deletion) all(ctx context.Context) error {
	hosts, err := x.hosts(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range hosts {
		host, err := x.host(h.Number)
		if err == nil {
			err = x.listed(ctx, host)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// listed deletes what the lists of one host name, on the disks that are there. The
// lists keep what is on the other disks.
func (x *deletion) listed(ctx context.Context, host *nsm.Client) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var errs []error
	for _, d := range x.fleet.All() {
		if d.Missing() != nil {
			continue // when it is back
		}
		errs = append(errs, x.onDisk(ctx, host, d))
	}
	return errors.Join(errs...)
}

// onDisk deletes keys on a disk first, and then has the host forget them. After a kill
// between the two the keys are deleted once more; the other way round, nobody would
// know of the fragments.
func (x *deletion) onDisk(ctx context.Context, host *nsm.Client, d *fleet.Disk) error {
	for ctx.Err() == nil {
		if x.mayDelete() != nil {
			return nil // the list keeps it
		}
		keys, err := host.ListObsolete(ctx, d.Number, nil, min(nsm.MaxKeys, osd.UpdatesMax/2), userfn.Consistent)
		if err != nil || len(keys) == 0 {
			return err
		}
		updates := make([]osd.Update, 0, 2*len(keys))
		for _, k := range keys { // each with its recovery record
			key := diskKey(k)
			updates = append(updates, osd.Update{Key: key.Append(nil), Delete: true}, osd.Update{Key: key.AppendRecovery(nil), Delete: true})
		}
		if err := d.ApplyAside(ctx, nil, updates); err != nil {
			return err
		}
		if _, err := host.MarkDeleted(ctx, d.Number, keys); err != nil {
			return err
		}
		x.deleted.Add(uint64(len(keys)))
	}
	return ctx.Err()
}

// diskKey returns the key under which a disk has a fragment.
func diskKey(k nsm.FragmentKey) manifest.Key {
	return manifest.Key{Namespace: k.Namespace, Object: k.ID, Chunk: k.Chunk, Fragment: uint8(k.Fragment), Version: k.Version}
}
