package control

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// States of a vDisk, as Info has them. There are others.
const (
	StateRunning   = "running"
	StateElsewhere = "elsewhere" // another host has it: of its sizes nothing is known here
)

// Info is what a user may know about a vDisk. All sizes are in bytes.
type Info struct {
	Name      string         `json:"name"`
	ID        uuid.UUID      `json:"id"`
	Size      uint64         `json:"size"`
	State     string         `json:"state"`
	Reason    string         `json:"reason,omitempty"` // why it is not running, or takes no management, and what to do
	Local     uint64         `json:"local"`            // SCOs and TLogs in the write buffer
	Stored    uint64         `json:"stored"`           // SCOs in the backend
	Backlog   uint64         `json:"backlog"`          // written and not in the backend yet
	Parent    string         `json:"parent,omitempty"` // NAME@SNAP that it was cloned from
	Children  []string       `json:"children,omitempty"`
	Snapshots []SnapshotInfo `json:"snapshots,omitempty"`
	Epoch     uint64         `json:"epoch"`
	Host      uuid.UUID      `json:"host"` // that has it
	Created   time.Time      `json:"created"`
}

// VDisk is what the protocol tells about a vDisk: what the Host knows, and where the
// vDisk is served.
type VDisk struct {
	Info
	URIs    []string `json:"uris"`              // NBD URIs
	Storage *Storage `json:"storage,omitempty"` // of one, in an ALBA backend; not in lists
}

// Storage is how stored data of a vDisk is kept secret.
type Storage struct {
	Preset string `json:"preset"`
	Cipher string `json:"cipher"`        // of what is in the backend
	Key    uint64 `json:"key,omitempty"` // number of the master key
	// Buffer is the cipher of the write buffer, which holds what was written lately.
	// Cipher does not apply there.
	Buffer string `json:"bufferCipher"`
}

// VDisks are the vDisks of a Host.
type VDisks interface {
	Create(ctx context.Context, name string, size uint64) (Info, error)
	List(ctx context.Context) ([]Info, error)
	Info(ctx context.Context, name string) (Info, error)
	Resize(ctx context.Context, name string, size uint64) error
	// Delete refuses a vDisk that is in use. ForceDelete does not: its users get errors.
	Delete(ctx context.Context, name string) error
	ForceDelete(ctx context.Context, name string) error
	Rename(ctx context.Context, oldName, newName string) error
	// Clone makes dst of a snapshot, or of the live vDisk if snap is "".
	Clone(ctx context.Context, src, snap, dst string, progress func(done, total int64)) (Info, error)
	// Sync returns when everything that was written before is in the backend.
	Sync(ctx context.Context, name string, progress func(done, total int64)) error
}

// Requests of vDisk calls.
type (
	nameRequest struct {
		Name string `json:"name"`
	}
	deleteRequest struct {
		Name  string `json:"name"`
		Force bool   `json:"force,omitempty"`
	}
	sizeRequest struct {
		Name string `json:"name"`
		Size uint64 `json:"size"`
	}
	renameRequest struct {
		Name    string `json:"name"`
		NewName string `json:"newName"`
	}
	cloneRequest struct {
		Name     string `json:"name"`
		Snapshot string `json:"snapshot,omitempty"`
		NewName  string `json:"newName"`
	}
)

func (s *Server) vdiskRoutes(mux *http.ServeMux) {
	h := s.opt.Host
	handle(s, mux, "vdisk/create", func(ctx context.Context, r sizeRequest, _ progressFunc) (VDisk, error) {
		return s.vdisk(h.Create(ctx, r.Name, r.Size))
	})
	handle(s, mux, "vdisk/list", func(ctx context.Context, _ struct{}, _ progressFunc) ([]VDisk, error) {
		infos, err := h.List(ctx)
		list := make([]VDisk, len(infos))
		for i, info := range infos {
			list[i] = VDisk{Info: info, URIs: s.opt.URIs(info.Name)}
		}
		return list, err
	})
	handle(s, mux, "vdisk/info", func(ctx context.Context, r nameRequest, _ progressFunc) (VDisk, error) {
		v, err := s.vdisk(h.Info(ctx, r.Name))
		if err == nil {
			v.Storage = s.stored(ctx, v.Info)
		}
		return v, err
	})
	handle(s, mux, "vdisk/resize", func(ctx context.Context, r sizeRequest, _ progressFunc) (done, error) {
		err := h.Resize(ctx, r.Name, r.Size)
		if err == nil && s.opt.Devices != nil {
			err = s.opt.Devices.Resized(ctx, r.Name)
		}
		return done{}, err
	})
	handle(s, mux, "vdisk/delete", func(ctx context.Context, r deleteRequest, _ progressFunc) (done, error) {
		if r.Force {
			return done{}, h.ForceDelete(ctx, r.Name)
		}
		return done{}, h.Delete(ctx, r.Name)
	})
	handle(s, mux, "vdisk/rename", func(ctx context.Context, r renameRequest, _ progressFunc) (done, error) {
		return done{}, h.Rename(ctx, r.Name, r.NewName)
	})
	handle(s, mux, "vdisk/clone", func(ctx context.Context, r cloneRequest, p progressFunc) (VDisk, error) {
		return s.vdisk(h.Clone(ctx, r.Name, r.Snapshot, r.NewName, p))
	})
	handle(s, mux, "vdisk/sync", func(ctx context.Context, r nameRequest, p progressFunc) (done, error) {
		return done{}, h.Sync(ctx, r.Name, p)
	})
}

func (s *Server) vdisk(info Info, err error) (VDisk, error) {
	return VDisk{Info: info, URIs: s.opt.URIs(info.Name)}, err
}

// stored tells how a vDisk is stored. Nil: that is not known, or there is no choice.
func (s *Server) stored(ctx context.Context, info Info) *Storage {
	if s.opt.ALBA == nil {
		return nil
	}
	storage, err := s.opt.ALBA.StorageOf(ctx, info.ID.String())
	if err != nil {
		return nil
	}
	return &storage
}

// Create makes a vDisk of size bytes.
func (c *Client) Create(ctx context.Context, name string, size uint64) (VDisk, error) {
	return call[VDisk](ctx, c, "vdisk/create", sizeRequest{Name: name, Size: size}, nil)
}

// List returns all vDisks, in order of name.
func (c *Client) List(ctx context.Context) ([]VDisk, error) {
	return call[[]VDisk](ctx, c, "vdisk/list", struct{}{}, nil)
}

// Info returns one vDisk.
func (c *Client) Info(ctx context.Context, name string) (VDisk, error) {
	return call[VDisk](ctx, c, "vdisk/info", nameRequest{Name: name}, nil)
}

// Resize grows a vDisk to size bytes.
func (c *Client) Resize(ctx context.Context, name string, size uint64) error {
	_, err := call[done](ctx, c, "vdisk/resize", sizeRequest{Name: name, Size: size}, nil)
	return err
}

// Delete removes a vDisk and its snapshots.
func (c *Client) Delete(ctx context.Context, name string) error {
	_, err := call[done](ctx, c, "vdisk/delete", deleteRequest{Name: name}, nil)
	return err
}

// ForceDelete removes a vDisk that may be in use.
func (c *Client) ForceDelete(ctx context.Context, name string) error {
	_, err := call[done](ctx, c, "vdisk/delete", deleteRequest{Name: name, Force: true}, nil)
	return err
}

// Rename gives a vDisk another name.
func (c *Client) Rename(ctx context.Context, oldName, newName string) error {
	_, err := call[done](ctx, c, "vdisk/rename", renameRequest{Name: oldName, NewName: newName}, nil)
	return err
}

// Clone makes vDisk dst of a snapshot of src, or of src as it is now if snap is "".
func (c *Client) Clone(ctx context.Context, src, snap, dst string, progress func(done, total int64)) (VDisk, error) {
	return call[VDisk](ctx, c, "vdisk/clone", cloneRequest{Name: src, Snapshot: snap, NewName: dst}, progress)
}

// Sync returns when everything that was written to the vDisk is in the backend.
func (c *Client) Sync(ctx context.Context, name string, progress func(done, total int64)) error {
	_, err := call[done](ctx, c, "vdisk/sync", nameRequest{Name: name}, progress)
	return err
}
