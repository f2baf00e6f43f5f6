package osdisk

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// descriptor is a file descriptor that may be closed while calls on it run.
//
// refs counts the running calls; closedBit is added once by close. The number
// is given back to the kernel by whoever brings refs down to closedBit, which
// cannot be before the last call that got in has left. A call that comes too
// late takes and drops a reference as well, so the sum can pass through
// closedBit several times; freed picks the one that closes.
type descriptor struct {
	fd    int
	refs  atomic.Int64
	freed atomic.Bool
}

const closedBit = 1 << 62

// acquire reports whether fd may be used until release. It costs one atomic add.
func (d *descriptor) acquire() bool {
	if d.refs.Add(1) < closedBit {
		return true
	}
	d.release()
	return false
}

func (d *descriptor) release() {
	if d.refs.Add(-1) == closedBit && d.freed.CompareAndSwap(false, true) {
		// Local file systems report nothing here that Datasync has not. EINTR
		// leaves the descriptor closed on Linux, so it is not tried again.
		unix.Close(d.fd)
	}
}

// close lets no further call in. It reports whether this call was the first.
func (d *descriptor) close() bool {
	for {
		n := d.refs.Load()
		if n >= closedBit {
			return false
		}
		// Hold a reference of our own, so that release does the closing.
		if d.refs.CompareAndSwap(n, n+1+closedBit) {
			d.release()
			return true
		}
	}
}
