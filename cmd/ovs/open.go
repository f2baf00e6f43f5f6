package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	albahere "openvstorage/alba/embedded"
	"openvstorage/arakoon"
	"openvstorage/arakoon/registrykeys"
	"openvstorage/arakoon/treekeys"
	"openvstorage/backend"
	"openvstorage/backend/local"
	"openvstorage/fusefs/filetree"
	"openvstorage/internal/control"
	"openvstorage/internal/disk"
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
	backend  store
	alba     *albahere.Backend // the backend, if it is that; else nil
	fs       disk.FS
	local    string        // the backend's directory, if it is one
	group    *arakoon.Node // the registry's
	registry *registry.Registry
}

// store is a backend that can be closed.
type store interface {
	backend.Store
	Close() error
}

func openEmbedded(ctx context.Context, o hostOptions) (_ host, err error) {
	e := &embedded{fs: o.fs}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.closeStores())
		}
	}()
	if err = e.openBackend(ctx, o); err != nil {
		return nil, err
	}
	if err = e.openRegistry(ctx, o); err != nil {
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

// Kinds of backend, as --backend names them.
const (
	backendALBA  = "alba"
	backendLocal = "local"
)

// openBackend opens the backend that the data directory has, or makes the one
// that is asked for.
func (e *embedded) openBackend(ctx context.Context, o hostOptions) error {
	kind, err := recordedBackend(o)
	if err != nil {
		return err
	}
	if kind == "" {
		kind = o.backend
	}
	switch {
	case kind == "":
		kind = backendALBA
	case o.backend != "" && o.backend != kind:
		return fmt.Errorf("data directory %s has the backend %q, not %q: leave --backend out, or use another --data and move vDisks with `ovs vdisk export` and `import`", o.dir.Path, kind, o.backend)
	}
	if kind == backendLocal {
		if o.alba.set() {
			return fmt.Errorf("data directory %s has the backend %q, and flags of %q were given: leave them out", o.dir.Path, kind, backendALBA)
		}
		e.local = filepath.Join(o.dir.Path, "backend")
		b, err := local.Open(o.fs, e.local, local.Options{})
		if err == nil {
			e.backend = b
		}
		return err
	}
	opt, err := o.alba.options(o)
	if err != nil {
		return err
	}
	if o.tune != nil {
		o.tune(&opt)
	}
	b, err := albahere.Open(ctx, opt)
	if err == nil {
		e.backend, e.alba = b, b
	}
	return err
}

// recordedBackend tells which backend a data directory has, "" for none yet.
func recordedBackend(o hostOptions) (string, error) {
	for kind, name := range map[string]string{backendLocal: "backend", backendALBA: filepath.Join("arakoon", "abm")} {
		_, err := o.fs.Stat(filepath.Join(o.dir.Path, name))
		switch {
		case err == nil:
			return kind, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
	}
	return "", nil
}

// openRegistry opens the registry on an Arakoon group of its own, in
// DIR/arakoon/registry. What an older release kept in DIR/registry is imported.
func (e *embedded) openRegistry(ctx context.Context, o hostOptions) (err error) {
	group := albahere.Options{FS: o.fs, Dir: o.dir.Path, ID: o.dir.ID, Logger: o.logger}
	if e.group, err = albahere.OpenGroup(group, "registry", nil); err != nil {
		return err
	}
	var node registrykeys.Node = e.group
	if o.node != nil {
		node = o.node(node)
	}
	keys := registrykeys.New(node)
	n, err := registry.Import(ctx, keys, o.fs, filepath.Join(o.dir.Path, "registry"))
	if err != nil {
		return err
	}
	if n > 0 {
		o.logger.Info("registry of an older release imported", "vdisks", n)
	}
	e.registry, err = registry.Open(ctx, keys)
	return err
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

// Collectors implements host.
func (e *embedded) Collectors() []prometheus.Collector {
	list := []prometheus.Collector{e.Host.Collector(), albahere.GroupCollector{Name: "registry", Node: e.group}}
	if e.alba != nil {
		list = append(list, e.alba)
	}
	return list
}

// FileKeys implements host.
func (e *embedded) FileKeys() filetree.Keys { return treekeys.New(e.group) }

// Space implements host. A backend in a directory has what its file system has,
// whoever takes it.
func (e *embedded) Space(ctx context.Context) (used, free uint64, err error) {
	if e.alba != nil {
		return e.alba.Space(ctx)
	}
	u, err := e.fs.Statfs(e.local)
	return u.Total - u.Free, u.Free, err
}

// ALBA implements host.
func (e *embedded) ALBA() control.ALBA {
	if e.alba == nil {
		return nil // not an interface that holds nil
	}
	return e.alba
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
	if e.group != nil {
		errs = append(errs, e.group.Close())
	}
	if e.backend != nil {
		errs = append(errs, e.backend.Close())
	}
	return errors.Join(errs...)
}
