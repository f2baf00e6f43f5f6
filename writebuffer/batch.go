package writebuffer

import (
	"openvstorage/sco"
)

// Span is one aligned write of a batch: whole clusters from Addr on.
type Span struct {
	Addr uint64
	Data []byte
}

// Batch is what one append writes. Reuse it: its scratch space stays.
type Batch struct {
	Spans []Span
	// Check, if set, is asked in the append section before anything is
	// written; false makes the append return ErrChanged.
	Check func() bool

	clusters int
	sums     []uint32
	iov      [][]byte
	entries  []byte
	runs     []run
}

type run struct {
	seq, addr uint64
	n         int
	loc       sco.Location
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	clear(b.Spans)
	b.Spans = b.Spans[:0]
	b.Check = nil
}

// sum makes the checksums, outside the append section.
func (b *Batch) sum() {
	b.sums, b.clusters = b.sums[:0], 0
	for _, s := range b.Spans {
		for d := s.Data; len(d) > 0; d = d[sco.ClusterSize:] {
			b.sums = append(b.sums, sco.Sum(d[:sco.ClusterSize]))
		}
		b.clusters += len(s.Data) / sco.ClusterSize
	}
}

// position is how far a batch is written.
type position struct {
	span, cluster int // within the batch
	sum           int
}
