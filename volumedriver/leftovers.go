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

// leftovers finishes deletions that an earlier process of this host has begun, and
// removes what its creations have left that never became visible. mine are this host's
// records. What other hosts delete or make is left to them, however it looks.
func (d *deletion) leftovers(ctx context.Context, mine []registry.Record) error {
	for _, r := range mine {
		if r.Deleting {
			if err := d.remove(ctx, r); err != nil {
				d.deleteLater(r, err)
			}
		}
	}
	if err := d.unmakeAll(ctx); err != nil {
		return err
	}
	known, unowned, err := d.known(ctx)
	if err != nil {
		return err
	}
	if d.shared {
		unowned = nil // they are those of other processes
	}
	for _, id := range unowned {
		d.log.Warn("namespace of a vDisk that the registry does not know: left as it is", "namespace", id)
	}
	for _, v := range d.table.all() {
		d.lineage.dropLost(v, known)
		d.lineage.dropAutomaticLater(v)
	}
	return nil
}

// known returns all vDisks that have a namespace, an intent or a record, and those that
// have nothing but a namespace.
//
// The order tells what others do meanwhile: a namespace is there only between the begin of
// its intent and the end of its intent or record, and a record comes in the step in which
// its intent goes. So of what was listed first nothing seems to have no owner that has
// one. And a clone of this host's vDisk is registered only while that vDisk is of the
// epoch at which its catalog got the clone (registry.Intent): as the vDisks here were
// claimed before, a clone that has neither intent nor record by now never gets one.
func (d *deletion) known(ctx context.Context) (known map[uuid.UUID]bool, unowned []uuid.UUID, err error) {
	namespaces, err := d.backend.ListNamespaces(ctx)
	if err != nil {
		return nil, nil, err
	}
	intents, err := d.registry.Intents(ctx)
	if err != nil {
		return nil, nil, err
	}
	records, err := d.registry.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	known = make(map[uuid.UUID]bool, len(records))
	for _, in := range intents {
		known[in.ID] = true
	}
	for _, r := range records {
		known[r.ID] = true
	}
	for _, name := range namespaces {
		id, err := uuid.Parse(name)
		if err != nil || known[id] {
			continue
		}
		// While the namespace is there, the parent keeps the clone's entry: the registry
		// alone is no proof that the clone never existed (P8).
		known[id] = true
		unowned = append(unowned, id)
	}
	return known, unowned, nil
}

// unmakeAll removes what this host has begun to make and not finished. It is called at
// the start, when this host makes nothing.
func (d *deletion) unmakeAll(ctx context.Context) error {
	intents, err := d.registry.Intents(ctx)
	if err != nil {
		return err
	}
	for _, in := range intents {
		if in.Host != d.me {
			continue
		}
		d.log.Info("removing what was made of a vDisk that was never finished", "id", in.ID, "begun", in.Begun)
		if err := d.takeAndUnmake(ctx, in.ID); err != nil {
			d.log.Warn("not removed yet; it is tried again", "id", in.ID, "err", err)
			d.background.persist(func(ctx context.Context) bool {
				ctx, cancel := context.WithTimeout(ctx, settleMax)
				defer cancel()
				return d.takeAndUnmake(ctx, in.ID) == nil
			})
		}
	}
	return nil
}

// takeAndUnmake takes an intent of this host, so that nobody can finish it any more, and
// removes what was made. One that another host has taken is that host's.
func (d *deletion) takeAndUnmake(ctx context.Context, id uuid.UUID) error {
	in, err := d.registry.Take(ctx, id, d.me, 0)
	if errors.Is(err, registry.ErrNotFound) || errors.Is(err, registry.ErrNotOwner) {
		return nil
	}
	if err != nil {
		return err
	}
	return d.unmake(ctx, in)
}

// unmake removes what was made by an intent of this host that will never be finished. Its
// steps may be repeated; the intent goes last. That there is an intent and no record is
// one witness that nobody has used the vDisk, what is there of it the other (P8): if it
// was written to, it stays, and so does the intent.
func (d *deletion) unmake(ctx context.Context, in registry.Intent) error {
	unwritten, err := d.unwritten(ctx, in.ID)
	if err != nil {
		return err
	}
	if !unwritten {
		d.log.Warn("a vDisk that was never finished holds data: left as it is", "namespace", in.ID)
		return nil
	}
	if err := d.clear(ctx, in.ID); err != nil {
		return err
	}
	if err := d.registry.End(ctx, in); err != nil && !errors.Is(err, registry.ErrNotOwner) {
		return err
	}
	return nil
}

// removeOlder removes what creations of an older release have left, which kept no
// intents: namespaces that the registry does not know and that nobody has written to. It
// is called if no other process has vDisks in the backend, and before any host of this release has entered the registry. The older release
// ran on this host alone, and does not run now: it would hold the data directory.
func (d *deletion) removeOlder(ctx context.Context) error {
	_, unowned, err := d.known(ctx)
	if err != nil {
		return err
	}
	for _, id := range unowned {
		unwritten, err := d.unwritten(ctx, id)
		if !unwritten || err != nil {
			d.log.Warn("namespace of a vDisk that the registry does not know: left as it is", "namespace", id, "err", err)
			continue
		}
		d.log.Info("removing a namespace whose vDisk was never made", "namespace", id)
		if err := d.clear(ctx, id); err != nil {
			d.log.Warn("namespace not removed", "namespace", id, "err", err)
		}
	}
	return nil
}

// unwritten reports whether nothing was ever written to a vDisk that has no record. Then
// it has no local files; its catalog is the first one, or there is no catalog and no
// object but segments of one, or there is not even a namespace.
func (d *deletion) unwritten(ctx context.Context, id uuid.UUID) (bool, error) {
	v := d.opener.newVolume(registry.Record{ID: id, Name: id.String()})
	defer v.end()
	v.epoch = math.MaxUint64
	if d.buffer.Holds(id) {
		return false, nil
	}
	err := v.opening.loadCatalog(ctx)
	if errors.Is(err, backend.ErrNamespaceNotFound) {
		return true, nil
	}
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
