package fragmentcache

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"time"
)

// How long nothing is written after a failure, doubled with each failure in a row: a disk
// may be full for a while, or too many files may be open.
const (
	pauseMin = time.Second
	pauseMax = 10 * time.Minute
)

// turnOff ends writing for a while: after a failed write nothing more is written to its file
// (rule P6). The cache serves what it has meanwhile.
func (w *writer) turnOff(err error) {
	c := w.c
	if c.off.Swap(true) {
		return
	}
	rest := min(pauseMin<<min(w.failures, 20), pauseMax)
	w.failures++
	c.until.Store(c.opt.now().Add(rest).UnixNano())
	c.opt.Logger.Warn("the fragment cache takes no more for a while; what it has is served", "dir", c.opt.Dir, "for", rest, "err", err)
}

// stop ends writing for good.
func (w *writer) stop() {
	w.c.until.Store(math.MaxInt64)
	w.c.off.Store(true)
}

// pausing reports whether it is too soon to write again.
func (c *Cache) pausing() bool { return c.off.Load() && c.opt.now().UnixNano() < c.until.Load() }

// resume has the writer write again after a pause, to a new segment. It removes the segment
// that was open, with whatever a failed write left of it.
func (w *writer) resume() {
	c := w.c
	if !c.off.Load() || c.pausing() {
		return
	}
	c.off.Store(false)
	if c.lock == nil {
		if err := w.begin(); err != nil {
			w.turnOff(err)
			return
		}
		w.load()
	}
	if s := w.open; s != nil {
		c.index.sweep(s.slot)
		c.segments[s.slot].Store(nil)
		c.stats.checksumBytes.Add(-4 * int64(len(s.crcs)))
		s.release()
		w.left = append(w.left, s.name)
		w.open, w.entries, w.blocks, w.from = nil, w.entries[:0], 0, 0
	}
	left := w.left
	w.left = nil
	for _, name := range left {
		w.remove(name)
	}
	w.count()
}

// begin makes the directory the cache's, and finds what is in it.
func (w *writer) begin() error {
	c := w.c
	if err := c.opt.FS.MkdirAll(c.opt.Dir, 0o700); err != nil {
		return fmt.Errorf("fragment cache: %w", err)
	}
	lock, err := c.opt.FS.Lock(path.Join(c.opt.Dir, lockName))
	if err != nil {
		return fmt.Errorf("fragment cache %s: %w", c.opt.Dir, err)
	}
	names, err := c.opt.FS.ReadDir(c.opt.Dir)
	if err != nil {
		return errors.Join(fmt.Errorf("fragment cache: %w", err), lock.Close())
	}
	for _, name := range names {
		if n, ok := segmentNumber(name); ok {
			w.numbers = append(w.numbers, n)
			w.next = max(w.next, n+1)
		}
	}
	slices.Sort(w.numbers)
	c.lock = lock
	return nil
}
