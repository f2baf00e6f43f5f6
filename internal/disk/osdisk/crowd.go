package osdisk

import (
	"sync"
	"sync/atomic"
)

// crowdSize is how many reads must be under way, the new one included, for it
// to go to the ring. Fewer make no batches, and a pread is quicker. Reads from
// memory are over too soon to be many at a time, so they stay with pread.
const crowdSize = 4

// crowd counts the reads that are under way and gives the ring to those that
// come when there are many. The ring is made for the first of these.
type crowd struct {
	size    int64 // see crowdSize
	make    func() (*ring, error)
	reading atomic.Int64
	once    sync.Once
	ring    *ring // after once; nil if there is none to be had
}

// everyone is the crowd of all reads of the process.
var everyone = crowd{size: crowdSize, make: newRing}

// join counts a read and returns the ring, if the read should go to it.
func (c *crowd) join() *ring {
	if c.reading.Add(1) < c.size {
		return nil
	}
	c.once.Do(func() {
		if r, err := c.make(); err == nil { // else preads do as well, only dearer
			c.ring = r
		}
	})
	return c.ring
}

// leave ends what join began.
func (c *crowd) leave() { c.reading.Add(-1) }
