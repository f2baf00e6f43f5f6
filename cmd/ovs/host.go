package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	albahere "openvstorage/alba/embedded"
	"openvstorage/arakoon/registrykeys"
	"openvstorage/fusefs/filetree"
	"openvstorage/internal/control"
	"openvstorage/internal/datadir"
	"openvstorage/internal/descriptors"
	"openvstorage/internal/disk"
	"openvstorage/internal/size"
	"openvstorage/nbd"
	"openvstorage/volumedriver"
	"openvstorage/volumedriver/registry"
)

// host is what `ovs up` serves: the vDisks of one data directory, to the
// management socket and to NBD.
type host interface {
	control.Host
	// OpenDevice returns the vDisk NAME, or the snapshot NAME@SNAP (read-only).
	// It is held until release is called, once.
	OpenDevice(ctx context.Context, name string) (dev nbd.Device, release func(), err error)
	// Exports returns the names that OpenDevice knows, sorted.
	Exports(ctx context.Context) ([]string, error)
	// Stat, StatID and Stats tell what a file system shows of vDisks, and Listed
	// counts what makes others of their names. They wait for no I/O.
	Stat(ctx context.Context, name string) (volumedriver.Stat, error)
	StatID(ctx context.Context, id uuid.UUID) (volumedriver.Stat, error)
	Stats(ctx context.Context) []volumedriver.Stat
	Listed() uint64
	Collectors() []prometheus.Collector
	// CreateAs and CloneAs make a vDisk whose name is given when it is needed.
	CreateAs(ctx context.Context, size uint64, naming volumedriver.Naming) (volumedriver.Info, error)
	CloneAs(ctx context.Context, src, snap string, progress func(done, total int64), naming volumedriver.Naming) (volumedriver.Info, error)
	// DeleteIf deletes a vDisk unless check fails for what it is then.
	DeleteIf(ctx context.Context, name string, check func(volumedriver.Info) error) error
	// RollbackTold is Rollback or, with force, ForceRollback, which tells before and
	// after those who keep something of the vDisk in memory.
	RollbackTold(ctx context.Context, name, snap string, force bool, tell func(ctx context.Context, id uuid.UUID) error) error
	// RenameBelow renames all vDisks below a directory in one step, with keys that
	// are kept beside the registry.
	RenameBelow(ctx context.Context, from, to string, with func(commit func(along []registry.Swap) error) error) error
	// Space is the room for data in bytes, parity not counted.
	Space(ctx context.Context) (used, free uint64, err error)
	// FileKeys are the keys of what a mount keeps beside the vDisks.
	FileKeys() filetree.Keys
	// ALBA is the backend of the vDisks, nil if it is of another kind.
	ALBA() control.ALBA
	// Close ends all of it. What was flushed is durable already (P1); a clean
	// close makes all that was written so.
	Close(ctx context.Context) error
}

// hostOptions say how a host is opened.
type hostOptions struct {
	fs          disk.FS
	dir         *datadir.Directory
	spare       *spare // what gives way; nil: what there is
	writeBuffer size.Bytes
	mapCache    size.Bytes
	uploads     int
	readWait    time.Duration      // as volumedriver.Options have it
	files       descriptors.Budget // who may have how many files open; zero: defaults
	backend     string             // kind, "" for what the directory has
	alba        albaFlags
	acceptOlder bool // go on with a data directory that is older than its disks
	logger      *slog.Logger
	tune        func(*albahere.Options) // sizes and times of tests; nil: none
	// node is put between the registry and its group; nil: nothing is. For tests.
	node func(registrykeys.Node) registrykeys.Node
}

// exports shows a host's vDisks and snapshots to the NBD server.
type exports struct{ host host }

var _ nbd.Exports = exports{}

// Open implements nbd.Exports. An absent vDisk and a name that no vDisk can
// have are the same to an NBD client.
func (e exports) Open(ctx context.Context, name string) (nbd.Device, func(), error) {
	dev, release, err := e.host.OpenDevice(ctx, name)
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
	names, err := e.host.Exports(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]nbd.Info, len(names))
	for i, name := range names {
		list[i].Name = name
	}
	return list, nil
}
