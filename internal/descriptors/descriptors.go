// Package descriptors shares out how many files, sockets among them, a process may have
// open. Storage and management come first, clients last: a client that is refused can
// come again later, but a vDisk that cannot open its next file would stop.
package descriptors

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Least is how many open files a process needs to serve anybody.
const Least = 256

// Budget says how many files each user may have open.
type Budget struct {
	Limit    int // of the process
	Buffer   int // files of the write buffer
	Segments int // segments of ASDs that are open for reading, of all ASDs
	Clients  int // connections of NBD
	Reserve  int // all else: groups, the map, management, block devices, the mount
	Calls    int // of the reserve: management calls at once, each of two connections
	Scrapers int // of the reserve: connections of metrics
}

// Plenty is the limit from which on segments get half of it: their number grows with
// the data.
const Plenty = 16384

// Divide shares out limit. It is a pure function.
func Divide(limit int) (Budget, error) {
	if limit < Least {
		return Budget{}, fmt.Errorf("this process may have %d files open, it needs at least %d: raise the limit (LimitNOFILE in a unit, `ulimit -n` in a shell)", limit, Least)
	}
	b := Budget{Limit: limit, Buffer: limit / 4, Segments: limit / 4, Clients: limit / 4}
	if limit >= Plenty {
		b.Buffer, b.Segments, b.Clients = limit/8, limit/2, limit/8
	}
	b.Reserve = limit - b.Buffer - b.Segments - b.Clients
	b.Calls, b.Scrapers = min(64, b.Reserve/16), min(64, b.Reserve/8)
	return b, nil
}

// Raise raises the limit of this process as far as it may be raised, and returns it. Go
// does the same at the start of most programs, but nothing relies on that.
func Raise() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	if limit.Cur < limit.Max {
		raised := unix.Rlimit{Cur: limit.Max, Max: limit.Max}
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &raised) == nil {
			limit.Cur = limit.Max
		}
	}
	return int(min(limit.Cur, 1<<30)), nil
}
