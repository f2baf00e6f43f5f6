package control

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// Attachment is a vDisk that is a block device of this machine.
type Attachment struct {
	VDisk    string    `json:"vdisk"`
	ID       uuid.UUID `json:"id"`
	Kind     string    `json:"kind"`   // "nbd" or "loop"
	Device   string    `json:"device"` // "" while it cannot be attached
	Link     string    `json:"link"`   // leads to the device, whichever that is
	ReadOnly bool      `json:"readOnly,omitempty"`
	Reason   string    `json:"reason,omitempty"` // why it is not attached
	Why      string    `json:"why,omitempty"`    // why it is a loop device, if that was not asked for

	BlockSize   uint32 `json:"blockSize"`             // bytes
	Connections int    `json:"connections,omitempty"` // these three are of NBD devices
	Timeout     uint32 `json:"timeoutSeconds,omitempty"`
	DeadTimeout uint32 `json:"reconnectTimeoutSeconds,omitempty"`
}

// AttachOptions say what block device a vDisk becomes. What is zero is left to
// the server.
type AttachOptions struct {
	Kind      string `json:"kind,omitempty"` // "nbd", "loop", or "auto": NBD if the kernel has it
	ReadOnly  bool   `json:"readOnly,omitempty"`
	BlockSize uint32 `json:"blockSize,omitempty"` // bytes

	// Of NBD devices: how many sockets, how long a request may take on one of
	// them, and how long requests wait for another one when all are dead.
	Connections int           `json:"connections,omitempty"`
	Timeout     time.Duration `json:"timeout,omitempty"`
	DeadTimeout time.Duration `json:"deadTimeout,omitempty"`
}

// Devices makes block devices of vDisks. What is attached stays so over
// restarts, until it is detached. All methods are safe for concurrent use.
type Devices interface {
	Attach(ctx context.Context, vdisk string, opt AttachOptions) (Attachment, error)
	// Detach refuses with ErrBusy while somebody uses the device, unless force is set.
	Detach(ctx context.Context, vdisk string, force bool) error
	Attached(ctx context.Context) ([]Attachment, error)
	// Resized shows the device of a vDisk, if it has one, its new size.
	Resized(ctx context.Context, vdisk string) error
}

type attachRequest struct {
	Name string `json:"name"`
	AttachOptions
}

type detachRequest struct {
	Name  string `json:"name"`
	Force bool   `json:"force,omitempty"`
}

var errNoDevices = fmt.Errorf("%w: this server makes no block devices", ErrInvalid)

func (s *Server) deviceRoutes(mux *http.ServeMux) {
	d := s.opt.Devices
	handle(s, mux, "vdisk/attach", func(ctx context.Context, r attachRequest, _ progressFunc) (Attachment, error) {
		if d == nil {
			return Attachment{}, errNoDevices
		}
		return d.Attach(ctx, r.Name, r.AttachOptions)
	})
	handle(s, mux, "vdisk/detach", func(ctx context.Context, r detachRequest, _ progressFunc) (done, error) {
		if d == nil {
			return done{}, errNoDevices
		}
		return done{}, d.Detach(ctx, r.Name, r.Force)
	})
	handle(s, mux, "vdisk/attached", func(ctx context.Context, _ struct{}, _ progressFunc) ([]Attachment, error) {
		if d == nil {
			return []Attachment{}, nil
		}
		return d.Attached(ctx)
	})
}

// Attach makes a block device of a vDisk.
func (c *Client) Attach(ctx context.Context, vdisk string, opt AttachOptions) (Attachment, error) {
	return call[Attachment](ctx, c, "vdisk/attach", attachRequest{vdisk, opt}, nil)
}

// Detach takes a vDisk's block device away, with force even one that is in use.
func (c *Client) Detach(ctx context.Context, vdisk string, force bool) error {
	_, err := call[done](ctx, c, "vdisk/detach", detachRequest{vdisk, force}, nil)
	return err
}

// Attached returns all vDisks that are attached, in order of name.
func (c *Client) Attached(ctx context.Context) ([]Attachment, error) {
	return call[[]Attachment](ctx, c, "vdisk/attached", struct{}{}, nil)
}
