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

// deleteObjects deletes objects that the catalog no longer needs, as its owner (P4). What
// cannot be deleted now is an orphan, which deleteOrphans deletes after the next start.
func (o *ownedCatalog) deleteObjects(ctx context.Context, names []string) {
	if len(names) == 0 {
		return
	}
	err := o.holding(ctx, func(ctx context.Context, _ *flight) error { return o.deleteLocked(ctx, names) })
	if err != nil {
		o.log.Warn("objects not deleted", "count", len(names), "first", names[0], "err", err)
	}
}

// deleteLocked is deleteObjects for whoever holds put, and returns the error. A halted
// vDisk deletes nothing: it may have another owner.
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

// deleteOrphans deletes the TLogs, page objects and catalog segments that the catalog does
// not name: earlier owners left them behind.
func (o *ownedCatalog) deleteOrphans(ctx context.Context) error {
	// No catalog is put between the list and the delete, and no put is in doubt: it might
	// name an object that the known catalog does not (O7).
	return o.holding(ctx, func(ctx context.Context, _ *flight) error { return o.deleteOrphansLocked(ctx) })
}

// deleteOrphansLocked is deleteOrphans for whoever holds put.
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

// deleteSegments deletes those of the old segments that the catalog does not name any
// more. What is left of them goes after the next start, as an orphan.
func (o *ownedCatalog) deleteSegments(ctx context.Context, old []string) {
	o.mu.Lock()
	names := o.segments
	o.mu.Unlock()
	old = slices.DeleteFunc(slices.Clone(old), func(n string) bool { return slices.Contains(names, n) })
	_ = o.deleteNow(ctx, old)
}

// deleteNow deletes objects on condition that the catalog still has the known version, so
// that a former owner deletes nothing. Whoever calls it holds put, with nothing in doubt.
func (o *ownedCatalog) deleteNow(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	_, version, _ := o.known()
	err := o.namespace().Delete(ctx, names, &backend.Condition{Name: catalog.ObjectName, Version: version})
	if backend.Unknown(err) {
		// The delete may be carried out later, and delete an object that was put under
		// the same name by then.
		o.doubt.note(err)
	}
	return err
}
