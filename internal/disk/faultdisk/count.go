package faultdisk

import (
	"sync/atomic"
)

// counters are one path's.
type counters struct {
	ops     [numOps]atomic.Int64
	read    atomic.Int64
	written atomic.Int64
}

func (d *FS) counters(name string) *counters {
	if c, ok := d.counts.Load(name); ok {
		return c.(*counters)
	}
	c, _ := d.counts.LoadOrStore(name, new(counters))
	return c.(*counters)
}

// Count returns how many operations of the given kinds were asked for on the
// paths that match a pattern (see Match), failed ones too. A WritevAt is one.
func (d *FS) Count(ops Op, pattern string) int64 {
	var sum int64
	d.each(pattern, func(c *counters) {
		for left := ops & Any; left != 0; left &= left - 1 {
			sum += c.ops[left.index()].Load()
		}
	})
	return sum
}

// BytesRead returns how many bytes were read from the paths that match.
func (d *FS) BytesRead(pattern string) int64 {
	var sum int64
	d.each(pattern, func(c *counters) { sum += c.read.Load() })
	return sum
}

// BytesWritten returns how many bytes were written to the paths that match,
// prewritten ones too.
func (d *FS) BytesWritten(pattern string) int64 {
	var sum int64
	d.each(pattern, func(c *counters) { sum += c.written.Load() })
	return sum
}

// ResetCounts sets all counts to zero.
func (d *FS) ResetCounts() {
	d.each("", func(c *counters) {
		for i := range c.ops {
			c.ops[i].Store(0)
		}
		c.read.Store(0)
		c.written.Store(0)
	})
}

func (d *FS) each(pattern string, do func(*counters)) {
	d.counts.Range(func(name, c any) bool {
		if Match(pattern, name.(string)) {
			do(c.(*counters))
		}
		return true
	})
}
