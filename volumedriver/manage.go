package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"openvstorage/volumedriver/registry"
)

// List returns all vDisks in order of name.
func (h *Host) List(context.Context) ([]Info, error) {
	infos := []Info{}
	for _, v := range h.all() {
		infos = append(infos, v.info())
	}
	return infos, nil
}

// Info returns one vDisk, halted or not.
func (h *Host) Info(_ context.Context, name string) (Info, error) {
	v, err := h.volume(name)
	if err != nil {
		return Info{}, err
	}
	return v.info(), nil
}

func (v *Volume) info() Info {
	i := Info{Name: v.Name(), ID: v.id, Size: v.size.Load(), State: StateRunning, Epoch: v.epoch}
	if h := v.halted.Load(); h != nil {
		i.State, i.Reason = h.state(), h.reason()
	} else if cause := v.opening.waits.Load(); cause != nil {
		i.Reason = fmt.Sprintf("reads go on; writes, flushes and management wait, and go on by themselves when what was recovered at the start can be written: %v", *cause)
	} else if cause := v.cat.doubted(); cause != nil {
		i.Reason = fmt.Sprintf("management waits: whether the last change of its catalog took effect is not known: %v", *cause)
	} else if v.cat.inDoubt() {
		i.Reason = "management waits: a change of its catalog is under way that nobody waited for"
	}
	if i.Reason == "" {
		i.Reason = v.diskWaits.reason()
	}
	if u := v.unsure.Load(); u != nil {
		i.State, i.Reason = u.state, u.reason()
	}
	if v.buf != nil {
		backlog, local := v.buf.Backlog()
		i.Backlog, i.Local = uint64(backlog), uint64(local)
	}
	c := v.cat.current()
	i.Created = c.Created
	if v.self > 0 {
		o := c.Origins[v.self-1]
		i.Parent = o.Volume.String() + "@" + o.Snapshot.String()
	}
	if i.Size == 0 {
		i.Size = c.Size
	}
	i.Stored = uint64(v.count.stored.Load())
	i.Children = v.host.names(c.Children)
	i.Snapshots = v.snapshotInfos()
	if v.self > 0 && v.m != nil {
		if p, s, err := v.cat.parentSnapshot(); err == nil {
			i.Parent = p.Name() + "@" + s.Name
		}
	}
	return i
}

// managed finds a vDisk and takes its management lock. What became of earlier
// operations on it is known.
func (h *Host) managed(ctx context.Context, name string) (*Volume, func(), error) {
	v, err := h.find(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	return v.manage(ctx)
}

func (v *Volume) manage(ctx context.Context) (*Volume, func(), error) {
	return v.manageAfter(ctx, func() error { return nil })
}

// manageAfter is manage, which calls ready each time that nothing has to be waited
// for any more but others who have the lock.
func (v *Volume) manageAfter(ctx context.Context, ready func() error) (*Volume, func(), error) {
	for {
		if err := v.manageable(); err != nil {
			return nil, nil, err
		}
		if err := v.cat.settle(ctx); err != nil {
			return nil, nil, err
		}
		if err := ready(); err != nil {
			return nil, nil, err
		}
		if err := v.admin.take(ctx); err != nil {
			return nil, nil, err
		}
		err := v.manageable()
		if err == nil && !v.cat.inDoubt() {
			return v, v.admin.give, nil
		}
		v.admin.give()
		if err != nil {
			return nil, nil, err
		}
	}
}

// manageable says why a vDisk takes no management.
func (v *Volume) manageable() error {
	switch {
	case v.sure() != nil:
		return v.sure()
	case v.users.leaving():
		return fmt.Errorf("vDisk %q: %w", v.Name(), ErrNotFound)
	}
	return v.Err()
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

// Rename gives a vDisk another name.
func (h *Host) Rename(ctx context.Context, old, name string) error {
	if _, err := h.find(ctx, old); err != nil {
		return err
	}
	if err := h.free(ctx, name); err != nil {
		return err
	}
	if err := h.structure.take(ctx); err != nil {
		return err
	}
	defer h.structure.give()
	v, err := h.volume(old)
	if err != nil {
		return err
	}
	return h.rename(ctx, []renaming{{v: v, old: old, new: name}}, nil)
}

// RenameBelow gives all vDisks whose names begin with from and a slash names
// that begin with to instead, in one step that is durable on return; users of
// the vDisks notice nothing. A name that is taken refuses all. It calls with,
// which is to call commit, once, with what is to be swapped in the same step of
// what others keep beside the registry.
func (h *Host) RenameBelow(ctx context.Context, from, to string, with func(commit func(along []registry.Swap) error) error) error {
	for _, v := range h.below(from, to) {
		if err := h.settle(ctx, v); err != nil {
			return err
		}
	}
	if err := h.structure.take(ctx); err != nil {
		return err
	}
	defer h.structure.give()
	var list []renaming
	for _, v := range h.all() {
		name := v.Name()
		if rest, ok := strings.CutPrefix(name, from+"/"); ok {
			list = append(list, renaming{v, name, to + "/" + rest, to})
		}
	}
	return with(func(along []registry.Swap) error { return h.rename(ctx, list, along) })
}

// below are the vDisks that have, or may have, a name below one of dirs.
func (h *Host) below(dirs ...string) (list []*Volume) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, v := range h.byName {
		if slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasPrefix(name, dir+"/") }) {
			list = append(list, v)
		}
	}
	return list
}

// renaming gives a vDisk another name.
type renaming struct {
	v        *Volume
	old, new string
	dir      string // that the name begins with now, if it is a renaming of a directory
}

// validate returns nil if the vDisk may get the name. A name of an earlier release
// that is not one any more stands in no way of its directory's renaming.
func (r renaming) validate() error {
	err := registry.ValidateName(r.new)
	if err != nil && r.dir != "" && registry.ValidateName(r.old) != nil {
		if err = registry.ValidateName(r.dir); err == nil && len(r.new) > registry.NameMax {
			err = fmt.Errorf("%w: %.100q has %d bytes", registry.ErrName, r.new, len(r.new))
		}
	}
	if err != nil {
		return kinded{err: err, kind: ErrInvalid}
	}
	return nil
}

// rename makes renamings, durably first. h.structure is held.
func (h *Host) rename(ctx context.Context, list []renaming, along []registry.Swap) error {
	records := make([]registry.Renaming, len(list))
	for i, r := range list {
		if err := r.v.sure(); err != nil {
			return err
		}
		if err := r.validate(); err != nil {
			return err
		}
		if err := h.notTaken(r.new); err != nil {
			return err
		}
		records[i] = registry.Renaming{ID: r.v.id, Name: r.new}
	}
	err := h.opt.Registry.RenameAll(ctx, records, along)
	if errors.Is(err, registry.ErrUnknownOutcome) {
		h.namesUnknown(list, err)
		return fmt.Errorf("rename of %s: %w: %w", renamed(list), ErrUnknownOutcome, err)
	}
	if err != nil {
		return fmt.Errorf("rename of %s: %w", renamed(list), registryError(err))
	}
	h.mu.Lock()
	for _, r := range list {
		delete(h.byName, r.old)
		h.byName[r.new] = r.v
	}
	h.mu.Unlock()
	for _, r := range list {
		r.v.setName(r.new)
	}
	h.listed.Add(1)
	return nil
}

// renamed says what is renamed.
func renamed(list []renaming) string {
	switch len(list) {
	case 0:
		return "no vDisk"
	case 1:
		return fmt.Sprintf("vDisk %q", list[0].old)
	}
	return fmt.Sprintf("%d vDisks, the first %q", len(list), list[0].old)
}

// registryKinds are the kinds of the registry's errors.
var registryKinds = []struct{ err, kind error }{
	{registry.ErrNameTaken, ErrExists},
	{registry.ErrNotFound, ErrNotFound},
	{registry.ErrName, ErrInvalid},
	{registry.ErrMany, ErrInvalid},
	{registry.ErrFull, ErrBusy},
}

// registryError gives an error of the registry its kind.
func registryError(err error) error {
	for _, k := range registryKinds {
		if errors.Is(err, k.err) {
			return kinded{err: err, kind: k.kind}
		}
	}
	return err
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
func (h *Host) SnapshotList(_ context.Context, name string) ([]SnapshotInfo, error) {
	v, err := h.volume(name)
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

// Rollback makes a vDisk what a snapshot holds. Nobody may use the vDisk, but its
// snapshots: what a user has in a cache of its own is not what the vDisk holds
// then.
func (h *Host) Rollback(ctx context.Context, name, snap string) error {
	return h.RollbackTold(ctx, name, snap, false, nil)
}

// ForceRollback is Rollback also of a vDisk that is in use. What is read from it
// from then on is what the snapshot holds.
func (h *Host) ForceRollback(ctx context.Context, name, snap string) error {
	return h.RollbackTold(ctx, name, snap, true, nil)
}

// RollbackTold is Rollback, or with force ForceRollback, which has those told of it
// who keep something of the vDisk in memory. tell is called with the vDisk's id when
// the rollback waits for nothing any more but room and other management, and no lock
// is held that a write, a flush or a growth of the vDisk needs: what it has written is
// written before the rollback. If it fails nothing is changed. It is called again, with
// all locks given back, when the rollback is done or may be: ctx may have ended then.
func (h *Host) RollbackTold(ctx context.Context, name, snap string, force bool, tell func(ctx context.Context, id uuid.UUID) error) error {
	v, err := h.find(ctx, name)
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
		return fmt.Errorf("vDisk %q: rolled back, but who maps its file may see what it held before; unmap it: %w", v.Name(), again)
	default:
		return errors.Join(err, again)
	}
}

// rollback rolls a vDisk back, and reports whether it may have done so. It calls
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
	v, err := h.find(ctx, name)
	if err == nil {
		err = v.sure()
	}
	if err != nil {
		return err
	}
	return v.Sync(ctx, progress)
}
