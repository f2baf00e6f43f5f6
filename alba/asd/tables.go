package asd

import (
	"sync"
)

// tables caches blocks of segment files that hold CRC tables, by segment number
// and block. It is an array of sets of tableWays blocks each, with a lock for
// every set, and never allocates once a block's memory is there.
type tables struct {
	sets []tableSet
}

const tableWays = 8

type tableSet struct {
	mu    sync.Mutex
	clock uint32
	ways  [tableWays]tableBlock
}

type tableBlock struct {
	segment, block uint32 // segment 0: free
	used           uint32
	data           *[blockSize]byte
}

func (t *tables) init(bytes int64) {
	t.sets = make([]tableSet, max(1, bytes/(tableWays*blockSize)))
}

func (t *tables) set(segment, block uint32) *tableSet {
	h := (uint64(segment)<<32 | uint64(block)) * 0x9e3779b97f4a7c15
	return &t.sets[(h>>32)*uint64(len(t.sets))>>32]
}

// get fills crcs from what is in a block from off on.
func (t *tables) get(segment, block uint32, off int, crcs []uint32) bool {
	s := t.set(segment, block)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.ways {
		if w := &s.ways[i]; w.segment == segment && w.block == block {
			s.clock++
			w.used = s.clock
			getTable(crcs, w.data[off:])
			return true
		}
	}
	return false
}

// put keeps a block, in place of the one that was used least recently.
func (t *tables) put(segment, block uint32, data []byte) {
	s := t.set(segment, block)
	s.mu.Lock()
	defer s.mu.Unlock()
	victim := &s.ways[0]
	for i := range s.ways {
		w := &s.ways[i]
		if w.segment == segment && w.block == block {
			victim = w
			break
		}
		if w.segment == 0 || victim.segment != 0 && s.clock-w.used > s.clock-victim.used {
			victim = w
		}
	}
	s.clock++
	if victim.data == nil {
		victim.data = new([blockSize]byte)
	}
	victim.segment, victim.block, victim.used = segment, block, s.clock
	copy(victim.data[:], data)
}
