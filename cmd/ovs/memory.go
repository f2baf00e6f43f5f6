package main

import (
	"os"
	"runtime/debug"
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
func limitMemory(f upFlags) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(f.mapCache) + int64(f.uploads)*uploadMemory + otherMemory)
	}
}
