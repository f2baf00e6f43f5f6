package asd

import "sync/atomic"

// Stats is what an ASD has done since it was opened, and what it holds.
type Stats struct {
	ValueBytes     uint64 // values written
	HeadBytes      uint64 // heads, keys, CRC tables, padding, marks
	TombstoneBytes uint64 // entries of deletes
	CompactBytes   uint64 // all that compaction wrote again
	IndexBytes     uint64 // checkpoints written
	ReadBytes      uint64 // values and CRC tables read, compaction's too
	Batches        uint64
	Syncs          uint64
	Applies        uint64
	Reads          uint64
	Corrupt        uint64 // values found corrupt by reading

	Keys        int
	IndexMemory int // bytes
	Segments    int
	Spares      int
	Dead        uint64 // bytes of segments that hold nothing any more
}

type counters struct {
	valueBytes, headBytes, tombstoneBytes, compactBytes, indexBytes, readBytes atomic.Uint64
	batches, syncs, applies, reads, corrupt                                    atomic.Uint64
}

// count adds a batch that was written.
func (c *counters) count(b *batch) {
	c.batches.Add(1)
	if b.moved {
		c.compactBytes.Add(uint64(b.size))
		return
	}
	var values, deletes uint64
	for i := range b.entries {
		values += uint64(len(b.values[i].Data))
		if e := &b.entries[i]; e.Delete {
			deletes += uint64(entrySize + len(e.Key))
		}
	}
	c.valueBytes.Add(values)
	c.tombstoneBytes.Add(deletes)
	c.headBytes.Add(uint64(b.size) - values - deletes)
}

// Stats returns counters.
func (a *ASD) Stats() Stats {
	c := &a.stats
	s := Stats{
		ValueBytes: c.valueBytes.Load(), HeadBytes: c.headBytes.Load(), TombstoneBytes: c.tombstoneBytes.Load(),
		CompactBytes: c.compactBytes.Load(), IndexBytes: c.indexBytes.Load(), ReadBytes: c.readBytes.Load(),
		Batches: c.batches.Load(), Syncs: c.syncs.Load(), Applies: c.applies.Load(), Reads: c.reads.Load(), Corrupt: c.corrupt.Load(),
	}
	a.contents.stats(&s)
	s.Spares, _ = a.spares.count()
	return s
}

// stats fills in what the ASD holds.
func (c *contents) stats(s *Stats) {
	c.mu.RLock()
	s.Keys, s.IndexMemory, s.Segments = c.index.keys, c.index.bytes, len(c.segments)
	c.mu.RUnlock()
	s.Dead = uint64(c.survey().allDead())
}
