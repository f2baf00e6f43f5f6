package object

import (
	"fmt"

	"openvstorage/alba/manifest"
)

const align = manifest.ShardAlign

// Piece is a range of plain bytes that lies in one chunk.
type Piece struct {
	Chunk int
	Off   uint32 // in the chunk
	Len   uint32
}

// Pieces appends to dst the pieces of n bytes from offset off of the object.
// The range lies in the object.
func Pieces(dst []Piece, m *manifest.Manifest, off uint64, n int) ([]Piece, error) {
	if n < 0 || off > m.Size || uint64(n) > m.Size-off {
		return dst, fmt.Errorf("%w: %d bytes at %d of an object of %d", manifest.ErrManifest, n, off, m.Size)
	}
	each := m.ChunkSize()
	for n > 0 {
		at := uint32(off % each)
		part := min(n, int(each)-int(at))
		dst = append(dst, Piece{Chunk: int(off / each), Off: at, Len: uint32(part)})
		off += uint64(part)
		n -= part
	}
	return dst, nil
}

// Span is a range of the stored bytes of a chunk that must be read for a piece or for
// a table. Reading it fills a buffer of BufferLen bytes with the bytes of its Ranges,
// one behind the other.
type Span struct {
	Piece
	From, To uint32 // stored bytes; equal: there is nothing to read
}

// start and end are what is read: whole blocks of a checksum.
func (s Span) start() uint32 { return s.From &^ (align - 1) }
func (s Span) end() uint64   { return (uint64(s.To) + align - 1) &^ (align - 1) }

// BufferLen returns the number of bytes that are read: From to To, widened to
// whole blocks of 4 KiB.
func (s Span) BufferLen() int {
	if s.From == s.To {
		return 0
	}
	return int(s.end() - uint64(s.start()))
}

// TableSpan returns where the table of a chunk lies. ok is false if it has
// none: then Locate takes a nil table.
func TableSpan(m *manifest.Manifest, chunk int) (s Span, ok bool) {
	c := &m.Chunks[chunk]
	if c.Dense {
		return Span{}, false
	}
	n := manifest.TableLength(manifest.Blocks(c.Plain, m.Scheme.BlockLog2), m.Scheme.Cipher != 0)
	return Span{Piece: Piece{Chunk: chunk}, From: c.Stored - n, To: c.Stored}, true
}

// Locate returns the stored bytes that hold a piece. table is that of the chunk, nil if
// the chunk is dense. A block that is compressed or sealed is taken whole; of any other
// block only the bytes that are wanted are taken.
func Locate(m *manifest.Manifest, p Piece, table *Table) (Span, error) {
	c := &m.Chunks[p.Chunk]
	if (table == nil) != c.Dense || p.Len == 0 || uint64(p.Off)+uint64(p.Len) > uint64(c.Plain) {
		return Span{}, fmt.Errorf("%w: %d bytes at %d of chunk %d of %d bytes, with table: %v", manifest.ErrManifest, p.Len, p.Off, p.Chunk, c.Plain, table != nil)
	}
	g := layoutOf(m, c, table)
	s := Span{Piece: p}
	end := p.Off + p.Len
	for i, last := int(p.Off>>g.log2), int((end-1)>>g.log2); i <= last; i++ {
		from, to, kind := g.block(i)
		if kind == kindZero {
			continue
		}
		if kind == kindRaw && g.overhead == 0 {
			at := uint32(i) << g.log2
			from, to = from+max(p.Off, at)-at, from+min(end, at+uint32(g.plain(i)))-at
		}
		if s.To == 0 {
			s.From = from
		}
		s.To = to
	}
	return s, nil
}

// layout is where the blocks of a chunk lie in its stored bytes.
type layout struct {
	bytes    uint32 // plain bytes of the chunk
	log2     uint8
	overhead uint32
	table    *Table // nil: dense
}

func layoutOf(m *manifest.Manifest, c *manifest.Chunk, table *Table) layout {
	g := layout{bytes: c.Plain, log2: m.Scheme.BlockLog2, table: table}
	if m.Scheme.Cipher != 0 {
		g.overhead = tagSize
	}
	return g
}

// plain returns the number of plain bytes of block i.
func (g layout) plain(i int) int { return int(min(g.bytes-uint32(i)<<g.log2, 1<<g.log2)) }

// block returns the stored bytes of block i.
func (g layout) block(i int) (from, to uint32, kind byte) {
	if g.table != nil {
		return g.table.block(i)
	}
	from = uint32(i) * (1<<g.log2 + g.overhead)
	return from, from + uint32(g.plain(i)) + g.overhead, kindRaw
}

// Range is a range of one fragment, in whole blocks of 4 KiB.
type Range struct {
	Chunk    int
	Fragment int // a data fragment
	Off, Len uint32
}

// Ranges appends to dst the ranges of fragments where the bytes of a span lie, in
// order. It appends none if there is nothing to read, or if the object is inline. With
// k = 1 all fragments have the same bytes, and any may be read in place of fragment 0.
func Ranges(dst []Range, m *manifest.Manifest, s Span) []Range {
	if m.Inlined || s.From == s.To {
		return dst
	}
	shard := uint64(m.Chunks[s.Chunk].Shard)
	for at, end := uint64(s.start()), s.end(); at < end; {
		off := at % shard
		n := min(end-at, shard-off)
		dst = append(dst, Range{Chunk: s.Chunk, Fragment: int(at / shard), Off: uint32(off), Len: uint32(n)})
		at += n
	}
	return dst
}
