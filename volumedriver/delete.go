package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"

	"openvstorage/backend"
	"openvstorage/metadata"
	"openvstorage/volumedriver/registry"
	"openvstorage/writebuffer"

	"github.com/google/uuid"
)

// deletion deletes vDisks, and removes what earlier processes of this host left of them. Two of one
// vDisk exclude each other by its admin lock up to the mark; from there on the vDisk is
// unsure, and one attempt to settle it runs at a time.
type deletion struct {
	me         uuid.UUID
	registry   Registry
	backend    backend.Store
	shared     bool // with other processes, which have vDisks of their own in it
	log        *slog.Logger
	buffer     *writebuffer.Buffer
	pages      metadata.Store
	table      *table
	names      *names
	doubts     *doubts
	opener     *opener
	lineage    *lineage
	elsewhere  *elsewhere
	background *background
}

// delete is Host.DeleteIf, or with force that of a vDisk that is in use.
func (d *deletion) delete(ctx context.Context, name string, force bool, check func(Info) error) error {
	if before, err := d.table.named(name); err == nil && before.unsure.Load() != nil {
		if err := d.doubts.settle(ctx, before); err != nil {
			return err
		}
		if d.table.byID(before.id) == nil && before.users.leaving() {
			return nil // it was being deleted, and is gone
		}
	}
	v, err := d.elsewhere.named(ctx, name)
	if err != nil {
		return err
	}
	if !force {
		v.users.waitUnused(ctx, true)
	}
	if err := v.admin.Take(ctx); err != nil {
		return err
	}
	marked, err := d.mark(ctx, v, name, force, check)
	v.admin.Give()
	if err != nil {
		return err
	}
	return d.finish(ctx, marked)
}

// mark marks a vDisk durably as being deleted, and returns the stand-in that is listed
// in its place. v.admin is held.
func (d *deletion) mark(ctx context.Context, v *Volume, name string, force bool, check func(Info) error) (*Volume, error) {
	release, err := d.names.hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	switch now, err := d.table.named(name); {
	case err != nil:
		return nil, err
	case now != v:
		return nil, fmt.Errorf("vDisk %q: changed meanwhile; look again: %w", name, ErrBusy)
	}
	if err := v.sure(); err != nil {
		return nil, err
	}
	if err := check(v.info()); err != nil {
		return nil, err
	}
	r, err := d.claim(ctx, v, force)
	if err != nil {
		return nil, err
	}
	err = d.registry.MarkDeleting(ctx, v.id, v.held)
	if errors.Is(err, registry.ErrUnknownOutcome) {
		return nil, d.unknown(v, err)
	}
	if err != nil {
		v.users.setDeleted(false)
		return nil, fmt.Errorf("vDisk %q: %w", name, d.names.refused(err))
	}
	r.Host, r.Epoch = v.held.Host, v.held.Epoch // by which it was marked
	return d.list(r, v, errOngoing), nil
}

// claim claims a vDisk for deletion and returns its record. Clones are asked of the
// registry, which first finds out what became of one that may have got its name.
func (d *deletion) claim(ctx context.Context, v *Volume, force bool) (rec registry.Record, err error) {
	records, err := d.registry.List(ctx)
	if err != nil {
		return rec, err
	}
	rec = registry.Record{ID: v.id, Name: v.Name()}
	var children []string
	for _, r := range records {
		if r.Parent == v.id {
			children = append(children, r.Name)
		}
		if r.ID == v.id {
			rec = r
		}
	}
	if len(children) > 0 {
		return rec, fmt.Errorf("vDisk %q: %w: %s; delete them first", v.Name(), ErrHasChildren, strings.Join(children, ", "))
	}
	return rec, v.users.claim(force, v.tree.pinned)
}

// unknown closes a vDisk that may be marked as being deleted, until that is known.
func (d *deletion) unknown(v *Volume, cause error) error {
	d.doubts.note(v, &unsure{
		state: StateUnsure, what: "whether its deletion has begun is not known", closed: true, cause: cause,
		settle: func(ctx context.Context) error {
			r, err := d.registry.Get(ctx, v.id)
			if err != nil {
				return err // P8: that the registry does not know it is no reason to delete it
			}
			if r.Deleting && r.Holder() == v.held {
				_ = d.finish(ctx, d.list(r, v, errOngoing)) // what is left of it is listed
				return nil
			}
			v.users.setDeleted(false)
			if r.Holder() != v.held {
				v.halt(elsewhereError(r))
			}
			return nil
		},
	})
	return fmt.Errorf("vDisk %q: deletion: %w: %w", v.Name(), ErrUnknownOutcome, cause)
}

// list lists a stand-in for a vDisk that is marked as being deleted, in the place of
// open, which is nil if the vDisk is not open. Settling it deletes the vDisk.
func (d *deletion) list(r registry.Record, open *Volume, cause error) *Volume {
	return d.opener.listStandIn(r, &unsure{
		state: StateDeleting, what: "its deletion has begun and did not finish", closed: true, cause: cause,
		settle: func(ctx context.Context) error {
			if open != nil {
				open.closeDeleted(ctx)
				open = nil
			}
			if err := d.remove(ctx, r); err != nil {
				return err
			}
			d.table.unlist(r.ID)
			return nil
		},
	})
}

// finish deletes a vDisk that list has listed. If that fails, or ctx ends before, the
// deletion goes on in the background, and the vDisk stays listed until it is done.
func (d *deletion) finish(ctx context.Context, v *Volume) error {
	err := d.doubts.settle(ctx, v)
	if err == nil {
		return nil
	}
	if u := v.unsure.Load(); u != nil {
		d.doubts.pursue(v, u)
	}
	return fmt.Errorf("vDisk %q: its deletion has begun and goes on by itself: %w: %w", v.Name(), ErrUnknownOutcome, err)
}

// deleteLater lists a vDisk that is marked as being deleted, and deletes it in the
// background.
func (d *deletion) deleteLater(r registry.Record, cause error) {
	v := d.list(r, nil, cause)
	d.doubts.pursue(v, v.unsure.Load())
}

// remove deletes everything of a vDisk that is marked as being deleted. Its steps may be
// repeated in this order after an error or a crash; the registry forgets the vDisk last
// (P8). If another host has claimed it since, that one finishes its deletion.
func (d *deletion) remove(ctx context.Context, r registry.Record) error {
	if err := d.clear(ctx, r.ID); err != nil {
		return err
	}
	v := d.table.byID(r.Parent)
	if v != nil && v.closedBy() != nil {
		return fmt.Errorf("clone of vDisk %q: %w", v.Name(), v.sure())
	}
	if v != nil && v.Err() == nil { // else its owner does it, at its next start
		if err := d.lineage.drop(ctx, v, r.ID); err != nil {
			return err
		}
	}
	err := d.registry.Remove(ctx, r.ID, r.Holder())
	if errors.Is(err, registry.ErrNotFound) {
		return nil
	}
	if errors.Is(err, registry.ErrNotOwner) {
		d.log.Warn("deletion left to another host", "vdisk", r.Name, "err", err)
		return nil
	}
	return err
}

// clear removes what there is of a vDisk, here and in the backend.
func (d *deletion) clear(ctx context.Context, id uuid.UUID) error {
	if err := d.buffer.Discard(id); err != nil {
		return err
	}
	if err := d.backend.DeleteNamespace(ctx, id.String()); err != nil && !errors.Is(err, backend.ErrNamespaceNotFound) {
		return err
	}
	return d.pages.DeletePages(ctx, id, 0, math.MaxUint64)
}
