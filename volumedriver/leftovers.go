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

// leftovers finishes deletions that an earlier process has begun, and removes what
// creations have left that never became visible. records are all that the registry has.
func (d *deletion) leftovers(ctx context.Context, records []registry.Record) error {
	known := make(map[uuid.UUID]bool)
	for _, r := range records {
		known[r.ID] = true
	}
	for _, r := range records {
		if r.Deleting {
			if err := d.remove(ctx, r.ID, r.Parent); err != nil {
				d.deleteLater(r, err)
			}
		}
	}
	namespaces, err := d.backend.ListNamespaces(ctx)
	if err != nil {
		return err
	}
	for _, name := range namespaces {
		if id, err := uuid.Parse(name); err == nil && !known[id] {
			// While the namespace is there, the parent keeps the clone's entry: the
			// registry alone is no proof that the clone never existed (P8).
			known[id] = !d.removeUnwritten(ctx, id)
		}
	}
	for _, v := range d.table.all() {
		d.lineage.dropLost(v, known)
		d.lineage.dropAutomaticLater(v)
	}
	return nil
}

// removeUnwritten removes a namespace that the registry does not know, if nothing was
// ever written to it, and reports whether it is gone. Any other namespace stays: it may
// be the registry that is wrong.
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

// unwritten reports whether nothing was ever written to a vDisk. Then it has no local
// files; its catalog is the first one, or there is no catalog and no object but segments
// of one.
func (v *Volume) unwritten(ctx context.Context) (bool, error) {
	if v.host.buffer.Holds(v.id) {
		return false, nil
	}
	err := v.opening.loadCatalog(ctx)
	if !errors.Is(err, backend.ErrNotFound) {
		return err == nil && v.cat.current().Generation == 0, err
	}
	unwritten := true
	err = v.namespace().List(ctx, "", func(i backend.Info) bool {
		unwritten = strings.HasPrefix(i.Name, catalog.SegmentPrefix)
		return unwritten
	})
	return unwritten, err
}
