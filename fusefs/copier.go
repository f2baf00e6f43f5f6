package fusefs

import (
	"context"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// copiers are the processes that may be about to copy to a new NAME.raw: they have
// looked for one that is not there. cp copies a file that has fewer blocks than its size
// piece by piece; it would never ask for the whole, which is a clone. So these processes
// are told that all of a vDisk is in use, as earlier releases told everybody.
type copiers struct {
	mu     sync.Mutex
	sought map[uint32]time.Time // when, by process
}

const (
	soughtMax  = time.Second // how long that counts
	soughtMany = 256         // processes, at most
)

// callerOf is the process that made a request, 0 if it is not known.
func callerOf(ctx context.Context) uint32 {
	if caller, ok := fuse.FromContext(ctx); ok {
		return caller.Pid
	}
	return 0
}

// seeks notes that the caller of a request looks for a NAME.raw that is not there.
func (c *copiers) seeks(ctx context.Context) {
	pid := callerOf(ctx)
	if pid == 0 {
		return
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sought) >= soughtMany {
		for pid, at := range c.sought {
			if now.Sub(at) > soughtMax {
				delete(c.sought, pid)
			}
		}
	}
	if len(c.sought) < soughtMany {
		c.sought[pid] = now
	}
}

// copies reports whether the caller of a request may be about to copy to a new NAME.raw.
func (c *copiers) copies(ctx context.Context) bool {
	pid := callerOf(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.sought[pid]
	return ok && time.Since(at) <= soughtMax
}
