package volumedriver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"openvstorage/volumedriver/registry"

	"github.com/google/uuid"
)

// List returns all vDisks in order of name, those of other hosts too. Of these it tells
// what the registry knows. If the registry does not answer soon, that is what it knew
// when it answered last.
func (h *Host) List(ctx context.Context) ([]Info, error) {
	h.elsewhere.look(ctx)
	infos := []Info{}
	for _, v := range h.table.all() {
		infos = append(infos, v.info())
	}
	for _, r := range h.table.foreigners() {
		infos = append(infos, foreignInfo(r))
	}
	slices.SortStableFunc(infos, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

// Info returns one vDisk, halted or not, or of another host: see List.
func (h *Host) Info(ctx context.Context, name string) (Info, error) {
	v, err := h.elsewhere.named(ctx, name)
	if r, ok := h.table.foreign(name); ok && errors.Is(err, ErrElsewhere) {
		return foreignInfo(r), nil
	}
	if err != nil {
		return Info{}, err
	}
	return v.info(), nil
}

// Create makes an empty vDisk of size bytes.
func (h *Host) Create(ctx context.Context, name string, size uint64) (Info, error) {
	if err := validateSize(size); err != nil {
		return Info{}, fmt.Errorf("vDisk %q: %w", name, err)
	}
	if err := h.names.available(ctx, name); err != nil {
		return Info{}, err
	}
	return h.creation.create(ctx, size, named(name))
}

// CreateAs is Create with a name that naming gives when everything else is made.
func (h *Host) CreateAs(ctx context.Context, size uint64, naming Naming) (Info, error) {
	return h.creation.create(ctx, size, naming)
}

// Clone makes a vDisk that begins as a snapshot of src, or as what src holds now if
// snap is "". No data is copied. What the snapshot holds must be in the backend: Clone
// waits for that without a lock. Meanwhile only the deletion of the snapshot and of src
// is refused.
func (h *Host) Clone(ctx context.Context, src, snap, dst string, progress func(done, total int64)) (Info, error) {
	if err := h.names.available(ctx, dst); err != nil {
		return Info{}, err
	}
	return h.creation.clone(ctx, src, snap, progress, named(dst))
}

// CloneAs is Clone with a name that naming gives when all is in the backend.
func (h *Host) CloneAs(ctx context.Context, src, snap string, progress func(done, total int64), naming Naming) (Info, error) {
	return h.creation.clone(ctx, src, snap, progress, naming)
}

// Delete deletes a vDisk that has no clones and is not in use. A halted vDisk can be
// deleted.
func (h *Host) Delete(ctx context.Context, name string) error {
	return h.deletion.delete(ctx, name, false, func(Info) error { return nil })
}

// ForceDelete is Delete of a vDisk that may be in use: every later request of its users
// fails.
func (h *Host) ForceDelete(ctx context.Context, name string) error {
	return h.deletion.delete(ctx, name, true, func(Info) error { return nil })
}

// DeleteIf is Delete, unless check returns an error. check is called when the name cannot
// pass to another vDisk any more, and the vDisk cannot get a snapshot.
func (h *Host) DeleteIf(ctx context.Context, name string, check func(Info) error) error {
	return h.deletion.delete(ctx, name, false, check)
}

// Rename gives a vDisk another name.
func (h *Host) Rename(ctx context.Context, old, name string) error {
	return h.names.rename(ctx, old, name)
}

// RenameBelow gives all vDisks whose names begin with from and a slash names that
// begin with to instead, and makes the change of what others keep beside the registry:
// all in one step that is durable on return, or nothing. A name that is taken refuses
// all, and so does a vDisk of which something is not known (ErrBusy): see SettleBelow. Users
// of the vDisks notice nothing.
func (h *Host) RenameBelow(ctx context.Context, from, to string, beside registry.Beside) error {
	return h.names.renameBelow(ctx, from, to, beside)
}

// SettleBelow returns when the outcome of each operation on a vDisk with a name below
// one of dirs is known. RenameBelow does not wait for that: its callers hold what others
// need, and wait here before they take it.
func (h *Host) SettleBelow(ctx context.Context, dirs ...string) error {
	return h.names.settleBelow(ctx, dirs...)
}

// Resize grows a vDisk to size bytes. Connected NBD clients see it when they
// connect again.
func (h *Host) Resize(ctx context.Context, name string, size uint64) error {
	v, done, err := h.managed(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	return v.resize(ctx, size)
}

// SnapshotCreate takes a snapshot, durable on return.
func (h *Host) SnapshotCreate(ctx context.Context, name, snap string) (SnapshotInfo, error) {
	if err := ValidateSnapshotName(snap); err != nil {
		return SnapshotInfo{}, err
	}
	v, done, err := h.managed(ctx, name)
	if err != nil {
		return SnapshotInfo{}, err
	}
	defer done()
	s, err := v.createSnapshot(ctx, snap, false)
	if err != nil {
		return SnapshotInfo{}, err
	}
	return SnapshotInfo{Name: s.Name, ID: s.ID, Size: s.Size, Created: s.Created}, nil
}

// SnapshotList returns the snapshots of a vDisk, oldest first.
func (h *Host) SnapshotList(ctx context.Context, name string) ([]SnapshotInfo, error) {
	v, err := h.elsewhere.named(ctx, name)
	if err != nil {
		return nil, err
	}
	return v.snapshotInfos(), nil
}

// SnapshotDelete deletes a snapshot that has no clones.
func (h *Host) SnapshotDelete(ctx context.Context, name, snap string) error {
	v, done, err := h.managed(ctx, name)
	if err != nil {
		return err
	}
	s, err := v.tree.named(snap)
	done()
	if err != nil {
		return err
	}
	return v.deleteSnapshot(ctx, s)
}

// Rollback makes a vDisk what a snapshot holds. It is refused while the vDisk is in use,
// since a cache of its user would not match the vDisk afterwards. Its snapshots may be in
// use.
func (h *Host) Rollback(ctx context.Context, name, snap string) error {
	return h.RollbackTold(ctx, name, snap, false, nil)
}

// ForceRollback is Rollback of a vDisk that may be in use. Every later read returns what
// the snapshot holds.
func (h *Host) ForceRollback(ctx context.Context, name, snap string) error {
	return h.RollbackTold(ctx, name, snap, true, nil)
}

// RollbackTold is Rollback, or with force ForceRollback, for callers that cache parts of
// the vDisk. It calls tell with the vDisk's id twice.
//
// The first call comes when the rollback waits for nothing any more but room and other
// management. No lock is held that a write, a flush or a growth of the vDisk needs, so
// that tell can write the cache back: those writes come before the rollback. If tell
// fails, nothing is changed.
//
// The second call comes when the rollback is made, or may have been made, and no lock is
// held. ctx may have ended by then.
func (h *Host) RollbackTold(ctx context.Context, name, snap string, force bool, tell func(ctx context.Context, id uuid.UUID) error) error {
	v, err := h.doubts.find(ctx, name)
	if err != nil {
		return err
	}
	if err := v.Err(); err != nil {
		return err
	}
	made, err := h.rollback(ctx, v, snap, force, func() error {
		if tell == nil {
			return nil
		}
		return tell(ctx, v.id)
	})
	if tell == nil || !made {
		return err
	}
	switch again := tell(ctx, v.id); {
	case again == nil:
		return err
	case err == nil:
		return fmt.Errorf("vDisk %q: rolled back, but programs that have its file mapped may still see the old content; unmap it: %w", v.Name(), again)
	default:
		return errors.Join(err, again)
	}
}

// rollback rolls a vDisk back, and reports whether it may have been rolled back. It calls
// ready as manageAfter does.
func (h *Host) rollback(ctx context.Context, v *Volume, snap string, force bool, ready func() error) (made bool, err error) {
	s, err := v.tree.pinNamed(snap)
	if err != nil {
		return false, err
	}
	defer v.unpin(s)
	if !force {
		v.users.waitUnused(ctx, false)
	}
	if err := v.gc.pause(ctx); err != nil {
		return false, err
	}
	defer v.gc.resume()
	_, done, err := v.manageAfter(ctx, func() error {
		if err := v.buf.WaitEntry(ctx, len(s.ID)); err != nil {
			return v.writeError(err)
		}
		return ready()
	})
	if err != nil {
		return false, err
	}
	defer done()
	opened, err := v.users.keepOut(force)
	if err != nil {
		return false, err
	}
	defer opened()
	return true, v.rollback(ctx, s)
}

// Sync returns when everything written to a vDisk so far is in the backend.
func (h *Host) Sync(ctx context.Context, name string, progress func(done, total int64)) error {
	v, err := h.doubts.find(ctx, name)
	if err == nil {
		err = v.sure()
	}
	if err != nil {
		return err
	}
	return v.Sync(ctx, progress)
}

// Checkpoint returns when a map that covers everything written to a vDisk so far is in
// the backend: a restart then reads no TLog for that.
func (h *Host) Checkpoint(ctx context.Context, name string) error {
	v, done, err := h.managed(ctx, name)
	if err != nil {
		return err
	}
	done()
	return v.store.checkpointTo(ctx, v.buf.Written())
}

// CloseTLog lets the storer store what was written to a vDisk so far. It does not wait
// for that.
func (h *Host) CloseTLog(name string) error {
	v, err := h.table.named(name)
	if err == nil {
		err = cmp.Or(v.sure(), v.Err())
	}
	if err != nil {
		return err
	}
	v.buf.CloseTLog()
	return nil
}

// managed finds a vDisk and takes its admin lock, which done gives back. The outcome of
// each earlier operation on the vDisk is known then.
func (h *Host) managed(ctx context.Context, name string) (*Volume, func(), error) {
	v, err := h.doubts.find(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	return v.manage(ctx)
}
