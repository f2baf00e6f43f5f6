package volumedriver

import (
	"context"
	"errors"
	"math"
	"strings"

	"openvstorage/backend"
	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/registry"

	"github.com/google/uuid"
)

// leftovers ends deletions that were begun, and removes what no vDisk owns: left
// over from creations that never became visible.
func (d *deletion) leftovers(ctx context.Context, records []registry.Record) error {
	known := make(map[uuid.UUID]bool)
	for _, r := range records {
		known[r.ID] = true
	}
	for _, r := range records {
		if r.Deleting {
			if err := d.remove(ctx, r.ID, r.Parent); err != nil {
				d.later(r, err)
			}
		}
	}
	namespaces, err := d.backend.ListNamespaces(ctx)
	if err != nil {
		return err
	}
	for _, name := range namespaces {
		if id, err := uuid.Parse(name); err == nil && !known[id] {
			// While it is there the clone may be, too: the registry alone is no
			// witness that it never was (P8).
			known[id] = !d.removeUnwritten(ctx, id)
		}
	}
	for _, v := range d.table.all() {
		d.lineage.dropLost(v, known)
		d.lineage.dropAutomaticLater(v)
	}
	return nil
}

// removeUnwritten removes a namespace whose creation never became visible, and
// reports whether it has. Any other that the registry does not know stays: the
// registry may be the one that is wrong.
func (d *deletion) removeUnwritten(ctx context.Context, id uuid.UUID) bool {
	v := d.opener.newVolume(registry.Record{ID: id, Name: id.String()})
	v.epoch = math.MaxUint64
	if unwritten, err := v.unwritten(ctx); !unwritten || err != nil {
		d.log.Warn("namespace of a vDisk that the registry does not know: left as it is", "namespace", id, "err", err)
		return false
	}
	d.log.Info("removing a namespace whose vDisk was never made", "namespace", id)
	if err := d.remove(ctx, id, uuid.Nil); err != nil {
		d.log.Warn("namespace not removed", "namespace", id, "err", err)
		return false
	}
	return true
}

// unwritten reports whether nothing was ever written to a vDisk: it has no local
// files, and either its first catalog, or no catalog and no object but parts of
// that.
func (v *Volume) unwritten(ctx context.Context) (bool, error) {
	if v.host.buffer.Holds(v.id) {
		return false, nil
	}
	err := v.loadCatalog(ctx)
	if !errors.Is(err, backend.ErrNotFound) {
		return err == nil && v.cat.Generation == 0, err
	}
	unwritten := true
	err = v.namespace().List(ctx, "", func(i backend.Info) bool {
		unwritten = strings.HasPrefix(i.Name, catalog.SegmentPrefix)
		return unwritten
	})
	return unwritten, err
}
