package host

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"openvstorage/internal/datadir"
	"openvstorage/volumedriver"
	"openvstorage/volumedriver/registry"
)

// refuse does something that makes, names or removes vDisks or snapshots, unless the
// data directory was replaced: then it fails and says why. What is open goes on; its
// writes wait when they need another file. refuse goes by what held saw last. It asks no
// disk, which might hang.
func (e *embedded) refuse(do func() error) error {
	if err := e.held.check(); err != nil {
		return err
	}
	return do()
}

// told adds to what is listed of a vDisk what became of its data directory.
func told(i volumedriver.Info, err error) volumedriver.Info {
	if err != nil && i.Reason == "" {
		i.Reason = err.Error()
	}
	return i
}

// List lists the vDisks, and says of each that the data directory was replaced, if it
// was.
func (e *embedded) List(ctx context.Context) ([]volumedriver.Info, error) {
	list, err := e.Host.List(ctx)
	replaced := e.held.check()
	for i := range list {
		list[i] = told(list[i], replaced)
	}
	return list, err
}

// Info returns what is known of a vDisk, and says that the data directory was replaced,
// if it was.
func (e *embedded) Info(ctx context.Context, name string) (volumedriver.Info, error) {
	i, err := e.Host.Info(ctx, name)
	if err != nil {
		return i, err
	}
	return told(i, e.held.check()), nil
}

// Create is that of the vDisks, unless the data directory was replaced.
func (e *embedded) Create(ctx context.Context, name string, size uint64) (i volumedriver.Info, err error) {
	err = e.refuse(func() error { i, err = e.Host.Create(ctx, name, size); return err })
	return i, err
}

// CreateAs is that of the vDisks, unless the data directory was replaced.
func (e *embedded) CreateAs(ctx context.Context, size uint64, naming volumedriver.Naming) (i volumedriver.Info, err error) {
	err = e.refuse(func() error { i, err = e.Host.CreateAs(ctx, size, naming); return err })
	return i, err
}

// Clone is that of the vDisks, unless the data directory was replaced.
func (e *embedded) Clone(ctx context.Context, src, snap, dst string, progress func(done, total int64)) (i volumedriver.Info, err error) {
	err = e.refuse(func() error { i, err = e.Host.Clone(ctx, src, snap, dst, progress); return err })
	return i, err
}

// CloneAs is that of the vDisks, unless the data directory was replaced.
func (e *embedded) CloneAs(ctx context.Context, src, snap string, progress func(done, total int64), naming volumedriver.Naming) (i volumedriver.Info, err error) {
	err = e.refuse(func() error { i, err = e.Host.CloneAs(ctx, src, snap, progress, naming); return err })
	return i, err
}

// Delete is that of the vDisks, unless the data directory was replaced.
func (e *embedded) Delete(ctx context.Context, name string) error {
	return e.refuse(func() error { return e.Host.Delete(ctx, name) })
}

// ForceDelete is that of the vDisks, unless the data directory was replaced.
func (e *embedded) ForceDelete(ctx context.Context, name string) error {
	return e.refuse(func() error { return e.Host.ForceDelete(ctx, name) })
}

// DeleteIf is that of the vDisks, unless the data directory was replaced.
func (e *embedded) DeleteIf(ctx context.Context, name string, check func(volumedriver.Info) error) error {
	return e.refuse(func() error { return e.Host.DeleteIf(ctx, name, check) })
}

// Rename is that of the vDisks, unless the data directory was replaced.
func (e *embedded) Rename(ctx context.Context, oldName, newName string) error {
	return e.refuse(func() error { return e.Host.Rename(ctx, oldName, newName) })
}

// RenameBelow is that of the vDisks, unless the data directory was replaced.
func (e *embedded) RenameBelow(ctx context.Context, from, to string, beside registry.Beside) error {
	return e.refuse(func() error { return e.Host.RenameBelow(ctx, from, to, beside) })
}

// SnapshotCreate is that of the vDisks, unless the data directory was replaced.
func (e *embedded) SnapshotCreate(ctx context.Context, name, snap string) (i volumedriver.SnapshotInfo, err error) {
	err = e.refuse(func() error { i, err = e.Host.SnapshotCreate(ctx, name, snap); return err })
	return i, err
}

// SnapshotDelete is that of the vDisks, unless the data directory was replaced.
func (e *embedded) SnapshotDelete(ctx context.Context, name, snap string) error {
	return e.refuse(func() error { return e.Host.SnapshotDelete(ctx, name, snap) })
}

// Rollback is that of the vDisks, unless the data directory was replaced.
func (e *embedded) Rollback(ctx context.Context, name, snap string) error {
	return e.refuse(func() error { return e.Host.Rollback(ctx, name, snap) })
}

// ForceRollback is that of the vDisks, unless the data directory was replaced.
func (e *embedded) ForceRollback(ctx context.Context, name, snap string) error {
	return e.refuse(func() error { return e.Host.ForceRollback(ctx, name, snap) })
}

// RollbackTold is that of the vDisks, unless the data directory was replaced.
func (e *embedded) RollbackTold(ctx context.Context, name, snap string, force bool, tell func(ctx context.Context, id uuid.UUID) error) error {
	return e.refuse(func() error { return e.Host.RollbackTold(ctx, name, snap, force, tell) })
}

// Sync is that of the vDisks, unless the data directory was replaced: then it would wait
// for what cannot be done.
func (e *embedded) Sync(ctx context.Context, name string, progress func(done, total int64)) error {
	return e.refuse(func() error { return e.Host.Sync(ctx, name, progress) })
}

// How often the data directory is looked at, and how often it is said again that it
// was replaced.
const (
	heldLook = time.Second
	heldTell = time.Minute
)

// held is what was seen of the data directory last.
type held struct{ replaced atomic.Pointer[error] }

// check is the error that says that the data directory was replaced, nil if it was not
// when it was looked at last.
func (h *held) check() error {
	if err := h.replaced.Load(); err != nil {
		return *err
	}
	return nil
}

// gauge shows to monitoring whether the data directory was replaced.
func (h *held) gauge() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ovs_data_directory_replaced", Help: "1 if there is something else where the data directory was.",
	}, func() float64 {
		if h.check() != nil {
			return 1
		}
		return 0
	})
}

// watch looks at the data directory until ctx ends, and logs when it was replaced, and
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
