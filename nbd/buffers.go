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

// buffers keeps free buffers in classes of powers of two. The one used last is taken first,
// as it is most likely still in a cache of the CPU. Above idleMax, buffers are left to the
// garbage collector, beginning with the class that was not asked for for longest: large
// buffers that nobody needs any more must not displace those that are in use. A sync.Pool
// would empty itself at each collection, and large buffers would cost their page faults and
// zeroing again.
type buffers struct {
	idleMax int64
	memory  *memory // counts those in use

	mu    sync.Mutex
	idle  int64 // bytes in free, with the scratch memory that belongs to them
	gets  uint64
	asked [maxClass + 1]uint64 // the number of the last get
	free  [maxClass + 1][]*buffer
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
	p.mu.Lock()
	p.gets++
	p.asked[class] = p.gets
	if len(p.free[class]) > 0 {
		b := p.popLocked(class)
		p.mu.Unlock()
		p.memory.scratch.Add(b.scratch())
		return b
	}
	p.mu.Unlock()
	return &buffer{b: make([]byte, 1<<class), class: class}
}

// put takes back a buffer that nobody uses any more.
func (p *buffers) put(b *buffer) {
	size := int64(1) << b.class
	p.memory.buffers.Add(-size)
	p.memory.scratch.Add(-b.scratch())
	if b.round != nil && size != ioBuffer {
		b.round = nil
	}
	size += b.scratch()
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.idle+size > p.idleMax {
		if size > p.idleMax || !p.dropLocked(b.class) {
			return
		}
	}
	p.free[b.class] = append(p.free[b.class], b)
	p.idle += size
}

// dropLocked leaves a free buffer to the collector, of the class that was not asked for for
// longest. It reports false if that is the given class.
func (p *buffers) dropLocked(class int) bool {
	oldest := class
	for c := range p.free {
		if len(p.free[c]) > 0 && p.asked[c] < p.asked[oldest] {
			oldest = c
		}
	}
	if oldest == class {
		return false
	}
	p.popLocked(oldest)
	return true
}

// popLocked takes the last free buffer of a class, which has one.
func (p *buffers) popLocked(class int) *buffer {
	last := len(p.free[class]) - 1
	b := p.free[class][last]
	p.free[class][last] = nil
	p.free[class] = p.free[class][:last]
	p.idle -= int64(1)<<class + b.scratch()
	return b
}

// scratch is how many bytes of scratch memory belong to the buffer.
func (b *buffer) scratch() int64 {
	if b.round == nil {
		return 0
	}
	return b.round.counted
}
