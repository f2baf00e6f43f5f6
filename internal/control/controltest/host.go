// Package controltest is a control.Host made of a map: vDisks with names,
// sizes, snapshots and children, but no data. Tests of the protocol and of the
// command line run against it.
package controltest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"openvstorage/internal/naming"
	"openvstorage/volumedriver"
)

// Host is the fake. The zero value is empty and ready.
type Host struct {
	// Halted makes a vDisk of this name refuse what writes.
	Halted string
	// Step, if set, is called before each step of a clone and of a sync; an
	// error ends the call.
	Step func(ctx context.Context, step int) error

	mu struct {
		sync.Mutex
		vdisks map[string]*volumedriver.Info
	}
}

// Steps is how many steps a clone and a sync report, of StepSize bytes each.
const (
	Steps    = 4
	StepSize = 1 << 20
)

func checkName(name string) error {
	if err := naming.Check(name); err != nil {
		return fmt.Errorf("%w: vDisk name %w; choose another", volumedriver.ErrInvalid, err)
	}
	return nil
}

// getLocked returns a vDisk, to be changed if change.
func (h *Host) getLocked(name string, change bool) (*volumedriver.Info, error) {
	v := h.mu.vdisks[name]
	if v == nil {
		return nil, fmt.Errorf("vDisk %q: %w", name, volumedriver.ErrNotFound)
	}
	if change && h.Halted == name {
		return nil, fmt.Errorf("vDisk %q: is %w: its disk is gone; restore it", name, volumedriver.ErrHalted)
	}
	return v, nil
}

func (h *Host) addLocked(name string, size uint64, parent string) (volumedriver.Info, error) {
	if err := checkName(name); err != nil {
		return volumedriver.Info{}, err
	}
	if h.mu.vdisks[name] != nil {
		return volumedriver.Info{}, fmt.Errorf("vDisk %q %w; choose another name", name, volumedriver.ErrExists)
	}
	if size == 0 || size%4096 != 0 {
		return volumedriver.Info{}, fmt.Errorf("%w: vDisk %q cannot have %d bytes: the size is a multiple of 4096", volumedriver.ErrInvalid, name, size)
	}
	v := volumedriver.Info{Name: name, ID: uuid.New(), Size: size, State: volumedriver.StateRunning, Parent: parent, Epoch: 1, Created: time.Unix(1_700_000_000, 0).UTC()}
	if name == h.Halted {
		v.State, v.Reason = volumedriver.StateHalted, "its disk is gone; restore it"
	}
	if h.mu.vdisks == nil {
		h.mu.vdisks = map[string]*volumedriver.Info{}
	}
	h.mu.vdisks[name] = &v
	return v, nil
}

// Create implements control.Host, as the methods below do.
func (h *Host) Create(_ context.Context, name string, size uint64) (volumedriver.Info, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addLocked(name, size, "")
}

func (h *Host) List(context.Context) ([]volumedriver.Info, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []volumedriver.Info
	for _, name := range slices.Sorted(maps.Keys(h.mu.vdisks)) {
		list = append(list, *h.mu.vdisks[name])
	}
	return list, nil
}

func (h *Host) Info(_ context.Context, name string) (volumedriver.Info, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(name, false)
	if err != nil {
		return volumedriver.Info{}, err
	}
	return *v, nil
}

func (h *Host) Resize(_ context.Context, name string, size uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(name, true)
	if err != nil {
		return err
	}
	if size < v.Size {
		return fmt.Errorf("%w: vDisk %q has %d bytes and cannot shrink to %d", volumedriver.ErrInvalid, name, v.Size, size)
	}
	v.Size = size
	return nil
}

func (h *Host) ForceDelete(ctx context.Context, name string) error { return h.Delete(ctx, name) }

func (h *Host) ForceRollback(ctx context.Context, name, snap string) error {
	return h.Rollback(ctx, name, snap)
}

func (h *Host) Delete(_ context.Context, name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(name, true)
	if err != nil {
		return err
	}
	if len(v.Children) > 0 {
		return fmt.Errorf("vDisk %q %w: %s; delete those first", name, volumedriver.ErrHasChildren, strings.Join(v.Children, ", "))
	}
	delete(h.mu.vdisks, name)
	for _, other := range h.mu.vdisks {
		other.Children = slices.DeleteFunc(other.Children, func(s string) bool { return s == name })
		for i := range other.Snapshots {
			s := &other.Snapshots[i]
			s.Children = slices.DeleteFunc(s.Children, func(s string) bool { return s == name })
		}
	}
	return nil
}

func (h *Host) Rename(_ context.Context, oldName, newName string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(oldName, true)
	if err != nil {
		return err
	}
	if err := checkName(newName); err != nil {
		return err
	}
	if h.mu.vdisks[newName] != nil {
		return fmt.Errorf("vDisk %q %w; choose another name", newName, volumedriver.ErrExists)
	}
	delete(h.mu.vdisks, oldName)
	v.Name = newName
	h.mu.vdisks[newName] = v
	return nil
}

func snapshotIndex(v *volumedriver.Info, snap string) (int, error) {
	i := slices.IndexFunc(v.Snapshots, func(s volumedriver.SnapshotInfo) bool { return s.Name == snap })
	if i < 0 {
		return 0, fmt.Errorf("snapshot %q of vDisk %q: %w", snap, v.Name, volumedriver.ErrNotFound)
	}
	return i, nil
}

func (h *Host) SnapshotCreate(_ context.Context, name, snap string) (volumedriver.SnapshotInfo, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(name, true)
	if err != nil {
		return volumedriver.SnapshotInfo{}, err
	}
	if err := checkName(snap); err != nil {
		return volumedriver.SnapshotInfo{}, err
	}
	if _, err := snapshotIndex(v, snap); err == nil {
		return volumedriver.SnapshotInfo{}, fmt.Errorf("snapshot %q of vDisk %q %w; choose another name", snap, name, volumedriver.ErrExists)
	}
	s := volumedriver.SnapshotInfo{Name: snap, ID: uuid.New(), Size: v.Size, Created: v.Created}
	v.Snapshots = append(slices.Clone(v.Snapshots), s)
	return s, nil
}

func (h *Host) SnapshotList(_ context.Context, name string) ([]volumedriver.SnapshotInfo, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(name, false)
	if err != nil {
		return nil, err
	}
	return slices.Clone(v.Snapshots), nil
}

func (h *Host) SnapshotDelete(_ context.Context, name, snap string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(name, true)
	if err != nil {
		return err
	}
	i, err := snapshotIndex(v, snap)
	if err != nil {
		return err
	}
	if children := v.Snapshots[i].Children; len(children) > 0 {
		return fmt.Errorf("snapshot %q of vDisk %q %w: %s; delete those first", snap, name, volumedriver.ErrHasChildren, strings.Join(children, ", "))
	}
	v.Snapshots = slices.Delete(slices.Clone(v.Snapshots), i, i+1)
	return nil
}

func (h *Host) Rollback(_ context.Context, name, snap string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(name, true)
	if err != nil {
		return err
	}
	_, err = snapshotIndex(v, snap)
	return err
}

func (h *Host) steps(ctx context.Context, progress func(done, total int64)) error {
	for i := range Steps {
		if h.Step != nil {
			if err := h.Step(ctx, i); err != nil {
				return err
			}
		}
		progress(int64(i+1)*StepSize, Steps*StepSize)
	}
	return ctx.Err()
}

func (h *Host) Clone(ctx context.Context, src, snap, dst string, progress func(done, total int64)) (volumedriver.Info, error) {
	if err := h.steps(ctx, progress); err != nil {
		return volumedriver.Info{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(src, true)
	if err != nil {
		return volumedriver.Info{}, err
	}
	i, parent := -1, src
	if snap != "" {
		if i, err = snapshotIndex(v, snap); err != nil {
			return volumedriver.Info{}, err
		}
		parent += "@" + snap
	}
	child, err := h.addLocked(dst, v.Size, parent)
	if err != nil {
		return volumedriver.Info{}, err
	}
	v.Children = append(slices.Clone(v.Children), dst)
	if i >= 0 {
		v.Snapshots = slices.Clone(v.Snapshots)
		v.Snapshots[i].Children = append(slices.Clone(v.Snapshots[i].Children), dst)
	}
	return child, nil
}

func (h *Host) Sync(ctx context.Context, name string, progress func(done, total int64)) error {
	if _, err := h.Info(ctx, name); err != nil {
		return err
	}
	return h.steps(ctx, progress)
}
