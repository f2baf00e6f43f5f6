package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"openvstorage/device"
	"openvstorage/internal/naming"
	"openvstorage/metadata"
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

// createSnapshot takes a snapshot of what is written now: an entry with a seq
// like any other (O9), durable on return. It costs the same whatever the
// vDisk's size. One for a clone has a pin, also with an error, if it is there.
// v.admin is held.
func (v *Volume) createSnapshot(ctx context.Context, name string, auto bool) (*snapshot, error) {
	if err := v.Err(); err != nil {
		return nil, err
	}
	if v.nameTaken(name) {
		return nil, fmt.Errorf("snapshot %q of vDisk %q %w; choose another name", name, v.Name(), ErrExists)
	}
	if err := ctx.Err(); err != nil { // who has gone wants nothing any more
		return nil, err
	}
	s := tlog.Snapshot{ID: uuid.New(), Created: time.Now().UnixNano(), Auto: auto, Name: name}
	seq, err := v.buf.AppendEntry(ctx, tlog.Entry{Kind: tlog.KindSnapshot, Payload: s.Payload()})
	if err != nil {
		return nil, v.writeError(err)
	}
	made := v.snapshot(s.ID)
	if made != nil && auto {
		v.mu.Lock()
		v.pinLocked(made)
		v.mu.Unlock()
	}
	return made, v.commitEntry(ctx, seq)
}

// nameTaken reports whether a snapshot has the name, a hidden one too.
func (v *Volume) nameTaken(name string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.ContainsFunc(v.snapshots, func(s *snapshot) bool { return s.Name == name })
}

// pinNamed finds a snapshot and keeps it from going until unpin is called.
func (v *Volume) pinNamed(name string) (*snapshot, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.namedLocked(name)
	switch {
	case s == nil:
		return nil, fmt.Errorf("snapshot %q of vDisk %q: %w", name, v.Name(), ErrNotFound)
	case s.leaving:
		return nil, fmt.Errorf("snapshot %q of vDisk %q: being deleted, or may be: %w", name, v.Name(), ErrBusy)
	}
	v.pinLocked(s)
	return s, nil
}

// pinLocked keeps a snapshot from going, and its vDisk. v.mu is held.
func (v *Volume) pinLocked(s *snapshot) {
	s.pins++
	v.clones++
}

func (v *Volume) unpin(s *snapshot) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s.pins--
	v.clones--
	if v.unusedLocked(s) {
		v.host.dropAutomaticLater(v)
	}
}

// commitEntry makes an entry durable that is in the log and in the map: what it
// asks for is done, and only a power cut can undo it. A sync cannot be given up: it
// goes on without a caller whose ctx ends.
func (v *Volume) commitEntry(ctx context.Context, seq uint64) error {
	done := make(chan error, 1)
	v.host.background.Go(func() { done <- v.buf.Commit(v.host.living, seq) })
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

// deleteSnapshot lets a snapshot go. It must be in the catalog first, so that a
// replay knows that it is gone; and a rollback that went to it must be under a
// checkpoint. Both are waited for in nobody's way.
func (v *Volume) deleteSnapshot(ctx context.Context, s *snapshot) error {
	for {
		if err := v.stays(s); err != nil {
			return err
		}
		if err := v.syncTo(ctx, s.Seq, nil); err != nil {
			return err
		}
		if err := v.checkpointTo(ctx, v.rolledSeq()); err != nil {
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

// errRolledBack: there was a rollback since the last checkpoint, maybe to the
// snapshot that is to go.
var errRolledBack = errors.New("rolled back meanwhile")

// stays says why a snapshot cannot be deleted, as far as can be told before all is
// waited for that its deletion needs.
func (v *Volume) stays(s *snapshot) error {
	if err := v.Err(); err != nil {
		return err
	}
	children := v.cat.now().ChildrenOf(s.ID)
	if len(children) > 0 {
		return v.hasClones(s, children)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.usedLocked(s)
}

func (v *Volume) hasClones(s *snapshot, children []catalog.Child) error {
	return fmt.Errorf("snapshot %q of vDisk %q %w: %s; delete them first", s.Name, v.Name(), ErrHasChildren, strings.Join(v.host.names(children), ", "))
}

// usedLocked says who uses a snapshot. v.mu is held.
func (v *Volume) usedLocked(s *snapshot) error {
	switch {
	case v.readers[s.ID] > 0:
		return fmt.Errorf("snapshot %q of vDisk %q: in use; disconnect its readers first: %w", s.Name, v.Name(), ErrBusy)
	case s.pins > 0:
		return fmt.Errorf("snapshot %q of vDisk %q: being cloned, or rolled back to; wait for it: %w", s.Name, v.Name(), ErrBusy)
	}
	return nil
}

// deleteCovered takes a snapshot out of the catalog that lists it.
func (v *Volume) deleteCovered(ctx context.Context, s *snapshot) error {
	if err := v.gc.take(ctx); err != nil {
		return err
	}
	defer v.gc.give()
	return v.cat.change(ctx, func(c *catalog.Catalog) error {
		if children := c.ChildrenOf(s.ID); len(children) > 0 {
			return v.hasClones(s, children)
		}
		if err := v.closeSnapshot(s, c.Checkpoint.Seq); err != nil {
			return err
		}
		v.fillSnapshots(c)
		c.Snapshots = slices.DeleteFunc(c.Snapshots, func(o catalog.Snapshot) bool { return o.ID == s.ID })
		for i := range c.Snapshots {
			bequeath(&c.Snapshots[i].Parent, s)
		}
		bequeath(&c.Checkpoint.Parent, s)
		return nil
	}, func(took bool) { v.snapshotLeft(s, took) })
}

// closeSnapshot has nobody open a snapshot any more, unless somebody uses it, or
// the last rollback, which may have gone to it, is behind the checkpoint.
func (v *Volume) closeSnapshot(s *snapshot, checkpoint uint64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Contains(v.snapshots, s) {
		return fmt.Errorf("snapshot %q of vDisk %q: %w any more", s.Name, v.Name(), ErrNotFound)
	}
	if err := v.usedLocked(s); err != nil {
		return err
	}
	if v.rolled > checkpoint {
		return errRolledBack
	}
	s.leaving = true
	return nil
}

// bequeath makes the parent of a snapshot the parent of its child.
func bequeath(parent *uuid.UUID, s *snapshot) {
	if *parent == s.ID {
		*parent = s.Parent
	}
}

// snapshotLeft has memory follow the catalog: the snapshot is gone, or stays.
func (v *Volume) snapshotLeft(s *snapshot, gone bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !gone {
		s.leaving = false
		return
	}
	v.snapshots = slices.DeleteFunc(slices.Clone(v.snapshots), func(o *snapshot) bool { return o == s })
	for _, o := range v.snapshots {
		bequeath(&o.Parent, s)
	}
	for _, a := range v.ahead {
		bequeath(&a.parent, s)
	}
	bequeath(&v.parent, s)
	v.host.listed.Add(1)
	v.store.collectDue.Store(true)
	v.store.sweepDue.Store(true)
	v.wakeStorer()
}

// rollback makes the vDisk what a snapshot holds, which has a pin. Snapshots taken
// since stay. The size stays too: what the snapshot did not have reads as zeros.
// v.gc and v.admin are held.
func (v *Volume) rollback(ctx context.Context, s *snapshot) error {
	if err := ctx.Err(); err != nil { // who has gone wants nothing any more
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
	v.wakeStorer()
	return nil
}

// resize grows the vDisk.
func (v *Volume) resize(ctx context.Context, size uint64) error {
	if err := v.Err(); err != nil {
		return err
	}
	if err := validateSize(size); err != nil {
		return fmt.Errorf("vDisk %q: %w", v.Name(), err)
	}
	if err := ctx.Err(); err != nil { // who has gone wants nothing any more
		return err
	}
	if have := v.size.Load(); size < have {
		return invalidf("vDisk %q: %d bytes, cannot shrink to %d", v.Name(), have, size)
	} else if size == have {
		return v.commitEntry(ctx, v.buf.Written()) // it may be of one that was given up
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

func validateSize(size uint64) error {
	if size == 0 || size%sco.ClusterSize != 0 || size > SizeMax {
		return invalidf("size of %d bytes: it must be a multiple of %d, more than 0 and at most 64 TiB", size, sco.ClusterSize)
	}
	return nil
}

// parentSnapshot is the snapshot that a clone was made from.
func (v *Volume) parentSnapshot() (*Volume, *snapshot, error) {
	o := v.cat.now().Origins[v.self-1]
	parent := v.host.byID(o.Volume)
	if parent == nil || parent.m == nil {
		return nil, nil, fmt.Errorf("vDisk %q: a clone of vDisk %s: %w", v.Name(), o.Volume, errParentClosed)
	}
	s := parent.snapshot(o.Snapshot)
	if s == nil {
		return nil, nil, fmt.Errorf("vDisk %q: a clone of snapshot %s of vDisk %q, which is not there", v.Name(), o.Snapshot, parent.Name())
	}
	return parent, s, nil
}

// SnapshotDevice is the device of a snapshot, which is read-only.
type SnapshotDevice struct {
	v    *Volume
	s    *snapshot
	view *metadata.View
}

// Size is the size of the vDisk when the snapshot was taken, in bytes.
func (d *SnapshotDevice) Size() int64 { return int64(d.s.Size) }

// TryRead is Volume.TryRead of the snapshot.
func (d *SnapshotDevice) TryRead(p []byte, off int64) error {
	if err := d.v.within(off, int64(len(p)), d.s.Size, syscall.EINVAL); err != nil {
		return err
	}
	if off%sco.ClusterSize != 0 || len(p)%sco.ClusterSize != 0 {
		return device.ErrWouldBlock
	}
	if err := d.v.tryRead(d.view, p, off); err != nil {
		return err
	}
	d.v.count.read(len(p))
	return nil
}

// Read is Volume.Read of the snapshot.
func (d *SnapshotDevice) Read(ctx context.Context, p []byte, off int64) error {
	if err := d.v.within(off, int64(len(p)), d.s.Size, syscall.EINVAL); err != nil {
		return err
	}
	d.v.count.read(len(p))
	return d.v.read(ctx, d.view, p, off)
}

// Extents reports the snapshot's allocation.
func (d *SnapshotDevice) Extents(ctx context.Context, off, n int64, fn func(device.Extent) bool) error {
	return d.v.extents(ctx, d.view, d.s.Size, off, n, fn)
}

// Prefetch brings the snapshot's map of the range into memory.
func (d *SnapshotDevice) Prefetch(ctx context.Context, off, n int64) error {
	return d.v.prefetch(ctx, d.view, d.s.Size, off, n)
}

// snapshotInfos lists the snapshots, oldest first.
func (v *Volume) snapshotInfos() []SnapshotInfo {
	stored := v.cat.storedSeq()
	children := v.cat.now().Children
	v.mu.Lock()
	list := slices.DeleteFunc(slices.Clone(v.snapshots), func(s *snapshot) bool { return s.hidden })
	leaving := make([]bool, len(list))
	for i, s := range list {
		leaving[i] = s.leaving
	}
	v.mu.Unlock()
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
			Stored: s.Seq <= stored, Unsure: doubt && leaving[i], Children: v.host.names(of),
		})
	}
	return infos
}

// listedIn notes which snapshots have roots in the catalog.
func (v *Volume) listedIn(c *catalog.Catalog) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.snapshots {
		listed := c.Snapshot(s.ID)
		s.HasRoot = listed != nil && listed.HasRoot
	}
}
