package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"openvstorage/volumedriver/registry"
)

// Delete deletes a vDisk that has no clones and is not in use. Halted ones can
// be deleted.
func (h *Host) Delete(ctx context.Context, name string) error {
	return h.delete(ctx, name, false, func(Info) error { return nil })
}

// ForceDelete is Delete also of a vDisk that is in use: all that its users ask for
// from then on fails.
func (h *Host) ForceDelete(ctx context.Context, name string) error {
	return h.delete(ctx, name, true, func(Info) error { return nil })
}

// DeleteIf deletes the vDisk that has the name, if it is not in use, unless check
// fails: it is asked when nothing any more gives the name to another vDisk, or
// this one a snapshot.
func (h *Host) DeleteIf(ctx context.Context, name string, check func(Info) error) error {
	return h.delete(ctx, name, false, check)
}

func (h *Host) delete(ctx context.Context, name string, force bool, check func(Info) error) error {
	if before, err := h.volume(name); err == nil && before.unsure.Load() != nil {
		if err := h.settle(ctx, before); err != nil {
			return err
		}
		if h.byID(before.id) == nil && before.users.leaving() {
			return nil // it was being deleted, and is gone
		}
	}
	v, err := h.volume(name)
	if err != nil {
		return err
	}
	if !force {
		v.users.waitUnused(ctx, true)
	}
	if err := v.admin.take(ctx); err != nil {
		return err
	}
	marked, err := h.markDeleting(ctx, v, name, force, check)
	v.admin.give()
	if err != nil {
		return err
	}
	return h.finishDeletion(ctx, marked)
}

// markDeleting marks a vDisk as being deleted, durably, and returns what is listed
// in its place. v.admin is held.
func (h *Host) markDeleting(ctx context.Context, v *Volume, name string, force bool, check func(Info) error) (*Volume, error) {
	if err := h.structure.take(ctx); err != nil {
		return nil, err
	}
	defer h.structure.give()
	switch now, err := h.volume(name); {
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
	r, err := h.deletable(ctx, v, force)
	if err != nil {
		return nil, err
	}
	err = h.opt.Registry.MarkDeleting(ctx, v.id)
	if errors.Is(err, registry.ErrUnknownOutcome) {
		return nil, h.deletionUnknown(v, err)
	}
	if err != nil {
		v.users.setDeleted(false)
		return nil, fmt.Errorf("vDisk %q: %w", name, err)
	}
	return h.deleting(r, v, errOngoing), nil
}

// deletable claims a vDisk for deletion and returns its record. A clone that may
// get its name yet is in the list if it does: the registry finds out first.
func (h *Host) deletable(ctx context.Context, v *Volume, force bool) (rec registry.Record, err error) {
	records, err := h.opt.Registry.List(ctx)
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
		return rec, fmt.Errorf("vDisk %q %w: %s; delete them first", v.Name(), ErrHasChildren, strings.Join(children, ", "))
	}
	return rec, v.users.claim(force, v.tree.pinned)
}
