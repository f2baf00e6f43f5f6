package arakoon

import (
	"sync"
	"time"

	"openvstorage/arakoon/raftlog"
	"openvstorage/arakoon/state"
	"openvstorage/internal/bell"
	"openvstorage/internal/disk"
)

// compactAgain is how long after a failure that may pass the log is compacted again.
// compactPatience is how long a start waits for the first compaction: on a full disk
// the flush waits for room, and the node must serve meanwhile.
const (
	compactAgain    = 5 * time.Second
	compactPatience = 2 * time.Second
)

// compactor truncates the log behind a finished flush of the state: until then the
// log is the only durable place of what it holds (Pebble has no log of its own).
type compactor struct {
	log      *raftlog.Log
	state    *current
	progress *progress
	end      *shutdown
	bytes    int64 // as much may lie behind
	most     int64 // as much more may be kept for members that catch up
	source   *source

	wake    bell.Bell
	allowed chan struct{} // closed when these are known to be the newest files
	allow   sync.Once
}

// mayCompact ends Options.HoldCompaction.
func (c *compactor) mayCompact() { c.allow.Do(func() { close(c.allowed) }) }

// may reports whether files may be changed that an older copy would not fit.
func (c *compactor) may() bool {
	select {
	case <-c.allowed:
		return true
	default:
		return false
	}
}

// loop compacts whenever it is woken. It closes first when it has looked once.
func (c *compactor) loop(first chan struct{}) {
	select {
	case <-c.allowed:
	case <-c.end.stop:
		return
	case <-c.end.failed:
		return
	}
	for {
		passed, err := c.once()
		if err != nil && !passed {
			c.end.fail(err)
			return
		}
		// A failure that may pass is tried again by the clock: nothing rings while
		// nothing is written, and a full disk would stay full of the log.
		var again <-chan time.Time
		if err != nil {
			again = time.After(compactAgain)
		}
		if first != nil {
			close(first)
			first = nil
		}
		select {
		case <-c.wake.Rung():
		case <-again:
		case <-c.end.stop:
			return
		case <-c.end.failed:
			return
		}
	}
}

// once truncates the log if so much lies behind that a flush of the state is worth it.
// passed says of an error that nothing has changed, and it may pass.
func (c *compactor) once() (passed bool, err error) {
	index, _ := c.progress.now()
	if hold, held := c.held(index); held {
		index = min(index, hold.Index)
	}
	if c.log.Behind(index) <= c.bytes {
		return false, nil
	}
	at, err := c.state.Flush()
	if err != nil {
		return false, err
	}
	// How far the state is must be known before entries go: a state that is found
	// to be shorter is refused then, and never begun anew (rule P8).
	c.log.StateDurable(at.Index)
	if hold, held := c.held(at.Index); held && hold.Index < at.Index {
		at = hold
	}
	err = c.log.Compact(at.Index, at.Conf)
	return err != nil && c.log.Err() == nil && disk.CauseOf(err).Passes(), err
}

// held is the entry behind which the log is kept for members that catch up. They get no
// more than so many bytes: what is kept has a bound, however slow they are.
func (c *compactor) held(index uint64) (hold state.Position, held bool) {
	hold, held = c.source.hold()
	if !held || hold.Index >= index {
		return hold, held
	}
	if more := c.log.Behind(index) - c.log.Behind(hold.Index); more > c.most {
		c.source.letGo(more)
		return state.Position{}, false
	}
	return hold, true
}
