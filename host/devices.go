package host

import (
	"context"
	"fmt"

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
	return control.Attachment(at), Kind(err)
}

// Detach implements control.Devices.
func (a attachments) Detach(ctx context.Context, vdisk string, force bool) error {
	return Kind(a.Devices.Detach(ctx, vdisk, force))
}

// Resized implements control.Devices.
func (a attachments) Resized(ctx context.Context, vdisk string) error {
	return Kind(a.Devices.Resized(ctx, vdisk))
}

// Attached implements control.Devices.
func (a attachments) Attached(ctx context.Context) ([]control.Attachment, error) {
	all, err := a.Devices.Attached(ctx)
	list := make([]control.Attachment, len(all))
	for i, at := range all {
		list[i] = control.Attachment(at)
	}
	return list, Kind(err)
}

// attachable are the vDisks that can be attached: all that this host has.
type attachable struct{ of *embedded }

// List implements attach.VDisks.
func (a attachable) List(ctx context.Context) ([]attach.VDisk, error) {
	infos, err := a.of.List(ctx)
	list := make([]attach.VDisk, 0, len(infos))
	for _, v := range infos {
		if v.State != volumedriver.StateElsewhere {
			list = append(list, attach.VDisk{ID: v.ID, Name: v.Name, Size: v.Size})
		}
	}
	return list, err
}

// Info implements attach.VDisks.
func (a attachable) Info(ctx context.Context, name string) (attach.VDisk, error) {
	v, err := a.of.Info(ctx, name)
	if err == nil && v.State == volumedriver.StateElsewhere {
		err = fmt.Errorf("vDisk %q: %w: %s", name, volumedriver.ErrElsewhere, v.Reason)
	}
	return attach.VDisk{ID: v.ID, Name: v.Name, Size: v.Size}, err
}
