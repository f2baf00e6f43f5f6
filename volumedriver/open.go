package volumedriver

import (
	"context"
	"errors"
	"sync"

	"openvstorage/backend"
	"openvstorage/internal/disk"
	"openvstorage/volumedriver/registry"
	"openvstorage/writebuffer"

	"github.com/google/uuid"
)

// opener opens the vDisks that the registry says are this host's, and lists them. A vDisk that cannot
// be opened is listed too, with the reason. It needs no lock: each vDisk is opened by
// one caller, at the start, at its creation, or while it is unsure.
type opener struct {
	host       *Host // of the vDisks
	opt        *Options
	buffer     *writebuffer.Buffer
	table      *table
	doubts     *doubts
	background *background
}

// openAll opens vDisks generation by generation. A generation is those whose parent was
// opened, or that have none; they are opened several at a time. They are claimed before,
// many in one step. Those of which that fails are claimed one by one: what keeps one of
// them closed is told beside it.
func (o *opener) openAll(ctx context.Context, records []registry.Record) {
	claimed := o.claimAll(ctx, records)
	known := make(map[uuid.UUID]bool, len(records))
	for _, r := range records {
		known[r.ID] = true
	}
	opened := make(map[uuid.UUID]bool, len(records))
	for len(records) > 0 {
		var now, later []registry.Record
		for _, r := range records {
			if r.Parent == uuid.Nil || opened[r.Parent] || !known[r.Parent] {
				now = append(now, r)
			} else {
				later = append(later, r)
			}
		}
		if len(now) == 0 {
			now, later = later, nil // a circle: each will say that its parent is not open
		}
		var all sync.WaitGroup
		side := make(chan struct{}, openSideBySide)
		for _, r := range now {
			opened[r.ID] = true
			if r.Deleting {
				continue
			}
			now, has := claimed[r.ID]
			if has {
				r = now
			}
			side <- struct{}{}
			all.Go(func() {
				o.openAs(ctx, r, nil, has)
				<-side
			})
		}
		all.Wait()
		records = later
	}
}

// openSideBySide vDisks are recovered at a time.
const openSideBySide = 8

// claimAll claims vDisks that are not being deleted, and returns the records of those that
// it has claimed.
func (o *opener) claimAll(ctx context.Context, records []registry.Record) map[uuid.UUID]registry.Record {
	ids := make([]uuid.UUID, 0, len(records))
	for _, r := range records {
		if !r.Deleting {
			ids = append(ids, r.ID)
		}
	}
	claimed, err := o.opt.Registry.ClaimAll(ctx, o.opt.claimant(), ids)
	if err != nil {
		o.opt.Logger.Warn("vDisks could not be claimed together: each is claimed by itself", "vdisks", len(ids)-len(claimed), "err", err)
	}
	return claimed
}

// openListed opens a vDisk and lists it, halted if that fails. One that was made just
// now has its first epoch already: created is what is known of it, or an empty value.
// Otherwise created is nil, and the next epoch is claimed.
func (o *opener) openListed(ctx context.Context, r registry.Record, created *unnamed) *Volume {
	return o.openAs(ctx, r, created, created != nil)
}

// openAs is openListed of a vDisk that is claimed already if claimed is set: r is its
// record since then.
func (o *opener) openAs(ctx context.Context, r registry.Record, created *unnamed, claimed bool) *Volume {
	v := o.newVolume(r)
	v.opening.created, v.opening.claimed, v.epoch = created, claimed, r.Epoch
	o.table.open(v)
	err := o.open(ctx, v)
	later := err != nil && v.buf == nil && o.openLater(r, err)
	switch {
	case later:
		v.halted.Store(&haltError{name: r.Name, cause: err, shut: StateUnsure})
	case err != nil:
		v.halt(err)
	}
	o.table.opened(v)
	var u *unsure
	if later { // before it is listed, so that nobody renames or deletes it meanwhile
		u = o.again(v, r, err)
		v.unsure.Store(u)
	}
	o.table.list(v)
	if later {
		o.doubts.pursue(v, u)
	}
	return v
}

// openLater reports whether opening a vDisk is tried again in the background: nobody
// answered, or a file could not be read. Neither is evidence against the vDisk's data.
func (o *opener) openLater(r registry.Record, err error) bool {
	if errors.Is(err, errParentClosed) {
		return o.parentLater(r) != nil
	}
	for _, later := range []error{ErrUnknownOutcome, registry.ErrUnknownOutcome, registry.ErrNotSwapped, errUnanswered, backend.ErrUnavailable} {
		if errors.Is(err, later) {
			return true
		}
	}
	// No errno is damage: a file that was not read may be read yet.
	cause := disk.CauseOf(err)
	return cause.Passes() || cause == disk.BadDisk
}

// parentLater returns the parent of a clone if it is not open now, but may open later;
// else nil.
func (o *opener) parentLater(r registry.Record) *Volume {
	if p := o.table.byID(r.Parent); p != nil && p.closedBy() != nil {
		return p
	}
	return nil
}

// again is the doubt of a vDisk whose opening failed for now. Settling it opens the
// vDisk once more.
func (o *opener) again(v *Volume, r registry.Record, cause error) *unsure {
	return &unsure{
		state: StateUnsure, what: "it could not be opened yet", closed: true, cause: cause,
		settle: func(ctx context.Context) error {
			if p := o.parentLater(r); p != nil {
				return parentClosed(p)
			}
			// What the earlier attempt put must not come behind this one.
			if err := v.cat.settle(ctx); err != nil {
				return err
			}
			if v.m != nil {
				v.m.Close()
			}
			o.openListed(o.background.living(), r, nil) // whoever asks may give up, and it opens
			return nil
		},
	}
}

// standIn lists a vDisk that is not open, with u as the reason, and pursues u.
func (o *opener) standIn(r registry.Record, u *unsure) *Volume {
	v := o.listStandIn(r, u)
	o.doubts.pursue(v, u)
	return v
}

// listStandIn is standIn for a caller that settles u itself.
func (o *opener) listStandIn(r registry.Record, u *unsure) *Volume {
	v := o.newVolume(r)
	v.halted.Store(&haltError{name: r.Name, cause: errors.New(u.reason()), shut: u.state})
	v.users.setDeleted(u.state == StateDeleting)
	v.unsure.Store(u)
	o.table.list(v)
	return v
}
