package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"openvstorage/backend/local"
	"openvstorage/nbd"
	"openvstorage/volumedriver"
	"openvstorage/volumedriver/registry"
)

// openHost opens the vDisks of a data directory. A variable, so that tests of
// the command line can put another host in its place.
var openHost = openEmbedded

// embedded is the whole system in one process: the volume driver over a
// backend and a registry in the same data directory.
type embedded struct {
	*volumedriver.Host
	backend  *local.Store
	registry *registry.Local
}

func openEmbedded(ctx context.Context, o hostOptions) (_ host, err error) {
	e := &embedded{}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.closeStores())
		}
	}()
	if e.backend, err = local.Open(o.fs, filepath.Join(o.dir.Path, "backend"), local.Options{}); err != nil {
		return nil, err
	}
	if e.registry, err = registry.Open(o.fs, filepath.Join(o.dir.Path, "registry")); err != nil {
		return nil, err
	}
	e.Host, err = volumedriver.Open(ctx, volumedriver.Options{
		FS: o.fs, Dir: o.dir.Path,
		WriteBuffer: int64(o.writeBuffer), MapCache: int64(o.mapCache), UploadSlots: o.uploads,
		Backend: e.backend, Registry: e.registry, Owner: owner(), Logger: o.logger,
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// owner says in the registry which process opened a vDisk.
func owner() string {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown host"
	}
	return fmt.Sprintf("%.200s pid %d", name, os.Getpid())
}

// OpenDevice implements host.
func (e *embedded) OpenDevice(ctx context.Context, name string) (nbd.Device, func(), error) {
	return e.Host.OpenDevice(ctx, name)
}

// Close implements host: the vDisks first, then what they rest on.
func (e *embedded) Close(ctx context.Context) error {
	return errors.Join(e.Host.Close(ctx), e.closeStores())
}

func (e *embedded) closeStores() error {
	var errs []error
	if e.registry != nil {
		errs = append(errs, e.registry.Close())
	}
	if e.backend != nil {
		errs = append(errs, e.backend.Close())
	}
	return errors.Join(errs...)
}
