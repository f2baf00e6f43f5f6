package nbd

import (
	"context"

	"openvstorage/device"
)

// Info describes an export to NBD_OPT_LIST.
type Info struct {
	Name        string
	Description string
}

// Exports finds devices by export name.
type Exports interface {
	// Open returns the device called name, or an error that matches fs.ErrNotExist.
	// The device is held until release is called, which happens once. Clients may write
	// to it if it is a device.Device. ErrnoOf turns its errors into those of NBD. It
	// gets only ranges within its size.
	Open(ctx context.Context, name string) (dev device.Reader, release func(), err error)
	// List returns the exports in order of name.
	List(ctx context.Context) ([]Info, error)
}
