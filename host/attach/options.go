package attach

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"openvstorage/internal/counted"
)

// Kinds of block devices, as Options and Attachment name them.
const (
	KindAuto = "auto"
	KindNBD  = "nbd"
	KindLoop = "loop"
)

// Bounds of Options, and the defaults of what they leave open.
const (
	// Two or four connections are worth it, more are not.
	ConnectionsDefault = 4
	connectionsMax     = 16
	// A request that a killed process had taken is sent again after this time. A shorter
	// time makes that wait shorter, but gives up connections whose backend is only slow.
	TimeoutDefault = 30 * time.Second
	// This is long enough for a restart of the services of a machine, or for somebody to
	// come and look.
	DeadTimeoutDefault = 5 * time.Minute
	// Images of disks are partitioned in blocks of 512 bytes, and the kernel reads a
	// partition table in blocks of the device.
	BlockSizeDefault = 512
	blockSizeMax     = 4096
)

// asked returns an attachment as it was asked for, with defaults.
func asked(opt Options) (attachment, error) {
	a := attachment{Kind: cmp.Or(opt.Kind, KindAuto), ReadOnly: opt.ReadOnly, BlockSize: cmp.Or(opt.BlockSize, BlockSizeDefault)}
	timed := opt.Connections != 0 || opt.Timeout != 0 || opt.DeadTimeout != 0
	if a.Kind == KindLoop && timed {
		return attachment{}, fmt.Errorf("%w: a loop device has no connections and no timeouts", ErrInvalid)
	}
	if a.Kind != KindLoop {
		a.Connections = cmp.Or(opt.Connections, ConnectionsDefault)
		a.Timeout = seconds(cmp.Or(opt.Timeout, TimeoutDefault))
		a.DeadTimeout = seconds(cmp.Or(opt.DeadTimeout, DeadTimeoutDefault))
	}
	if err := a.check(); err != nil {
		return attachment{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return a, nil
}

// seconds is a time in seconds, as it is recorded. It is 0 for a time that cannot be
// recorded.
func seconds(d time.Duration) uint32 {
	if d < time.Second || d%time.Second != 0 || d/time.Second > math.MaxInt32 {
		return 0
	}
	return uint32(d / time.Second)
}

// Check refuses options that no device can have. All of them must be given but the block
// size.
func (o Options) Check() error {
	return attachment{Kind: o.Kind, BlockSize: o.BlockSize, Connections: o.Connections, Timeout: seconds(o.Timeout), DeadTimeout: seconds(o.DeadTimeout)}.check()
}

// check refuses an attachment that no device can have.
func (a attachment) check() error {
	switch b := a.blockSize(); {
	case b < BlockSizeDefault || b > blockSizeMax || b&(b-1) != 0:
		return fmt.Errorf("block size %d: give 512, 1024, 2048 or 4096", b)
	case a.Kind == KindLoop:
		return nil
	case a.Kind != KindNBD && a.Kind != KindAuto:
		return fmt.Errorf("kind %q: give auto, nbd or loop", a.Kind)
	case a.Connections < 1 || a.Connections > connectionsMax:
		return fmt.Errorf("%s: give 1 to %d", counted.Of(a.Connections, "connection", "connections"), connectionsMax)
	case a.Timeout == 0 || a.DeadTimeout == 0:
		return fmt.Errorf("a timeout is whole seconds, 1s at least")
	}
	return nil
}

func (a attachment) blockSize() uint32 { return cmp.Or(a.BlockSize, BlockSizeDefault) }

// like reports whether an attachment is what is asked for. What is left open matches
// anything.
func (a attachment) like(opt Options) bool {
	return a.ReadOnly == opt.ReadOnly &&
		(opt.Kind == "" || opt.Kind == KindAuto || opt.Kind == a.Kind) &&
		(opt.BlockSize == 0 || opt.BlockSize == a.blockSize()) &&
		(opt.Connections == 0 || opt.Connections == a.Connections) &&
		(opt.Timeout == 0 || seconds(opt.Timeout) == a.Timeout) &&
		(opt.DeadTimeout == 0 || seconds(opt.DeadTimeout) == a.DeadTimeout)
}
