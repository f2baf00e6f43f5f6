package nbd

import (
	"math/bits"
	"sync"
)

const (
	minClass = 12 // 4 KiB
	maxClass = 25 // 32 MiB, the longest payload
)

// buffer is memory for payloads with one owner at a time.
type buffer struct {
	b     []byte // whole class, always
	class int
	round *round // of a receive buffer: scratch that goes with it
}

// buffers keeps free buffers in classes of powers of two, the last used first
// as it is the likeliest to be in a cache of the CPU. What exceeds idleMax is
// left to the garbage collector. No sync.Pool: it would empty itself at each
// collection and large buffers cost their page faults and zeroing again.
type buffers struct {
	idleMax int64
	memory  *memory // counts those in use

	mu   sync.Mutex
	idle int64 // bytes in free
	free [maxClass + 1][]*buffer
}

// classSize is the capacity of the buffer that get(n) returns.
func classSize(n int) int { return 1 << classOf(n) }

func classOf(n int) int {
	if n <= 1<<minClass {
		return minClass
	}
	return bits.Len(uint(n - 1))
}

// get returns a buffer of at least n bytes, n at most MaxPayload, with
// arbitrary contents.
func (p *buffers) get(n int) *buffer {
	p.memory.buffers.Add(int64(classSize(n)))
	return p.taken(n)
}

// taken is get for what memory.take has counted already.
func (p *buffers) taken(n int) *buffer {
	class := classOf(n)
	size := int64(1) << class
	p.mu.Lock()
	if last := len(p.free[class]) - 1; last >= 0 {
		b := p.free[class][last]
		p.free[class][last] = nil
		p.free[class] = p.free[class][:last]
		p.idle -= size
		p.mu.Unlock()
		return b
	}
	p.mu.Unlock()
	return &buffer{b: make([]byte, size), class: class}
}

// put takes back a buffer that nobody uses any more.
func (p *buffers) put(b *buffer) {
	size := int64(1) << b.class
	p.memory.buffers.Add(-size)
	if b.round != nil && size != ioBuffer {
		p.memory.scratch.Add(-b.round.counted)
		b.round = nil
	}
	p.mu.Lock()
	if p.idle+size <= p.idleMax {
		p.free[b.class] = append(p.free[b.class], b)
		p.idle += size
	} else if b.round != nil {
		p.memory.scratch.Add(-b.round.counted)
	}
	p.mu.Unlock()
}
