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
	return h.DeleteIf(ctx, name, func(Info) error { return nil })
}

// DeleteIf deletes the vDisk that has the name as Delete does, unless check
// fails: it is asked when nothing any more gives the name to another vDisk, or
// this one a snapshot.
func (h *Host) DeleteIf(ctx context.Context, name string, check func(Info) error) error {
	if before, err := h.volume(name); err == nil && before.unsure.Load() != nil {
		if err := h.settle(ctx, before); err != nil {
			return err
		}
		if h.byID(before.id) == nil && before.leaving() {
			return nil // it was being deleted, and is gone
		}
	}
	if err := h.structure.take(ctx); err != nil {
		return err
	}
	defer h.structure.give()
	v, err := h.volume(name)
	if err != nil {
		return err
	}
	if err := v.admin.take(ctx); err != nil {
		return err
	}
	defer v.admin.give()
	if err := v.sure(); err != nil {
		return err
	}
	if err := check(v.info()); err != nil {
		return err
	}
	r, err := h.deletable(ctx, v)
	if err != nil {
		return err
	}
	err = h.opt.Registry.MarkDeleting(ctx, v.id)
	if errors.Is(err, registry.ErrUnknownOutcome) {
		return h.deletionUnknown(v, err)
	}
	if err != nil {
		v.mu.Lock()
		v.deleted = false
		v.mu.Unlock()
		return fmt.Errorf("vDisk %q: %w", name, err)
	}
	return h.finishDeletion(ctx, v, r)
}

// leaving reports whether a deletion has claimed the vDisk.
func (v *Volume) leaving() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.deleted
}

// deletable claims a vDisk for deletion and returns its record. A clone that may
// get its name yet is in the list if it does: the registry finds out first.
func (h *Host) deletable(ctx context.Context, v *Volume) (rec registry.Record, err error) {
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
		return rec, fmt.Errorf("vDisk %s: %w: %s; delete them first", v.Name(), ErrHasChildren, strings.Join(children, ", "))
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.refs > 0 {
		return rec, fmt.Errorf("vDisk %s is in use by %d connections; disconnect them first: %w", v.name, v.refs, ErrBusy)
	}
	v.deleted = true
	return rec, nil
}
