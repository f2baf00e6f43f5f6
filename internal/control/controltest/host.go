// Package controltest is a control.Host made of a map: vDisks with names, sizes,
// snapshots and children, but no data. It is for tests of the protocol. Its error texts
// are not those of the product: scripts on a real host pin what users read.
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

	"openvstorage/internal/control"
	"openvstorage/internal/naming"
)

// Host is the fake. The zero value is empty and ready.
type Host struct {
	// Step, if set, is called before each step of a clone and of a sync; an
	// error ends the call.
	Step func(ctx context.Context, step int) error

	mu struct {
		sync.Mutex
		vdisks map[string]*control.Info
	}
}

// Steps is how many steps a clone and a sync report, of StepSize bytes each.
const (
	Steps    = 4
	StepSize = 1 << 20
)

func checkName(name string) error {
	if err := naming.Check(name); err != nil {
		return fmt.Errorf("%w: vDisk name %w; choose another", control.ErrInvalid, err)
	}
	return nil
}

func (h *Host) getLocked(name string) (*control.Info, error) {
	v := h.mu.vdisks[name]
	if v == nil {
		return nil, fmt.Errorf("vDisk %q: %w", name, control.ErrNotFound)
	}
	return v, nil
}

func (h *Host) addLocked(name string, size uint64, parent string) (control.Info, error) {
	if err := checkName(name); err != nil {
		return control.Info{}, err
	}
	if h.mu.vdisks[name] != nil {
		return control.Info{}, fmt.Errorf("vDisk %q: %w; choose another name", name, control.ErrExists)
	}
	if size == 0 || size%4096 != 0 {
		return control.Info{}, fmt.Errorf("%w: vDisk %q: cannot have %d bytes: the size is a multiple of 4096", control.ErrInvalid, name, size)
	}
	v := control.Info{Name: name, ID: uuid.New(), Size: size, State: control.StateRunning, Parent: parent, Epoch: 1, Created: time.Unix(1_700_000_000, 0).UTC()}
	if h.mu.vdisks == nil {
		h.mu.vdisks = map[string]*control.Info{}
	}
	h.mu.vdisks[name] = &v
	return v, nil
}

// Create implements control.Host, as the methods below do.
func (h *Host) Create(_ context.Context, name string, size uint64) (control.Info, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addLocked(name, size, "")
}

func (h *Host) List(context.Context) ([]control.Info, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []control.Info
	for _, name := range slices.Sorted(maps.Keys(h.mu.vdisks)) {
		list = append(list, *h.mu.vdisks[name])
	}
	return list, nil
}

func (h *Host) Info(_ context.Context, name string) (control.Info, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(name)
	if err != nil {
		return control.Info{}, err
	}
	return *v, nil
}

func (h *Host) Resize(_ context.Context, name string, size uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(name)
	if err != nil {
		return err
	}
	if size < v.Size {
		return fmt.Errorf("%w: vDisk %q: %d bytes, cannot shrink to %d", control.ErrInvalid, name, v.Size, size)
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
	v, err := h.getLocked(name)
	if err != nil {
		return err
	}
	if len(v.Children) > 0 {
		return fmt.Errorf("vDisk %q: %w: %s; delete those first", name, control.ErrHasChildren, strings.Join(v.Children, ", "))
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
	v, err := h.getLocked(oldName)
	if err != nil {
		return err
	}
	if err := checkName(newName); err != nil {
		return err
	}
	if h.mu.vdisks[newName] != nil {
		return fmt.Errorf("vDisk %q: %w; choose another name", newName, control.ErrExists)
	}
	delete(h.mu.vdisks, oldName)
	v.Name = newName
	h.mu.vdisks[newName] = v
	return nil
}

func snapshotIndex(v *control.Info, snap string) (int, error) {
	i := slices.IndexFunc(v.Snapshots, func(s control.SnapshotInfo) bool { return s.Name == snap })
	if i < 0 {
		return 0, fmt.Errorf("snapshot %q of vDisk %q: %w", snap, v.Name, control.ErrNotFound)
	}
	return i, nil
}

func (h *Host) SnapshotCreate(_ context.Context, name, snap string) (control.SnapshotInfo, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(name)
	if err != nil {
		return control.SnapshotInfo{}, err
	}
	if err := checkName(snap); err != nil {
		return control.SnapshotInfo{}, err
	}
	if _, err := snapshotIndex(v, snap); err == nil {
		return control.SnapshotInfo{}, fmt.Errorf("snapshot %q of vDisk %q: %w; choose another name", snap, name, control.ErrExists)
	}
	s := control.SnapshotInfo{Name: snap, ID: uuid.New(), Size: v.Size, Created: v.Created}
	v.Snapshots = append(slices.Clone(v.Snapshots), s)
	return s, nil
}

func (h *Host) SnapshotList(_ context.Context, name string) ([]control.SnapshotInfo, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(name)
	if err != nil {
		return nil, err
	}
	return slices.Clone(v.Snapshots), nil
}

func (h *Host) SnapshotDelete(_ context.Context, name, snap string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(name)
	if err != nil {
		return err
	}
	i, err := snapshotIndex(v, snap)
	if err != nil {
		return err
	}
	if children := v.Snapshots[i].Children; len(children) > 0 {
		return fmt.Errorf("snapshot %q of vDisk %q: %w: %s; delete those first", snap, name, control.ErrHasChildren, strings.Join(children, ", "))
	}
	v.Snapshots = slices.Delete(slices.Clone(v.Snapshots), i, i+1)
	return nil
}

func (h *Host) Rollback(_ context.Context, name, snap string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(name)
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

func (h *Host) Clone(ctx context.Context, src, snap, dst string, progress func(done, total int64)) (control.Info, error) {
	if err := h.steps(ctx, progress); err != nil {
		return control.Info{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.getLocked(src)
	if err != nil {
		return control.Info{}, err
	}
	i, parent := -1, src
	if snap != "" {
		if i, err = snapshotIndex(v, snap); err != nil {
			return control.Info{}, err
		}
		parent += "@" + snap
	}
	child, err := h.addLocked(dst, v.Size, parent)
	if err != nil {
		return control.Info{}, err
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
