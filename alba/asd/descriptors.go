package asd

import (
	"sync"
	"sync/atomic"

	"openvstorage/internal/disk"

	"golang.org/x/sys/unix"
)

// Descriptors bounds how many segment files are open for reading, over all the ASDs
// that share it. When there are more segments than that, it closes those that were not
// read lately; they are opened again when they are read. It chooses by a clock: one bit
// for each file says whether the file was read since the hand passed.
//
// A read under way keeps its file open. If all open files are being read, one more is
// opened all the same, and closed with its last read. To wait instead could deadlock:
// one read would wait for another, which may wait for the first.
type Descriptors struct {
	max  int
	over atomic.Bool // more are open than max

	mu     sync.Mutex
	open   []*handle
	hand   int
	opened uint64
	closed uint64
}

// DescriptorsMin is the least of NewDescriptors.
const DescriptorsMin = 1

// NewDescriptors returns a bound of so many open files. 0 stands for half of what the
// process may have open (RLIMIT_NOFILE, set by LimitNOFILE in a unit).
func NewDescriptors(most int) *Descriptors {
	if most <= 0 {
		most = OpenFilesMax() / 2
	}
	return &Descriptors{max: max(most, DescriptorsMin)}
}

// OpenFilesMax is how many files the process may have open.
func OpenFilesMax() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 1024
	}
	return int(min(limit.Cur, 1<<30))
}

// DescriptorStats are the figures of Descriptors.
type DescriptorStats struct {
	Max    int
	Open   int
	Opened uint64 // since the start
	Closed uint64 // of those, to keep the bound
}

// Stats returns the figures.
func (d *Descriptors) Stats() DescriptorStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return DescriptorStats{Max: d.max, Open: len(d.open), Opened: d.opened, Closed: d.closed}
}

// handle is an open file of a segment.
type handle struct {
	segment *segment
	file    disk.File
	// users counts the reads under way. Whoever closes the file sets it from zero to
	// closedBit.
	users  atomic.Int64
	read   atomic.Bool // since the hand passed
	doomed atomic.Bool // it is closed with its last read
	own    bool        // the writer's: it is in no Descriptors
	at     int         // in Descriptors.open; its mu
}

const closedBit = 1 << 62

// acquire reports whether the file may be used until release.
func (h *handle) acquire() bool {
	if h.users.Add(1) < closedBit {
		if !h.read.Load() {
			h.read.Store(true)
		}
		return true
	}
	h.users.Add(-1)
	return false
}

// release ends a use.
func (h *handle) release(d *Descriptors) {
	if h.users.Add(-1) == 0 && (h.doomed.Load() || d.over.Load() && !h.own) {
		h.close(d)
	}
}

// doom closes the file when nobody reads it.
func (h *handle) doom(d *Descriptors) {
	h.doomed.Store(true)
	h.close(d)
}

// close closes the file unless somebody uses it, and reports whether it did.
func (h *handle) close(d *Descriptors) bool {
	if !h.users.CompareAndSwap(0, closedBit) {
		return false
	}
	h.segment.handle.CompareAndSwap(h, nil)
	if !h.own {
		d.remove(h)
	}
	h.file.Close() // it was only read, or what was written to it has been synced, or is given up
	return true
}

func (d *Descriptors) remove(h *handle) {
	d.mu.Lock()
	defer d.mu.Unlock()
	last := len(d.open) - 1
	d.open[h.at] = d.open[last]
	d.open[h.at].at = h.at
	d.open[last] = nil
	d.open = d.open[:last]
	d.over.Store(len(d.open) > d.max)
	if !h.doomed.Load() {
		d.closed++
	}
}

func (d *Descriptors) add(h *handle) {
	d.mu.Lock()
	h.at = len(d.open)
	d.open = append(d.open, h)
	d.opened++
	d.over.Store(len(d.open) > d.max)
	excess := len(d.open) - d.max
	d.mu.Unlock()
	d.shed(excess)
}

// shed closes up to n files that nobody reads now, first those that were not
// read lately, and returns how many.
func (d *Descriptors) shed(n int) (closed int) {
	for closed < n {
		h := d.victim()
		if h == nil {
			return closed
		}
		if h.close(d) {
			closed++
		}
	}
	return closed
}

// victim returns a file that nobody reads, nil if there is none.
func (d *Descriptors) victim() *handle {
	d.mu.Lock()
	defer d.mu.Unlock()
	for range 2 * len(d.open) {
		if d.hand++; d.hand >= len(d.open) {
			d.hand = 0
		}
		if h := d.open[d.hand]; h.users.Load() == 0 && !h.read.Swap(false) {
			return h
		}
	}
	return nil
}
