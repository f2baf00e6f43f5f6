package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	albahere "openvstorage/alba/embedded"
	"openvstorage/alba/health"
	"openvstorage/internal/control"
	"openvstorage/internal/datadir"
	"openvstorage/volumedriver"
	"openvstorage/volumedriver/registry"
)

// heldHost is a host whose data directory may be replaced under it. Then nothing is
// begun that makes, names or removes vDisks and snapshots, and all that is listed says
// why. What is open goes on: writes wait when they need another file.
//
// It goes by what was seen last, and asks no disk: that might hang.
type heldHost struct {
	host
	check func() error // why not, by the last look at the data directory
}

func (h heldHost) refuse(do func() error) error {
	if err := h.check(); err != nil {
		return err
	}
	return do()
}

// told says in what is listed of a vDisk what became of its data directory.
func told(i volumedriver.Info, err error) volumedriver.Info {
	if err != nil && i.Reason == "" {
		i.Reason = err.Error()
	}
	return i
}

// List implements control.Host.
func (h heldHost) List(ctx context.Context) ([]volumedriver.Info, error) {
	list, err := h.host.List(ctx)
	replaced := h.check()
	for i := range list {
		list[i] = told(list[i], replaced)
	}
	return list, err
}

// Info implements control.Host.
func (h heldHost) Info(ctx context.Context, name string) (volumedriver.Info, error) {
	i, err := h.host.Info(ctx, name)
	if err != nil {
		return i, err
	}
	return told(i, h.check()), nil
}

// Create implements control.Host.
func (h heldHost) Create(ctx context.Context, name string, size uint64) (i volumedriver.Info, err error) {
	err = h.refuse(func() error { i, err = h.host.Create(ctx, name, size); return err })
	return i, err
}

// CreateAs implements host.
func (h heldHost) CreateAs(ctx context.Context, size uint64, naming volumedriver.Naming) (i volumedriver.Info, err error) {
	err = h.refuse(func() error { i, err = h.host.CreateAs(ctx, size, naming); return err })
	return i, err
}

// Clone implements control.Host.
func (h heldHost) Clone(ctx context.Context, src, snap, dst string, progress func(done, total int64)) (i volumedriver.Info, err error) {
	err = h.refuse(func() error { i, err = h.host.Clone(ctx, src, snap, dst, progress); return err })
	return i, err
}

// CloneAs implements host.
func (h heldHost) CloneAs(ctx context.Context, src, snap string, progress func(done, total int64), naming volumedriver.Naming) (i volumedriver.Info, err error) {
	err = h.refuse(func() error { i, err = h.host.CloneAs(ctx, src, snap, progress, naming); return err })
	return i, err
}

// Delete implements control.Host.
func (h heldHost) Delete(ctx context.Context, name string) error {
	return h.refuse(func() error { return h.host.Delete(ctx, name) })
}

// ForceDelete implements control.Host.
func (h heldHost) ForceDelete(ctx context.Context, name string) error {
	return h.refuse(func() error { return h.host.ForceDelete(ctx, name) })
}

// DeleteIf implements host.
func (h heldHost) DeleteIf(ctx context.Context, name string, check func(volumedriver.Info) error) error {
	return h.refuse(func() error { return h.host.DeleteIf(ctx, name, check) })
}

// Rename implements control.Host.
func (h heldHost) Rename(ctx context.Context, oldName, newName string) error {
	return h.refuse(func() error { return h.host.Rename(ctx, oldName, newName) })
}

// RenameBelow implements host.
func (h heldHost) RenameBelow(ctx context.Context, from, to string, with func(commit func(along []registry.Swap) error) error) error {
	return h.refuse(func() error { return h.host.RenameBelow(ctx, from, to, with) })
}

// SnapshotCreate implements control.Host.
func (h heldHost) SnapshotCreate(ctx context.Context, name, snap string) (i volumedriver.SnapshotInfo, err error) {
	err = h.refuse(func() error { i, err = h.host.SnapshotCreate(ctx, name, snap); return err })
	return i, err
}

// SnapshotDelete implements control.Host.
func (h heldHost) SnapshotDelete(ctx context.Context, name, snap string) error {
	return h.refuse(func() error { return h.host.SnapshotDelete(ctx, name, snap) })
}

// Rollback implements control.Host.
func (h heldHost) Rollback(ctx context.Context, name, snap string) error {
	return h.refuse(func() error { return h.host.Rollback(ctx, name, snap) })
}

// ForceRollback implements control.Host.
func (h heldHost) ForceRollback(ctx context.Context, name, snap string) error {
	return h.refuse(func() error { return h.host.ForceRollback(ctx, name, snap) })
}

// RollbackTold implements host.
func (h heldHost) RollbackTold(ctx context.Context, name, snap string, force bool, tell func(ctx context.Context, id uuid.UUID) error) error {
	return h.refuse(func() error { return h.host.RollbackTold(ctx, name, snap, force, tell) })
}

// Sync implements control.Host: it would wait for what cannot be done.
func (h heldHost) Sync(ctx context.Context, name string, progress func(done, total int64)) error {
	return h.refuse(func() error { return h.host.Sync(ctx, name, progress) })
}

// Collectors implements host.
func (h heldHost) Collectors() []prometheus.Collector {
	return append(h.host.Collectors(), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ovs_data_directory_replaced", Help: "1 if there is something else where the data directory was.",
	}, func() float64 {
		if h.check() != nil {
			return 1
		}
		return 0
	}))
}

// ALBA implements host.
func (h heldHost) ALBA() control.ALBA {
	if a := h.host.ALBA(); a != nil {
		return heldALBA{a, h.check}
	}
	return nil // not an interface that holds nil
}

// heldALBA is the backend of such a host.
type heldALBA struct {
	control.ALBA
	check func() error
}

// Status implements control.ALBA.
func (a heldALBA) Status(ctx context.Context) (albahere.Status, error) {
	s, err := a.ALBA.Status(ctx)
	if replaced := a.check(); err == nil && replaced != nil {
		s.Reasons = append([]string{replaced.Error()}, s.Reasons...)
		if s.Health == health.OK {
			s.Health = health.Degraded
		}
	}
	return s, err
}

// How often the data directory is looked at, and how often it is said again that it
// was replaced.
const (
	heldLook = time.Second
	heldTell = time.Minute
)

// held is what was seen of a data directory last.
type held struct{ replaced atomic.Pointer[error] }

func (h *held) check() error {
	if err := h.replaced.Load(); err != nil {
		return *err
	}
	return nil
}

// watch looks at the data directory until ctx ends, and says when it is replaced, and
// when it is back.
func (h *held) watch(ctx context.Context, dir *datadir.Directory, logger *slog.Logger) {
	tick := time.NewTicker(heldLook)
	defer tick.Stop()
	var said time.Time
	for {
		err := dir.Check()
		if err == nil {
			h.replaced.Store(nil)
		} else {
			h.replaced.Store(&err)
		}
		switch {
		case err != nil && time.Since(said) >= heldTell:
			said = time.Now()
			logger.Error("the data directory was replaced; writes wait when they need another file", "dir", dir.Path, "err", err)
		case err == nil && !said.IsZero():
			said = time.Time{}
			logger.Info("the data directory is back", "dir", dir.Path)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
