package nbd

import "sync/atomic"

// memory counts all bytes that the server holds for its clients: payloads, receive and
// reply buffers, and what connections and workers need besides.
//
// A client waits only for its own requests, never for memory that a stranger holds. So each
// connection may always have floorBytes. Above that a connection may have in all as much
// as is still free, and so may the connections of one address together. A few that take all
// that they can leave as much free as each of them has; the more of them there are, the
// less each may have.
type memory struct {
	limit   int64
	buffers atomic.Int64 // in use, of the free lists' classes
	scratch atomic.Int64 // everything else on the heap
	stacks  atomic.Int64 // of goroutines
}

func (m *memory) rest() int64 { return m.scratch.Load() + m.stacks.Load() }

// take counts a buffer of n bytes for a connection that has own bytes in
// flight, unless that is more than its share.
func (m *memory) take(from *source, own, n int64) bool {
	if own+n <= floorBytes {
		m.buffers.Add(n)
		return true
	}
	for {
		buffers := m.buffers.Load()
		free := m.limit - buffers - m.rest()
		if own+n > free || from != nil && from.bytes.Load()+n > free {
			return false
		}
		if m.buffers.CompareAndSwap(buffers, buffers+n) {
			return true
		}
	}
}
