package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/sco"
	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/registry"

	"github.com/google/uuid"
)

// Clone makes a vDisk that begins as a snapshot of another, or as what it
// holds now if snap is "". No data is copied; what the snapshot holds must be
// in the backend, which is waited for, in nobody's way: only the snapshot and its
// vDisk cannot be deleted meanwhile.
func (h *Host) Clone(ctx context.Context, src, snap, dst string, progress func(done, total int64)) (Info, error) {
	if err := h.nameable(ctx, dst); err != nil {
		return Info{}, err
	}
	return h.CloneAs(ctx, src, snap, progress, named(dst))
}

// CloneAs is Clone with a name that is given when all is in the backend.
func (h *Host) CloneAs(ctx context.Context, src, snap string, progress func(done, total int64), naming Naming) (info Info, err error) {
	id := uuid.New()
	v, s, err := h.cloneSource(ctx, src, snap, id)
	if s == nil {
		return Info{}, err
	}
	defer func() {
		v.unpin(s)
		if s.Auto { // the clone may be deleted by now
			h.dropAutomaticLater(v)
		}
	}()
	if err != nil {
		return Info{}, err
	}
	if err := v.store.syncTo(ctx, s.Seq, progress); err != nil {
		return Info{}, err
	}
	// The child is in the parent's catalog before the clone is visible: from
	// here on the snapshot stays.
	err = v.cat.update(ctx, func(c *catalog.Catalog) error {
		c.Children = append(c.Children, catalog.Child{Volume: id, Snapshot: s.ID})
		return nil
	})
	if errors.Is(err, ErrUnknownOutcome) {
		// Nobody can have seen the clone: it is known not to be there.
		h.dropLater(v, id)
		return Info{}, fmt.Errorf("clone of %s: its snapshot could not be held for sure: %v", src, err)
	}
	if err != nil {
		return Info{}, err
	}
	info, err = h.bearClone(ctx, v, s, id, naming)
	if err != nil && info.ID == uuid.Nil {
		if v.forgetChild(ctx, id) != nil {
			h.dropLater(v, id)
		}
		return info, err
	}
	v.show(s)
	return info, err
}

// cloneSource finds what is to be cloned, or takes a snapshot for it. The snapshot
// has a pin, and if it was taken here may be there with an error.
func (h *Host) cloneSource(ctx context.Context, src, snap string, id uuid.UUID) (*Volume, *snapshot, error) {
	v, done, err := h.managed(ctx, src)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	if len(v.origins) > int(sco.MaxOrigin) {
		return nil, nil, invalidf("vDisk %q: it would be a clone of depth %d, the most there can be; copy it instead", src, len(v.origins)-1)
	}
	var s *snapshot
	if snap != "" {
		s, err = v.tree.pinNamed(snap)
	} else {
		s, err = v.createSnapshot(ctx, "clone-"+id.String(), true)
	}
	return v, s, err
}

// bearClone makes the clone id of a snapshot, which has it as a child.
func (h *Host) bearClone(ctx context.Context, v *Volume, s *snapshot, id uuid.UUID, naming Naming) (Info, error) {
	origins := append([]catalog.Origin(nil), v.cat.current().Origins...)
	origins[len(origins)-1].Snapshot = s.ID
	n, err := h.prepare(ctx, registry.Record{ID: id, Parent: v.id}, &catalog.Catalog{
		Volume: id, Size: s.Size, Created: time.Now().UTC(), NextSCO: 1, NextTLog: 1,
		Origins:    append(origins, catalog.Origin{Volume: id}),
		Checkpoint: catalog.Checkpoint{Root: catalog.Root{Clusters: s.Size / sco.ClusterSize}},
	})
	if err != nil {
		return Info{}, err
	}
	return h.bear(ctx, n, naming)
}

// show makes a snapshot that was made for a clone visible, if the clone is still there.
func (v *Volume) show(s *snapshot) {
	defer v.host.listed.Add(1)
	v.cat.withCurrent(func(c *catalog.Catalog) {
		if !s.Auto || len(c.ChildrenOf(s.ID)) > 0 {
			v.tree.setHidden(s, false)
		}
	})
}

// hideLost hides the snapshot of a clone that never became visible, if it was made for that
// and no other clone has it.
func (v *Volume) hideLost(lost catalog.Child) {
	alone := len(v.cat.current().ChildrenOf(lost.Snapshot)) == 1
	if s := v.tree.find(lost.Snapshot); alone && s != nil && s.Auto {
		v.tree.setHidden(s, true)
	}
}

// unpin takes back a pin on a snapshot.
func (v *Volume) unpin(s *snapshot) { v.dropIfUnused(v.tree.unpin(s)) }

// dropIfUnused has a hidden snapshot go that has lost its last pin or reader: it was
// passed over while it had one.
func (v *Volume) dropIfUnused(unused bool) {
	if unused && !v.users.leaving() && v.host.living.Err() == nil {
		v.host.dropAutomaticLater(v)
	}
}

// lostSnapshot is a snapshot that was made for a clone which is neither there nor being
// made, nil if there is none.
func (v *Volume) lostSnapshot() *snapshot {
	v.cat.withCurrent(v.tree.hideChildless)
	return v.tree.lost(v.cat.current())
}

// dropAutomatic deletes the snapshots of v that were made for clones, and have
// none. It waits until they are in the backend, in nobody's way.
func (h *Host) dropAutomatic(ctx context.Context, v *Volume) error {
	if v.buf == nil || v.Err() != nil || v.closedBy() != nil {
		return nil
	}
	if err := v.cat.settle(ctx); err != nil {
		return err
	}
	for s := v.lostSnapshot(); s != nil; s = v.lostSnapshot() {
		if err := v.deleteSnapshot(ctx, s); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

// dropAutomaticLater is dropAutomatic in the background, until it is done.
func (h *Host) dropAutomaticLater(v *Volume) {
	h.background.Go(func() {
		if h.dropAutomatic(h.living, v) == nil {
			return
		}
		h.persist(func(ctx context.Context) bool {
			if h.byID(v.id) != v || v.Err() != nil {
				return true // the next start does it
			}
			err := h.dropAutomatic(ctx, v)
			if err != nil && ctx.Err() == nil {
				v.log.Warn("snapshots of lost clones not deleted", "err", err)
			}
			return err == nil
		})
	})
}
