package control

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// SnapshotInfo is what a user may know about a snapshot.
type SnapshotInfo struct {
	Name     string    `json:"name"`
	ID       uuid.UUID `json:"id"`
	Size     uint64    `json:"size"` // of the vDisk when it was taken
	Created  time.Time `json:"created"`
	Stored   bool      `json:"stored"`           // everything it holds is in the backend
	Unsure   bool      `json:"unsure,omitempty"` // it may be deleted: nobody can use it until that is known
	Children []string  `json:"children,omitempty"`
}

// Snapshots are the snapshots of vDisks.
type Snapshots interface {
	SnapshotCreate(ctx context.Context, name, snap string) (SnapshotInfo, error)
	SnapshotList(ctx context.Context, name string) ([]SnapshotInfo, error)
	SnapshotDelete(ctx context.Context, name, snap string) error
	// Rollback refuses a vDisk that is in use. ForceRollback does not: then its users
	// read what the snapshot holds.
	Rollback(ctx context.Context, name, snap string) error
	ForceRollback(ctx context.Context, name, snap string) error
}

// Requests of snapshot calls.
type (
	snapshotRequest struct {
		Name     string `json:"name"`
		Snapshot string `json:"snapshot"`
	}
	rollbackRequest struct {
		Name     string `json:"name"`
		Snapshot string `json:"snapshot"`
		Force    bool   `json:"force,omitempty"`
	}
)

func (s *Server) snapshotRoutes(mux *http.ServeMux) {
	h := s.opt.Host
	handle(s, mux, "vdisk/snapshot/create", func(ctx context.Context, r snapshotRequest, _ progressFunc) (SnapshotInfo, error) {
		return h.SnapshotCreate(ctx, r.Name, r.Snapshot)
	})
	handle(s, mux, "vdisk/snapshot/list", func(ctx context.Context, r nameRequest, _ progressFunc) ([]SnapshotInfo, error) {
		list, err := h.SnapshotList(ctx, r.Name)
		if list == nil {
			list = []SnapshotInfo{} // [] in JSON, not null
		}
		return list, err
	})
	handle(s, mux, "vdisk/snapshot/delete", func(ctx context.Context, r snapshotRequest, _ progressFunc) (done, error) {
		return done{}, h.SnapshotDelete(ctx, r.Name, r.Snapshot)
	})
	handle(s, mux, "vdisk/rollback", func(ctx context.Context, r rollbackRequest, _ progressFunc) (done, error) {
		if r.Force {
			return done{}, h.ForceRollback(ctx, r.Name, r.Snapshot)
		}
		return done{}, h.Rollback(ctx, r.Name, r.Snapshot)
	})
}

// SnapshotCreate takes a snapshot.
func (c *Client) SnapshotCreate(ctx context.Context, name, snap string) (SnapshotInfo, error) {
	return call[SnapshotInfo](ctx, c, "vdisk/snapshot/create", snapshotRequest{Name: name, Snapshot: snap}, nil)
}

// SnapshotList returns the snapshots of a vDisk, oldest first.
func (c *Client) SnapshotList(ctx context.Context, name string) ([]SnapshotInfo, error) {
	return call[[]SnapshotInfo](ctx, c, "vdisk/snapshot/list", nameRequest{Name: name}, nil)
}

// SnapshotDelete removes a snapshot.
func (c *Client) SnapshotDelete(ctx context.Context, name, snap string) error {
	_, err := call[done](ctx, c, "vdisk/snapshot/delete", snapshotRequest{Name: name, Snapshot: snap}, nil)
	return err
}

// Rollback brings a vDisk back to what a snapshot holds.
func (c *Client) Rollback(ctx context.Context, name, snap string) error {
	_, err := call[done](ctx, c, "vdisk/rollback", rollbackRequest{Name: name, Snapshot: snap}, nil)
	return err
}

// ForceRollback is Rollback of a vDisk that may be in use.
func (c *Client) ForceRollback(ctx context.Context, name, snap string) error {
	_, err := call[done](ctx, c, "vdisk/rollback", rollbackRequest{Name: name, Snapshot: snap, Force: true}, nil)
	return err
}
