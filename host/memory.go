package host

import (
	"context"
	"os"
	"runtime/debug"
	"time"
)

// Parts of the memory limit, in bytes.
const (
	// uploadMemory is what an upload holds: an SCO, and its fragments.
	uploadMemory = 40 << 20
	// otherMemory is for all else: groups, buffers of clients, indexes, and what
	// was let go of but not collected yet.
	otherMemory = 128 << 20
)

// limitMemory has garbage collected in time. What a server holds is bounded,
// mostly by its caches; left to itself Go would let as much again pile up before
// it looks for garbage. The limit is soft: it costs processor time when it is
// too low, and never makes anything fail. Who sets GOMEMLIMIT knows better.
func limitMemory(o Options) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit(o, 0))
	}
}

// memoryLimit is the limit while clients hold so much. It moves in steps, as to
// set it stops the world for an instant.
func memoryLimit(o Options, clients int64) int64 {
	const step = 32 << 20
	return int64(o.MapCache) + int64(o.Uploads)*uploadMemory + otherMemory + clients/step*step
}

// followClients raises the limit by what clients of NBD hold, until ctx ends.
// That is bounded by limits of its own, and no garbage: counted in, the limit
// would be passed for as long as they hold it, and Go would collect without end.
func followClients(ctx context.Context, o Options, held func() int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	const every = time.Second
	tick := time.NewTicker(every)
	defer tick.Stop()
	for last := memoryLimit(o, 0); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if limit := memoryLimit(o, held()); limit != last {
			debug.SetMemoryLimit(limit)
			last = limit
		}
	}
}
