// Package attach makes block devices of vDisks, for `ovs vdisk attach`: NBD
// devices of the kernel on sockets of our own server, or loop devices over the
// files of the mount. It records which vDisks are attached, so that the next
// start attaches them again, and keeps for each a link that leads to its device.
//
// It knows of vDisks what VDisks tells it, and nothing of where their data is.
package attach

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
)

// Kinds of error, matched with errors.Is.
var (
	// ErrNotFound: the vDisk is not attached.
	ErrNotFound = errors.New("not found")
	// ErrInvalid: the request can never succeed on this machine as it is.
	ErrInvalid = errors.New("invalid request")
	// ErrBusy: somebody uses the device, or this process is stopping.
	ErrBusy = errors.New("busy")
)

// VDisk is what this package needs to know of a vDisk.
type VDisk struct {
	ID   uuid.UUID
	Name string
	Size uint64 // bytes
}

// VDisks are the vDisks that can be attached. Both methods are called while other
// calls of Devices wait.
type VDisks interface {
	// List returns all vDisks.
	List(ctx context.Context) ([]VDisk, error)
	// Info returns the vDisk of a name. If there is none, the caller of Devices gets its
	// error as it is.
	Info(ctx context.Context, name string) (VDisk, error)
}

// Attachment is a vDisk that is a block device of this machine.
type Attachment struct {
	VDisk    string
	ID       uuid.UUID
	Kind     string // KindNBD or KindLoop
	Device   string // "" while it cannot be attached
	Link     string // leads to the device, whichever that is
	ReadOnly bool
	Reason   string // why it is not attached
	Why      string // why it is a loop device, if that was not asked for

	BlockSize   uint32 // bytes
	Connections int    // these three are of NBD devices
	Timeout     uint32 // seconds
	DeadTimeout uint32 // seconds
}

// Options say what block device a vDisk becomes. What is zero is left to Devices.
type Options struct {
	Kind      string // KindNBD, KindLoop, or KindAuto: NBD if the kernel has it
	ReadOnly  bool
	BlockSize uint32 // bytes

	// Of NBD devices: how many sockets, how long a request may take on one of
	// them, and how long requests wait for another one when all are dead.
	Connections int
	Timeout     time.Duration
	DeadTimeout time.Duration
}
