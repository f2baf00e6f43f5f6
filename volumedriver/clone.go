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
		s, err = v.tree.pinNamed(snap)
	} else {
		s, err = v.createSnapshot(ctx, "clone-"+id.String(), true)
	}
	return v, s, err
}

// child makes the clone id of a snapshot of v. The catalog of v lists the clone already.
func (c *creation) child(ctx context.Context, v *Volume, s *snapshot, id uuid.UUID, naming Naming) (Info, error) {
	origins := append([]catalog.Origin(nil), v.cat.current().Origins...)
	origins[len(origins)-1].Snapshot = s.ID
	n, err := c.prepare(ctx, registry.Intent{ID: id, Parent: v.id, ParentEpoch: v.epoch}, &catalog.Catalog{
		Volume: id, Size: s.Size, Created: time.Now().UTC(), NextSCO: 1, NextTLog: 1,
		Origins:    append(origins, catalog.Origin{Volume: id}),
		Checkpoint: catalog.Checkpoint{Root: catalog.Root{Clusters: s.Size / sco.ClusterSize}},
	})
	if err != nil {
		return Info{}, err
	}
	return c.name(ctx, n, naming)
}

// show makes a snapshot that was made for a clone visible, if the clone is still there.
func (v *Volume) show(s *snapshot) {
	defer v.host.table.changed()
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
	if unused && !v.users.leaving() && v.host.background.living().Err() == nil {
		v.host.lineage.dropAutomaticLater(v)
	}
}

// lostSnapshot is a snapshot that was made for a clone which is neither there nor being
// made, nil if there is none.
func (v *Volume) lostSnapshot() *snapshot {
	v.cat.withCurrent(v.tree.hideChildless)
	return v.tree.lost(v.cat.current())
}
