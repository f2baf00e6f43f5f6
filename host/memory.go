package host

import (
	"context"
	"os"
	"runtime/debug"
	"time"
)

// Parts of the memory limit, in bytes.
const (
	// uploadMemory is what an upload holds: an SCO and its fragments.
	uploadMemory = 40 << 20
	// otherMemory is for everything else: groups, buffers of clients, indexes, and
	// garbage that was not collected yet.
	otherMemory = 128 << 20
)

// limitMemory has garbage collected in time. What a server holds is bounded, mostly by
// its caches. Without a limit Go would let as much garbage again pile up before it
// collects. The limit is soft: too low a limit costs processor time, and never makes
// anything fail. If GOMEMLIMIT is set, its limit counts.
func limitMemory(o Options) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit(o, 0))
	}
}

// memoryLimit is the limit in bytes while clients hold so many bytes. It moves in steps,
// because setting it stops the world for an instant.
func memoryLimit(o Options, clients int64) int64 {
	const step = 32 << 20
	return int64(o.MapCache) + int64(o.Uploads)*uploadMemory + otherMemory + clients/step*step
}

// followClients raises the limit by what clients of NBD hold, until ctx ends. Their
// memory has bounds of its own, and is not garbage. If it counted against the limit, the
// limit would be passed for as long as clients hold it, and Go would collect without
// end.
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
