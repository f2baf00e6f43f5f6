package volumedriver

import (
	"context"
	"errors"
	"slices"

	"openvstorage/volumedriver/catalog"

	"github.com/google/uuid"
)

// lineage is what parents keep for their clones: the children in their catalogs, and
// snapshots that were made for clones. It has no lock of its own: what it changes is
// the parent's, under the parent's locks.
type lineage struct {
	table      *table
	background *background
}

// drop removes a clone from its parent's catalog, and the snapshot with
// it if that was made for the clone.
func (l *lineage) drop(ctx context.Context, v *Volume, child uuid.UUID) error {
	if err := v.forgetChild(ctx, child); err != nil {
		return err
	}
	v.hideChildless()
	return l.dropAutomatic(ctx, v)
}

// forgetChild removes a clone from the catalog.
func (v *Volume) forgetChild(ctx context.Context, child uuid.UUID) error {
	return v.updateCatalog(ctx, func(c *catalog.Catalog) error {
		c.Children = slices.DeleteFunc(c.Children, func(k catalog.Child) bool { return k.Volume == child })
		return nil
	})
}

// dropLater drops a clone that never was from its parent's catalog, and the
// snapshot that was made for it.
func (l *lineage) dropLater(v *Volume, child uuid.UUID) {
	drop := func(ctx context.Context) bool {
		ctx, cancel := context.WithTimeout(ctx, settleMax)
		defer cancel()
		if l.table.byID(v.id) != v || v.Err() != nil {
			return true // the next start does it
		}
		err := l.drop(ctx, v, child)
		if err != nil && l.background.living().Err() == nil {
			v.log.Warn("reference to a lost clone not removed", "clone", child, "err", err)
		}
		return err == nil
	}
	l.background.Go(func() {
		if !drop(l.background.living()) {
			l.background.persist(drop)
		}
	})
}

// dropLost removes references to clones that never became visible, and
// the snapshots that were made for them: a start does not wait for it.
func (l *lineage) dropLost(v *Volume, known map[uuid.UUID]bool) {
	v.cat.Lock()
	var lost []catalog.Child
	for _, c := range v.cat.Children {
		if !known[c.Volume] {
			lost = append(lost, c)
		}
	}
	v.cat.Unlock()
	for _, c := range lost {
		v.hideLost(c)
		l.dropLater(v, c.Volume)
	}
}

// dropAutomatic deletes the snapshots of v that were made for clones, and have
// none. It waits until they are in the backend, in nobody's way.
func (l *lineage) dropAutomatic(ctx context.Context, v *Volume) error {
	if v.buf == nil || v.Err() != nil || v.closedBy() != nil {
		return nil
	}
	if err := v.settle(ctx); err != nil {
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
func (l *lineage) dropAutomaticLater(v *Volume) {
	l.background.Go(func() {
		if l.dropAutomatic(l.background.living(), v) == nil {
			return
		}
		l.background.persist(func(ctx context.Context) bool {
			if l.table.byID(v.id) != v || v.Err() != nil {
				return true // the next start does it
			}
			err := l.dropAutomatic(ctx, v)
			if err != nil && ctx.Err() == nil {
				v.log.Warn("snapshots of lost clones not deleted", "err", err)
			}
			return err == nil
		})
	})
}
