package osdisk

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// descriptor is a file descriptor that may be closed while calls on it run.
//
// refs counts the running calls, and close adds closedBit to it once. Whoever brings
// refs down to closedBit gives the number back to the kernel: that is not before the
// last running call has left. A call that comes after close takes and drops a
// reference as well, so refs can pass through closedBit several times. freed makes
// sure that only one of them closes.
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
