package volumedriver

import (
	"context"
	"errors"
	"slices"

	"openvstorage/volumedriver/catalog"

	"github.com/google/uuid"
)

// lineage removes what parents keep for their clones: the children in their catalogs,
// and automatic snapshots, which were made for a clone. It has no lock of its own: all of
// that is the parent's, under the parent's locks.
type lineage struct {
	table      *table
	background *background
}

// drop removes a clone from the catalog of its parent v, and with its last clone an
// automatic snapshot.
func (l *lineage) drop(ctx context.Context, v *Volume, child uuid.UUID) error {
	if err := v.forgetChild(ctx, child); err != nil {
		return err
	}
	v.cat.withCurrent(v.tree.hideChildless)
	return l.dropAutomatic(ctx, v)
}

// forgetChild removes a clone from the catalog.
func (v *Volume) forgetChild(ctx context.Context, child uuid.UUID) error {
	return v.cat.update(ctx, func(c *catalog.Catalog) error {
		c.Children = slices.DeleteFunc(c.Children, func(k catalog.Child) bool { return k.Volume == child })
		return nil
	})
}

// dropLater is drop of a clone that was never made, in the background, until it is done.
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

// dropLost drops, in the background, the children of v that are not known: those clones
// were never made. A start does not wait for it.
func (l *lineage) dropLost(v *Volume, known map[uuid.UUID]bool) {
	var lost []catalog.Child
	for _, c := range v.cat.current().Children {
		if !known[c.Volume] {
			lost = append(lost, c)
		}
	}
	for _, c := range lost {
		v.hideLost(c)
		l.dropLater(v, c.Volume)
	}
}

// dropAutomatic deletes the automatic snapshots of v that have no clone. It waits until
// they are in the backend, without a lock.
func (l *lineage) dropAutomatic(ctx context.Context, v *Volume) error {
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
