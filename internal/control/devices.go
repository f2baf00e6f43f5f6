package control

import (
	"context"
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"openvstorage/volumedriver"
)

// Attachment is a vDisk that is a block device of this machine.
type Attachment struct {
	VDisk    string    `json:"vdisk"`
	ID       uuid.UUID `json:"id"`
	Device   string    `json:"device"` // "" while it cannot be attached
	Link     string    `json:"link"`   // leads to the device, whichever that is
	ReadOnly bool      `json:"readOnly,omitempty"`
	Reason   string    `json:"reason,omitempty"` // why it is not attached
}

// Devices makes block devices of vDisks. What is attached stays so over
// restarts, until it is detached. All methods are safe for concurrent use.
type Devices interface {
	Attach(ctx context.Context, vdisk string, readOnly bool) (Attachment, error)
	Detach(ctx context.Context, vdisk string) error
	Attached(ctx context.Context) ([]Attachment, error)
}

type attachRequest struct {
	Name     string `json:"name"`
	ReadOnly bool   `json:"readOnly,omitempty"`
}

var errNoDevices = fmt.Errorf("%w: block devices are made over the files of a mount; start `ovs up` with --mount DIR, as root", volumedriver.ErrInvalid)

func (s *Server) deviceRoutes(mux *http.ServeMux) {
	d := s.opt.Devices
	handle(s, mux, "vdisk/attach", func(ctx context.Context, r attachRequest, _ progressFunc) (Attachment, error) {
		if d == nil {
			return Attachment{}, errNoDevices
		}
		return d.Attach(ctx, r.Name, r.ReadOnly)
	})
	handle(s, mux, "vdisk/detach", func(ctx context.Context, r nameRequest, _ progressFunc) (done, error) {
		if d == nil {
			return done{}, errNoDevices
		}
		return done{}, d.Detach(ctx, r.Name)
	})
	handle(s, mux, "vdisk/attached", func(ctx context.Context, _ struct{}, _ progressFunc) ([]Attachment, error) {
		if d == nil {
			return []Attachment{}, nil
		}
		return d.Attached(ctx)
	})
}

// Attach makes a block device of a vDisk.
func (c *Client) Attach(ctx context.Context, vdisk string, readOnly bool) (Attachment, error) {
	return call[Attachment](ctx, c, "vdisk/attach", attachRequest{vdisk, readOnly}, nil)
}

// Detach takes a vDisk's block device away. One that is in use goes with its
// last user.
func (c *Client) Detach(ctx context.Context, vdisk string) error {
	_, err := call[done](ctx, c, "vdisk/detach", nameRequest{Name: vdisk}, nil)
	return err
}

// Attached returns all vDisks that are attached, in order of name.
func (c *Client) Attached(ctx context.Context) ([]Attachment, error) {
	return call[[]Attachment](ctx, c, "vdisk/attached", struct{}{}, nil)
}
