package kv

import (
	"sync/atomic"
	"time"
)

// slow is how long a read from memory never takes: one that took longer waited for a disk.
const slow = 250 * time.Microsecond

// rest is how many reads have goroutines of their own after one that waited for a disk. On
// a busy machine a read takes that long now and then for want of a processor, so it is few.
const rest = 16

// pace tells whether reads are answered from memory these days. The goroutine that reads a
// connection answers them itself only then: it must not wait for a disk, as all other
// requests of the connection would wait behind it. Nothing but speed depends on it.
type pace struct {
	cold atomic.Int64 // reads to come that have goroutines of their own
}

func (p *pace) fast() bool { return p.cold.Load() <= 0 }

// note is told how long a read took.
func (p *pace) note(took time.Duration) {
	switch {
	case took > slow:
		p.cold.Store(rest)
	case p.cold.Load() > 0:
		p.cold.Add(-1)
	}
}
