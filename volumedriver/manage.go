package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"openvstorage/backend"
	"openvstorage/sco"
	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/registry"

	"github.com/google/uuid"
)

// Create makes an empty vDisk of size bytes.
func (h *Host) Create(ctx context.Context, name string, size uint64) (Info, error) {
	if err := validateSize(size); err != nil {
		return Info{}, fmt.Errorf("vDisk %q: %w", name, err)
	}
	if err := h.free(ctx, name); err != nil {
		return Info{}, err
	}
	if err := h.structure.take(ctx); err != nil {
		return Info{}, err
	}
	defer h.structure.give()
	if err := h.nameIsFree(name); err != nil {
		return Info{}, err
	}
	id := uuid.New()
	c := &catalog.Catalog{
		Volume: id, Size: size, Created: time.Now().UTC(), NextSCO: 1, NextTLog: 1,
		Origins:    []catalog.Origin{{Volume: id}},
		Checkpoint: catalog.Checkpoint{NextPage: 1, Root: catalog.Root{Clusters: size / sco.ClusterSize}},
	}
	return h.bear(ctx, registry.Record{ID: id, Name: name, Created: c.Created}, c)
}

func (h *Host) nameIsFree(name string) error {
	if err := registry.ValidateName(name); err != nil {
		return fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	return h.notTaken(name)
}

func (h *Host) notTaken(name string) error {
	if _, err := h.volume(name); err == nil {
		return fmt.Errorf("vDisk %q: %w", name, ErrExists)
	}
	return nil
}

// bear makes the namespace with its first catalog, then the name, and opens
// the vDisk. What a crash in between leaves has no name and goes at the next
// start. While it is not known whether it got its name all stays: a vDisk that
// the registry knows must have its namespace. h.structure is held.
func (h *Host) bear(ctx context.Context, r registry.Record, c *catalog.Catalog) (Info, error) {
	undo := func(err error) (Info, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleMax)
		defer cancel()
		derr := h.opt.Backend.DeleteNamespace(ctx, r.ID.String())
		if errors.Is(derr, backend.ErrNamespaceNotFound) {
			derr = nil
		}
		return Info{}, errors.Join(fmt.Errorf("vDisk %q: %w", r.Name, err), derr, h.buffer.Discard(r.ID))
	}
	if err := h.opt.Backend.CreateNamespace(ctx, r.ID.String()); err != nil {
		return undo(err)
	}
	if err := h.buffer.Prepare(r.ID); err != nil {
		return undo(err)
	}
	r.Epoch, r.Owner = 1, h.opt.Owner
	c.Epoch, c.Epochs = r.Epoch, []catalog.EpochStart{{Epoch: r.Epoch}}
	c.NextObject = 1 + reserveAhead
	reserveNumbers(c, 1, 1)
	root, segments, err := catalog.Encode(c)
	if err != nil {
		return undo(err)
	}
	ns := h.opt.Backend.Namespace(r.ID.String())
	for _, s := range segments {
		if err := ns.Put(ctx, s.Name, s.Data); err != nil {
			return undo(err)
		}
	}
	if _, err := ns.PutIf(ctx, catalog.ObjectName, root, 0); err != nil {
		return undo(err)
	}
	err = h.opt.Registry.Register(ctx, r)
	if errors.Is(err, registry.ErrUnknownOutcome) {
		return h.birthUnknown(r, err)
	}
	if err != nil {
		return undo(registryError(err))
	}
	v := h.openOne(ctx, r, true)
	if v.unsure.Load() != nil {
		return v.info(), nil // it is made, and opens by itself
	}
	return v.info(), v.Err()
}

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
		i.State, i.Reason = StateHalted, h.Error()
	} else if cause := v.doubt.cause.Load(); cause != nil {
		i.Reason = fmt.Sprintf("management waits: whether the last change of its catalog took effect is not known: %v", *cause)
	}
	if u := v.unsure.Load(); u != nil {
		i.State, i.Reason = u.state, u.reason()
	}
	if v.buf != nil {
		backlog, local := v.buf.Backlog()
		i.Backlog, i.Local = uint64(backlog), uint64(local)
	}
	v.cat.Lock()
	i.Created = v.cat.Created
	children := v.cat.Children
	if v.self > 0 {
		o := v.cat.Origins[v.self-1]
		i.Parent = o.Volume.String() + "@" + o.Snapshot.String()
	}
	if i.Size == 0 {
		i.Size = v.cat.Size
	}
	v.cat.Unlock()
	i.Stored = uint64(v.count.stored.Load())
	i.Children = v.host.names(children)
	i.Snapshots = v.snapshotInfos()
	if v.self > 0 && v.m != nil {
		if p, s, err := v.parentSnapshot(); err == nil {
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
	if err := v.admin.take(ctx); err != nil {
		return nil, nil, err
	}
	err := v.sure()
	if err == nil {
		err = v.Err()
	}
	if err == nil {
		err = v.settle(ctx)
	}
	if err != nil {
		v.admin.give()
		return nil, nil, err
	}
	return v, v.admin.give, nil
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
		return fmt.Errorf("%w: %w", err, ErrInvalid)
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

func (v *Volume) setName(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.name = name
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
			return fmt.Errorf("%w: %w", err, k.kind)
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
	defer done()
	s, err := v.snapshotNamed(snap)
	if err != nil {
		return err
	}
	if v.snapshotInUse(s) {
		return fmt.Errorf("snapshot %s@%s is in use; disconnect its readers first: %w", name, snap, ErrBusy)
	}
	return v.deleteSnapshot(ctx, s)
}

// Rollback makes a vDisk what a snapshot holds.
func (h *Host) Rollback(ctx context.Context, name, snap string) error {
	v, done, err := h.managed(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	s, err := v.snapshotNamed(snap)
	if err != nil {
		return err
	}
	return v.rollback(ctx, s)
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

// Clone makes a vDisk that begins as a snapshot of another, or as what it
// holds now if snap is "". No data is copied; what the snapshot holds must be
// in the backend, which is waited for.
func (h *Host) Clone(ctx context.Context, src, snap, dst string, progress func(done, total int64)) (Info, error) {
	if err := h.free(ctx, dst); err != nil {
		return Info{}, err
	}
	if _, err := h.find(ctx, src); err != nil {
		return Info{}, err
	}
	if err := h.structure.take(ctx); err != nil {
		return Info{}, err
	}
	defer h.structure.give()
	if err := h.nameIsFree(dst); err != nil {
		return Info{}, err
	}
	v, err := h.volume(src)
	if err != nil {
		return Info{}, err
	}
	v, done, err := v.manage(ctx)
	if err != nil {
		return Info{}, err
	}
	defer done()
	if len(v.origins) > int(sco.MaxOrigin) {
		return Info{}, fmt.Errorf("vDisk %s is a clone of depth %d, the most there can be; copy it instead: %w", src, len(v.origins)-1, ErrInvalid)
	}
	id := uuid.New()
	var s *snapshot
	if snap != "" {
		s, err = v.snapshotNamed(snap)
	} else {
		s, err = v.createSnapshot(ctx, "clone-"+id.String(), true)
	}
	if err != nil {
		return Info{}, err
	}
	if err := v.syncTo(ctx, s.Seq, progress); err != nil {
		return Info{}, err
	}
	// The child is in the parent's catalog before the clone is visible: from
	// here on the snapshot stays.
	err = v.updateCatalog(ctx, func(c *catalog.Catalog) error {
		c.Children = append(c.Children, catalog.Child{Volume: id, Snapshot: s.ID})
		return nil
	})
	if errors.Is(err, ErrUnknownOutcome) {
		// Nobody can have seen the clone: it is known not to be there.
		h.dropLater(v, id)
		return Info{}, fmt.Errorf("clone of %s: its snapshot could not be held for sure: %v", src, err)
	}
	if err != nil {
		return Info{}, err
	}
	v.cat.Lock()
	origins := append([]catalog.Origin(nil), v.cat.Origins...)
	v.cat.Unlock()
	origins[len(origins)-1].Snapshot = s.ID
	c := &catalog.Catalog{
		Volume: id, Size: s.Size, Created: time.Now().UTC(), NextSCO: 1, NextTLog: 1,
		Origins:    append(origins, catalog.Origin{Volume: id}),
		Checkpoint: catalog.Checkpoint{Root: catalog.Root{Clusters: s.Size / sco.ClusterSize}},
	}
	info, err := h.bear(ctx, registry.Record{ID: id, Name: dst, Created: c.Created, Parent: v.id}, c)
	if err != nil && info.ID == uuid.Nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleMax)
		defer cancel()
		if v.forgetChild(ctx, id) != nil {
			h.dropLater(v, id)
		}
	}
	return info, err
}
