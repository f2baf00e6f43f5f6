// Package host is what runs on a host. `ovs up` serves the vDisks of one data directory:
// this package opens backend, registry and groups, on which vDisks rest, and ties the
// vDisks to NBD, the mount, block devices, metrics and the management socket.
//
// All parts meet here. So this package may import all that is below it, and only the
// command line imports this package.
package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/google/uuid"

	albahere "openvstorage/alba/embedded"
	"openvstorage/device"
	"openvstorage/host/members"
	"openvstorage/host/registrykeys"
	"openvstorage/internal/datadir"
	"openvstorage/internal/descriptors"
	"openvstorage/internal/disk"
	"openvstorage/internal/size"
	"openvstorage/nbd"
	"openvstorage/volumedriver"
)

// openOptions say how the vDisks of a data directory are opened.
type openOptions struct {
	fs          disk.FS
	dir         *datadir.Directory
	spare       *spare // what gives way; nil: what there is
	writeBuffer size.Bytes
	mapCache    size.Bytes
	uploads     int
	readWait    time.Duration      // as volumedriver.Options have it
	files       descriptors.Budget // who may have how many files open; zero: defaults
	backend     string             // kind, "" for what the directory has
	shared      bool               // other processes may use the backend
	proxies     []string           // sockets of the process that has the backend, if another one has
	alba        ALBA
	acceptOlder bool // go on with a data directory that is older than its disks
	logger      *slog.Logger
	tune        func(*albahere.Options) // sizes and times of tests; nil: none
	// node, for tests, is put between the registry and its group; nil: nothing is.
	node func(registrykeys.Node) registrykeys.Node
	// members are the groups' members of a host that others can join; nil: nobody can.
	members *members.Members
	// remote is the way to disks of other hosts; nil: none is reached.
	remote func(node string, id uuid.UUID) (albahere.Remote, error)
	zone   string // of this host, to placement; "": none
}

// exports shows the vDisks and snapshots to the NBD server.
type exports struct{ of *embedded }

var _ nbd.Exports = exports{}

// Open implements nbd.Exports. An absent vDisk and a name that no vDisk can
// have are the same to an NBD client.
func (e exports) Open(ctx context.Context, name string) (device.Reader, func(), error) {
	dev, release, err := e.of.OpenDevice(ctx, name)
	switch {
	case errors.Is(err, volumedriver.ErrNotFound), errors.Is(err, volumedriver.ErrInvalid):
		return nil, nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case err != nil:
		return nil, nil, err
	}
	return dev, release, nil
}

// List implements nbd.Exports.
func (e exports) List(ctx context.Context) ([]nbd.Info, error) {
	names, err := e.of.Exports(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]nbd.Info, len(names))
	for i, name := range names {
		list[i].Name = name
	}
	return list, nil
}
