package client

import (
	"math/bits"
	"sync"
)

// Bounds of the free lists: the sizes that are kept, and how many bytes of each size.
const (
	bufferMin   = 12 // log2: 4 KiB
	bufferMax   = 24 // log2: 16 MiB
	bufferBytes = 8 << 20
)

// buffers are free lists of payload buffers, one for each power of two. A
// buffer that is not given back is collected as any other.
type buffers struct {
	mu   sync.Mutex
	free [bufferMax + 1][][]byte
}

// take returns a buffer of n bytes, with whatever was in it.
func (b *buffers) take(n int) []byte {
	class := max(bits.Len(uint(max(n, 1)-1)), bufferMin)
	if class > bufferMax {
		return make([]byte, n)
	}
	b.mu.Lock()
	list := b.free[class]
	if len(list) == 0 {
		b.mu.Unlock()
		return make([]byte, n, 1<<class)
	}
	p := list[len(list)-1]
	b.free[class] = list[:len(list)-1]
	b.mu.Unlock()
	return p[:n]
}

// give returns a buffer that take returned and nobody uses any more.
func (b *buffers) give(p []byte) {
	class := bits.Len(uint(cap(p))) - 1
	if class < bufferMin || class > bufferMax || cap(p) != 1<<class {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.free[class]) < max(bufferBytes>>class, 2) {
		b.free[class] = append(b.free[class], p)
	}
}

// drop empties the lists.
func (b *buffers) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.free[:])
}
