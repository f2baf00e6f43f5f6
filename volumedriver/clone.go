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

// clone is Host.CloneAs.
func (c *creation) clone(ctx context.Context, src, snap string, progress func(done, total int64), naming Naming) (info Info, err error) {
	id := uuid.New()
	v, s, err := c.source(ctx, src, snap, id)
	if s == nil {
		return Info{}, err
	}
	defer func() {
		v.unpin(s)
		if s.Auto { // the clone may be deleted by now
			c.lineage.dropAutomaticLater(v)
		}
	}()
	if err != nil {
		return Info{}, err
	}
	if err := v.syncTo(ctx, s.Seq, progress); err != nil {
		return Info{}, err
	}
	// The child is in the parent's catalog before the clone is visible: from
	// here on the snapshot stays.
	err = v.updateCatalog(ctx, func(c *catalog.Catalog) error {
		c.Children = append(c.Children, catalog.Child{Volume: id, Snapshot: s.ID})
		return nil
	})
	if errors.Is(err, ErrUnknownOutcome) {
		// The clone has no name yet, so that it is certain that nobody uses it: its
		// entry in the catalog may go.
		c.lineage.dropLater(v, id)
		return Info{}, fmt.Errorf("clone of %s: its snapshot could not be held for sure: %v", src, err)
	}
	if err != nil {
		return Info{}, err
	}
	info, err = c.child(ctx, v, s, id, naming)
	if err != nil && info.ID == uuid.Nil {
		if v.forgetChild(ctx, id) != nil {
			c.lineage.dropLater(v, id)
		}
		return info, err
	}
	v.show(s)
	return info, err
}

// source finds the snapshot that is to be cloned, or takes one for the clone id if snap
// is "". The snapshot has a pin. One that was taken here may be returned along with an
// error.
func (c *creation) source(ctx context.Context, src, snap string, id uuid.UUID) (*Volume, *snapshot, error) {
	v, err := c.doubts.find(ctx, src)
	if err != nil {
		return nil, nil, err
	}
	_, done, err := v.manage(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	if len(v.origins) > int(sco.MaxOrigin) {
		return nil, nil, invalidf("vDisk %q: it would be a clone of depth %d, the most there can be; copy it instead", src, len(v.origins)-1)
	}
	var s *snapshot
	if snap != "" {
		s, err = v.pinNamed(snap)
	} else {
		s, err = v.createSnapshot(ctx, "clone-"+id.String(), true)
	}
	return v, s, err
}

// child makes the clone id of a snapshot of v. The catalog of v lists the clone already.
func (c *creation) child(ctx context.Context, v *Volume, s *snapshot, id uuid.UUID, naming Naming) (Info, error) {
	v.cat.Lock()
	origins := append([]catalog.Origin(nil), v.cat.Origins...)
	v.cat.Unlock()
	origins[len(origins)-1].Snapshot = s.ID
	n, err := c.prepare(ctx, registry.Record{ID: id, Parent: v.id}, &catalog.Catalog{
		Volume: id, Size: s.Size, Created: time.Now().UTC(), NextSCO: 1, NextTLog: 1,
		Origins:    append(origins, catalog.Origin{Volume: id}),
		Checkpoint: catalog.Checkpoint{Root: catalog.Root{Clusters: s.Size / sco.ClusterSize}},
	})
	if err != nil {
		return Info{}, err
	}
	return c.name(ctx, n, naming)
}

// show has all see a snapshot that was made for a clone, if that is there still.
func (v *Volume) show(s *snapshot) {
	defer v.host.table.changed()
	v.cat.Lock()
	defer v.cat.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if !s.Auto || len(v.cat.ChildrenOf(s.ID)) > 0 {
		v.hide(s, false)
	}
}

// hide has nobody see a snapshot any more, or all. v.mu is held.
func (v *Volume) hide(s *snapshot, hidden bool) {
	if s.hidden != hidden {
		s.hidden = hidden
		v.host.table.changed()
	}
}

// hideChildless hides the snapshots that were made for clones and have none: they
// go.
func (v *Volume) hideChildless() {
	v.cat.Lock()
	defer v.cat.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.snapshots {
		if s.Auto && len(v.cat.ChildrenOf(s.ID)) == 0 {
			v.hide(s, true)
		}
	}
}

// hideLost hides the snapshot that was made for a clone that never became visible,
// if it has no other.
func (v *Volume) hideLost(lost catalog.Child) {
	v.cat.Lock()
	alone := len(v.cat.ChildrenOf(lost.Snapshot)) == 1
	v.cat.Unlock()
	if s := v.snapshot(lost.Snapshot); alone && s != nil && s.Auto {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.hide(s, true)
	}
}

// unusedLocked reports whether a hidden snapshot has lost its last pin or reader: it is to
// go, and was passed over while it had one. v.mu is held.
func (v *Volume) unusedLocked(s *snapshot) bool {
	return s.hidden && s.pins == 0 && v.readers[s.ID] == 0 && !v.deleted && v.host.background.living().Err() == nil
}

// lostSnapshot is one that was made for a clone that is not there, nor being made.
func (v *Volume) lostSnapshot() *snapshot {
	v.hideChildless()
	held := make(map[uuid.UUID]bool) // by a clone whose end is not known
	v.cat.Lock()
	for _, c := range v.cat.Children {
		held[c.Snapshot] = true
	}
	v.cat.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.snapshots {
		if s.hidden && !s.leaving && s.pins == 0 && v.readers[s.ID] == 0 && !held[s.ID] {
			return s
		}
	}
	return nil
}
