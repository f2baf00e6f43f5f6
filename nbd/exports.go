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
	// Open returns the device called name, or an error that matches
	// fs.ErrNotExist. It is held until release is called, once. Its clients may
	// write if it is a device.Device. Its errors are turned into NBD errors by one
	// table (errno.go): the nearest of NBD to a syscall.Errno, else EIO. Devices get
	// ranges within their size.
	Open(ctx context.Context, name string) (dev device.Reader, release func(), err error)
	// List returns the exports in order of name.
	List(ctx context.Context) ([]Info, error)
}
