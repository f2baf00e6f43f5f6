package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"openvstorage/internal/naming"
	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/volumedriver/catalog"

	"github.com/google/uuid"
)

// snapshotNameMax bounds a snapshot's name in bytes.
const snapshotNameMax = 255

// ValidateSnapshotName returns nil if name can name a snapshot: one path
// component as of a vDisk's name.
func ValidateSnapshotName(name string) error {
	if err := naming.Check(name); err != nil {
		return invalidf("not a name for a snapshot: %w", err)
	}
	if strings.Contains(name, "/") {
		return invalidf("not a name for a snapshot: %.100q contains '/'", name)
	}
	return nil
}

// createSnapshot takes a snapshot of what is written now: an entry with a seq like any
// other (O9), durable on return. It costs the same whatever the size of the vDisk. With
// auto the snapshot is made for a clone and has a pin on return. A snapshot that is
// returned beside an error has the pin too. The caller holds admin.
func (v *Volume) createSnapshot(ctx context.Context, name string, auto bool) (*snapshot, error) {
	if err := v.Err(); err != nil {
		return nil, err
	}
	if v.tree.taken(name) {
		return nil, fmt.Errorf("snapshot %q of vDisk %q: %w; choose another name", name, v.Name(), ErrExists)
	}
	if err := ctx.Err(); err != nil { // a caller that has gone wants nothing any more
		return nil, err
	}
	s := tlog.Snapshot{ID: uuid.New(), Created: time.Now().UnixNano(), Auto: auto, Name: name}
	seq, err := v.buf.AppendEntry(ctx, tlog.Entry{Kind: tlog.KindSnapshot, Payload: s.Payload()})
	if err != nil {
		return nil, v.writeError(err)
	}
	return v.tree.find(s.ID), v.commitEntry(ctx, seq)
}

// commitEntry makes an entry durable that is in the log and in the map. What the entry asks
// for is done already, and only a power cut can undo it. The sync cannot be given up: it
// goes on when ctx ends, and the error matches ErrUnknownOutcome.
func (v *Volume) commitEntry(ctx context.Context, seq uint64) error {
	done := make(chan error, 1)
	v.host.background.Go(func() { done <- v.buf.Commit(v.host.background.living(), seq) })
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%w: it is done, and may not be durable: %w", ErrUnknownOutcome, v.writeError(err))
	}
	return nil
}

// deleteSnapshot deletes a snapshot. First it must be in the catalog, because a replay
// takes a stored snapshot that the catalog does not list for deleted; and a rollback to it
// must be under a checkpoint, because a replay of the rollback would need it. Neither wait
// holds a lock that others need.
func (v *Volume) deleteSnapshot(ctx context.Context, s *snapshot) error {
	for {
		if err := v.stays(s); err != nil {
			return err
		}
		if err := v.store.syncTo(ctx, s.Seq, nil); err != nil {
			return err
		}
		if err := v.store.checkpointTo(ctx, v.tree.rolledSeq()); err != nil {
			return err
		}
		if err := v.cat.settle(ctx); err != nil {
			return err
		}
		if err := v.deleteCovered(ctx, s); !errors.Is(err, errRolledBack) {
			return err
		}
	}
}

// errRolledBack: there was a rollback since the last checkpoint, perhaps to the snapshot
// that is to go.
var errRolledBack = errors.New("rolled back meanwhile")

// stays says why a snapshot cannot be deleted, as far as that can be told before the waits
// of deleteSnapshot. deleteCovered asks again after them.
func (v *Volume) stays(s *snapshot) error {
	if err := v.Err(); err != nil {
		return err
	}
	children := v.cat.current().ChildrenOf(s.ID)
	if len(children) > 0 {
		return v.hasClones(s, children)
	}
	return v.tree.used(s)
}

// hasClones refuses to delete a snapshot that has children.
func (v *Volume) hasClones(s *snapshot, children []catalog.Child) error {
	return fmt.Errorf("snapshot %q of vDisk %q: %w: %s; delete them first", s.Name, v.Name(), ErrHasChildren, strings.Join(v.host.table.namesOf(children), ", "))
}

// deleteCovered takes a snapshot out of the catalog that lists it, and then out of the tree.
func (v *Volume) deleteCovered(ctx context.Context, s *snapshot) error {
	if err := v.gc.pause(ctx); err != nil {
		return err
	}
	defer v.gc.resume()
	return v.cat.change(ctx, func(c *catalog.Catalog) error {
		if children := c.ChildrenOf(s.ID); len(children) > 0 {
			return v.hasClones(s, children)
		}
		if err := v.tree.close(s, c.Checkpoint.Seq); err != nil {
			return err
		}
		v.tree.fill(c)
		c.Snapshots = slices.DeleteFunc(c.Snapshots, func(o catalog.Snapshot) bool { return o.ID == s.ID })
		for i := range c.Snapshots {
			bequeath(&c.Snapshots[i].Parent, s)
		}
		bequeath(&c.Checkpoint.Parent, s)
		return nil
	}, func(took bool) { v.snapshotLeft(s, took) })
}

// rollback makes the vDisk what a snapshot holds. Snapshots that were taken since stay. The
// size stays too: what the snapshot did not have reads as zeros. Whoever calls it has a
// pin on the snapshot and admin, and has paused the garbage collector.
func (v *Volume) rollback(ctx context.Context, s *snapshot) error {
	if err := ctx.Err(); err != nil { // a caller that has gone wants nothing any more
		return err
	}
	id := s.ID
	seq, err := v.buf.AppendEntry(ctx, tlog.Entry{Kind: tlog.KindRollback, Payload: id[:]})
	if err != nil {
		return v.writeError(err)
	}
	if err := v.commitEntry(ctx, seq); err != nil {
		return err
	}
	v.store.ring()
	return nil
}

// resize grows the vDisk to size bytes, durable on return. Whoever calls it has admin.
func (v *Volume) resize(ctx context.Context, size uint64) error {
	if err := v.Err(); err != nil {
		return err
	}
	if err := validateSize(size); err != nil {
		return fmt.Errorf("vDisk %q: %w", v.Name(), err)
	}
	if err := ctx.Err(); err != nil { // a caller that has gone wants nothing any more
		return err
	}
	if have := v.size.Load(); size < have {
		return invalidf("vDisk %q: %d bytes, cannot shrink to %d", v.Name(), have, size)
	} else if size == have {
		return v.commitEntry(ctx, v.buf.Written()) // the resize may be of a caller that gave up
	}
	seq, err := v.buf.AppendEntry(ctx, tlog.Entry{Kind: tlog.KindResize, Addr: size})
	if err != nil {
		return v.writeError(err)
	}
	if err := v.commitEntry(ctx, seq); err != nil {
		return err
	}
	return nil
}

// SizeMax is the largest vDisk in bytes: 64 TiB.
const SizeMax = 64 << 40

// validateSize returns nil if a vDisk may have size bytes.
func validateSize(size uint64) error {
	if size == 0 || size%sco.ClusterSize != 0 || size > SizeMax {
		return invalidf("size of %d bytes: it must be a multiple of %d, more than 0 and at most 64 TiB", size, sco.ClusterSize)
	}
	return nil
}

// snapshotInfos lists the snapshots, oldest first.
func (v *Volume) snapshotInfos() []SnapshotInfo {
	stored := v.cat.storedSeq()
	children := v.cat.current().Children
	list, leaving := v.tree.list()
	doubt := v.cat.inDoubt()
	infos := make([]SnapshotInfo, 0, len(list))
	for i, s := range list {
		var of []catalog.Child
		for _, c := range children {
			if c.Snapshot == s.ID {
				of = append(of, c)
			}
		}
		infos = append(infos, SnapshotInfo{
			Name: s.Name, ID: s.ID, Size: s.Size, Created: s.Created,
			Stored: s.Seq <= stored, Unsure: doubt && leaving[i], Children: v.host.table.namesOf(of),
		})
	}
	return infos
}

// snapshotLeft has the tree follow the catalog: the snapshot is gone, or stays.
func (v *Volume) snapshotLeft(s *snapshot, gone bool) {
	if !gone {
		v.tree.reopen(s)
		return
	}
	v.tree.remove(s, func() { v.checkpoints.bequeath(s) })
	v.gc.sweepAgain()
	v.store.ring()
}
