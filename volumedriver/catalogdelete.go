package volumedriver

import (
	"context"
	"fmt"
	"slices"

	"openvstorage/backend"
	"openvstorage/tlog"
	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/pageobject"
)

// deleteObjects deletes objects that the catalog no longer needs, as its owner
// (P4). What is left over is collected at the next start.
func (o *ownedCatalog) deleteObjects(ctx context.Context, names []string) {
	if len(names) == 0 {
		return
	}
	err := o.holding(ctx, func(ctx context.Context, _ *flight) error { return o.deleteLocked(ctx, names) })
	if err != nil {
		o.log.Warn("objects not deleted", "count", len(names), "first", names[0], "err", err)
	}
}

// deleteLocked deletes objects while no catalog is put. Whoever has put calls it.
func (o *ownedCatalog) deleteLocked(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	if err := o.Err(); err != nil {
		return err
	}
	if err := o.resolve(ctx); err != nil {
		return err
	}
	return o.deleteNow(ctx, names)
}

// deleteOrphans deletes TLogs, page objects and catalog segments of earlier
// owners that the catalog does not name.
func (o *ownedCatalog) deleteOrphans(ctx context.Context) error {
	// No catalog is put between the list and the delete, and none was whose
	// outcome is not known: it may name what the one before did not (O7).
	return o.holding(ctx, func(ctx context.Context, _ *flight) error { return o.deleteOrphansLocked(ctx) })
}

// deleteOrphansLocked is deleteOrphans; put is held.
func (o *ownedCatalog) deleteOrphansLocked(ctx context.Context) error {
	if err := o.resolve(ctx); err != nil {
		return err
	}
	o.mu.Lock()
	keep := map[string]bool{catalog.ObjectName: true}
	for _, t := range o.value.TLogs {
		keep[tlog.ID(t.Number).Name()] = true
	}
	for _, p := range o.value.Pages {
		keep[pageobject.Name(p.Number)] = true
	}
	for _, s := range o.segments {
		keep[s] = true
	}
	o.mu.Unlock()
	var orphans []string
	for _, prefix := range []string{"tlog-", "pages-", "catalog-"} {
		err := o.namespace().List(ctx, prefix, func(i backend.Info) bool {
			if !keep[i.Name] {
				orphans = append(orphans, i.Name)
			}
			return true
		})
		if err != nil {
			return fmt.Errorf("list objects: %w", err)
		}
	}
	return o.deleteLocked(ctx, orphans)
}

// deleteSegments deletes those of some segments that the catalog does not have.
// What is left of them is collected at the next start.
func (o *ownedCatalog) deleteSegments(ctx context.Context, old []string) {
	o.mu.Lock()
	names := o.segments
	o.mu.Unlock()
	old = slices.DeleteFunc(slices.Clone(old), func(n string) bool { return slices.Contains(names, n) })
	_ = o.deleteNow(ctx, old)
}

// deleteNow deletes objects while the catalog has the version that is known.
// Whoever has put calls it, with nothing in doubt.
func (o *ownedCatalog) deleteNow(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	_, version, _ := o.known()
	err := o.namespace().Delete(ctx, names, &backend.Condition{Name: catalog.ObjectName, Version: version})
	if backend.Unknown(err) {
		// It may come yet, and take what is put under such a name meanwhile.
		o.doubt.note(err)
	}
	return err
}
