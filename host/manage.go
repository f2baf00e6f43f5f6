package host

import (
	"context"

	"github.com/google/uuid"

	"openvstorage/internal/control"
	"openvstorage/volumedriver"
)

// managed shows the vDisks to the management socket. It turns our types and kinds of
// error into those of the protocol.
type managed struct {
	of *embedded
	// changed has the kernel write back and drop what it has of a vDisk's file in
	// memory, for those who map the file. A rollback calls it twice. The first call
	// keeps what was written to mapped pages from being written over what the snapshot
	// holds. The second is for pages that were read meanwhile.
	changed func(ctx context.Context, id uuid.UUID) error
}

var _ control.Host = managed{}

func info(v volumedriver.Info) control.Info {
	out := control.Info{
		Name: v.Name, ID: v.ID, Size: v.Size, State: v.State, Reason: v.Reason, Local: v.Local, Stored: v.Stored, Backlog: v.Backlog,
		Parent: v.Parent, Children: v.Children, Epoch: v.Epoch, Host: v.Host, Created: v.Created,
	}
	for _, s := range v.Snapshots {
		out.Snapshots = append(out.Snapshots, control.SnapshotInfo(s))
	}
	return out
}

// Create implements control.Host, as the methods below do.
func (m managed) Create(ctx context.Context, name string, size uint64) (control.Info, error) {
	v, err := m.of.Create(ctx, name, size)
	return info(v), Kind(err)
}

func (m managed) List(ctx context.Context) ([]control.Info, error) {
	all, err := m.of.List(ctx)
	list := make([]control.Info, len(all))
	for i, v := range all {
		list[i] = info(v)
	}
	return list, Kind(err)
}

func (m managed) Info(ctx context.Context, name string) (control.Info, error) {
	v, err := m.of.Info(ctx, name)
	return info(v), Kind(err)
}

func (m managed) Resize(ctx context.Context, name string, size uint64) error {
	return Kind(m.of.Resize(ctx, name, size))
}

func (m managed) Delete(ctx context.Context, name string) error { return Kind(m.of.Delete(ctx, name)) }

func (m managed) ForceDelete(ctx context.Context, name string) error {
	return Kind(m.of.ForceDelete(ctx, name))
}

func (m managed) Rename(ctx context.Context, oldName, newName string) error {
	return Kind(m.of.Rename(ctx, oldName, newName))
}

func (m managed) SnapshotCreate(ctx context.Context, name, snap string) (control.SnapshotInfo, error) {
	s, err := m.of.SnapshotCreate(ctx, name, snap)
	return control.SnapshotInfo(s), Kind(err)
}

func (m managed) SnapshotList(ctx context.Context, name string) ([]control.SnapshotInfo, error) {
	all, err := m.of.SnapshotList(ctx, name)
	list := make([]control.SnapshotInfo, len(all))
	for i, s := range all {
		list[i] = control.SnapshotInfo(s)
	}
	return list, Kind(err)
}

func (m managed) SnapshotDelete(ctx context.Context, name, snap string) error {
	return Kind(m.of.SnapshotDelete(ctx, name, snap))
}

func (m managed) Rollback(ctx context.Context, name, snap string) error {
	return Kind(m.of.RollbackTold(ctx, name, snap, false, m.changed))
}

func (m managed) ForceRollback(ctx context.Context, name, snap string) error {
	return Kind(m.of.RollbackTold(ctx, name, snap, true, m.changed))
}

func (m managed) Clone(ctx context.Context, src, snap, dst string, progress func(done, total int64)) (control.Info, error) {
	v, err := m.of.Clone(ctx, src, snap, dst, progress)
	return info(v), Kind(err)
}

func (m managed) Sync(ctx context.Context, name string, progress func(done, total int64)) error {
	return Kind(m.of.Sync(ctx, name, progress))
}
