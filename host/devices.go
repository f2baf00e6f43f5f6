package host

import (
	"context"
	"errors"

	"openvstorage/host/attach"
	"openvstorage/internal/control"
	"openvstorage/volumedriver"
)

// attachments shows block devices to the management socket.
type attachments struct{ *attach.Devices }

var _ control.Devices = attachments{}

// Attach implements control.Devices.
func (a attachments) Attach(ctx context.Context, vdisk string, opt control.AttachOptions) (control.Attachment, error) {
	at, err := a.Devices.Attach(ctx, vdisk, attach.Options(opt))
	return control.Attachment(at), deviceError(err)
}

// Detach implements control.Devices.
func (a attachments) Detach(ctx context.Context, vdisk string, force bool) error {
	return deviceError(a.Devices.Detach(ctx, vdisk, force))
}

// Attached implements control.Devices.
func (a attachments) Attached(ctx context.Context) ([]control.Attachment, error) {
	all, err := a.Devices.Attached(ctx)
	list := make([]control.Attachment, len(all))
	for i, at := range all {
		list[i] = control.Attachment(at)
	}
	return list, err
}

// deviceErrors are the kinds of errors of block devices, as the socket knows them.
var deviceErrors = []struct{ of, is error }{
	{attach.ErrNotFound, volumedriver.ErrNotFound},
	{attach.ErrInvalid, volumedriver.ErrInvalid},
	{attach.ErrBusy, volumedriver.ErrBusy},
}

// kindError is an error of another kind, too.
type kindError struct {
	error
	is error
}

func (e *kindError) Unwrap() []error { return []error{e.error, e.is} }

func deviceError(err error) error {
	for _, row := range deviceErrors {
		if errors.Is(err, row.of) {
			return &kindError{err, row.is}
		}
	}
	return err
}

// attachable are the vDisks of a host that can be attached: all.
type attachable struct{ host host }

// List implements attach.VDisks.
func (a attachable) List(ctx context.Context) ([]attach.VDisk, error) {
	infos, err := a.host.List(ctx)
	list := make([]attach.VDisk, len(infos))
	for i, v := range infos {
		list[i] = attach.VDisk{ID: v.ID, Name: v.Name, Size: v.Size}
	}
	return list, err
}

// Info implements attach.VDisks.
func (a attachable) Info(ctx context.Context, name string) (attach.VDisk, error) {
	v, err := a.host.Info(ctx, name)
	return attach.VDisk{ID: v.ID, Name: v.Name, Size: v.Size}, err
}

// grownHost tells the devices when the mount makes a vDisk grow.
type grownHost struct {
	host
	look func()
}

func (g grownHost) Resize(ctx context.Context, name string, size uint64) error {
	err := g.host.Resize(ctx, name, size)
	if err == nil {
		g.look()
	}
	return err
}
