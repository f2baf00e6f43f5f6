package object

import (
	"fmt"

	"github.com/klauspost/compress/s2"

	"openvstorage/alba/ec"
	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/backend"
)

// Opener opens the stored bytes of one object. It is for one goroutine at a
// time.
type Opener struct {
	m       *manifest.Manifest
	sealer  sealer
	scratch []byte // an opened block that is still compressed
	whole   []byte // a block of which a part is wanted
	kept    kept   // which one that is
	buf     []byte // the stored bytes of a chunk
}

// kept is the block that was opened last. Small reads often follow each other within a
// block: it is fetched and opened once for all of them. An object's id is used once, so
// the kept block never becomes stale.
type kept struct {
	is           bool
	namespace    uint64
	object       manifest.ObjectID
	chunk, block int
}

// Reset makes the opener one for another object, with the scratch memory that
// it has. After an error it must be reset again before use.
func (o *Opener) Reset(m *manifest.Manifest, master []byte) error {
	if err := m.Scheme.Validate(); err != nil {
		return err
	}
	o.m = m
	if n := m.Scheme.BlockSize(); len(o.whole) < n {
		o.kept = kept{}
		o.scratch, o.whole = make([]byte, 0, n+tagSize), make([]byte, n)
	}
	return o.sealer.init(m.Scheme, m.Namespace, m.Object, master)
}

// stored returns the bytes From to To of a span's buffer.
func (o *Opener) stored(s Span, buf []byte) ([]byte, error) {
	from := int(s.From - s.start())
	if s.From == s.To {
		return nil, nil
	}
	if n := from + int(s.To-s.From); n <= len(buf) {
		return buf[from:n], nil
	}
	return nil, fmt.Errorf("%w: %d bytes were read of %d", manifest.ErrManifest, len(buf), s.BufferLen())
}

// Open fills dst, of s.Len bytes, with the plain bytes of a span that Locate has
// returned. buf holds the bytes of the span's Ranges, each of them verified; table is the
// table that Locate was given.
func (o *Opener) Open(dst []byte, s Span, table *Table, buf []byte) error {
	if len(dst) != int(s.Len) {
		return fmt.Errorf("%w: room for %d bytes of %d", manifest.ErrManifest, len(dst), s.Len)
	}
	p, err := o.stored(s, buf)
	if err != nil {
		return err
	}
	return o.open(dst, s, table, p)
}

// open fills dst from p, the stored bytes From to To of s.
func (o *Opener) open(dst []byte, s Span, table *Table, p []byte) error {
	g := layoutOf(o.m, &o.m.Chunks[s.Chunk], table)
	for i := int(s.Off >> g.log2); len(dst) > 0; i++ {
		at := uint32(i) << g.log2
		lo := int(max(s.Off, at) - at)
		hi := min(g.plain(i), int(s.Off+s.Len-at))
		out := dst[:hi-lo]
		dst = dst[hi-lo:]
		from, to, kind := g.block(i)
		switch {
		case kind == kindZero:
			clear(out)
		case kind == kindRaw && g.overhead == 0:
			copy(out, p[int(from)+lo-int(s.From):][:len(out)])
		case lo == 0 && hi == g.plain(i):
			if err := o.block(out, p[from-s.From:to-s.From], s.Chunk, i, kind); err != nil {
				return err
			}
		default:
			whole, want := o.whole[:g.plain(i)], kept{true, o.m.Namespace, o.m.Object, s.Chunk, i}
			if o.kept != want {
				o.kept = kept{} // also if it fails in the middle
				if err := o.block(whole, p[from-s.From:to-s.From], s.Chunk, i, kind); err != nil {
					return err
				}
				o.kept = want
			}
			copy(out, whole[lo:hi])
		}
	}
	return nil
}

// block opens one whole block into dst, which has its plain length.
func (o *Opener) block(dst, p []byte, chunk, block int, kind byte) error {
	takeTurn()
	defer endTurn()
	if kind == kindRaw {
		_, err := o.sealer.open(dst[:0], p, uint32(chunk), uint32(block), kind, len(dst))
		return err
	}
	if o.sealer.aead != nil {
		b, err := o.sealer.open(o.scratch[:0], p, uint32(chunk), uint32(block), kind, len(dst))
		if err != nil {
			return err
		}
		p = b
	}
	// The length is checked before anything is written: s2 makes room of its
	// own for more.
	if n, err := s2.DecodedLen(p); err != nil || n != len(dst) {
		return o.corrupt(chunk, block, fmt.Sprintf("unpacks to %d bytes, not %d", n, len(dst)))
	}
	if _, err := s2.Decode(dst, p); err != nil {
		return o.corrupt(chunk, block, err.Error())
	}
	return nil
}

func (o *Opener) corrupt(chunk, block int, what string) error {
	return fmt.Errorf("%w: block %d of chunk %d of object %v: %s", backend.ErrCorrupt, block, chunk, o.m.Object, what)
}

// Inline fills dst from offset off of an inline object, after it has verified
// the stored bytes.
func (o *Opener) Inline(dst []byte, off uint64) error {
	m := o.m
	if !m.Inlined || off > m.Size || uint64(len(dst)) > m.Size-off {
		return fmt.Errorf("%w: %d bytes at %d of an object of %d, inline: %v", manifest.ErrManifest, len(dst), off, m.Size, m.Inlined)
	}
	if len(dst) == 0 {
		return nil
	}
	seed := manifest.Seed(m.Object, 0, manifest.InlineFragment)
	for i, want := range m.CRCs {
		at := i * align
		if got := osd.BlockCRC(seed, uint32(i), m.Inline[at:min(at+align, len(m.Inline))]); got != want {
			return fmt.Errorf("%w: inline object %v: CRC of block %d is %08x, not %08x", backend.ErrCorrupt, m.Object, i, got, want)
		}
	}
	return o.piece(dst, Piece{Off: uint32(off), Len: uint32(len(dst))}, m.Inline)
}

// piece opens a piece from all stored bytes of its chunk.
func (o *Opener) piece(dst []byte, p Piece, stored []byte) error {
	var table *Table
	if s, ok := TableSpan(o.m, p.Chunk); ok {
		var err error
		if table, err = o.parseTable(p.Chunk, stored[s.From:s.To], s.From); err != nil {
			return err
		}
	}
	s, err := Locate(o.m, p, table)
	if err != nil {
		return err
	}
	return o.open(dst, s, table, stored[s.From:s.To])
}

// Chunk fills dst, of the chunk's plain length, from the chunk's fragments. A shard that
// is not there is nil. Each fragment is verified against the manifest first; those that
// fail count as lost and are returned in bad. k good ones are enough, and data fragments
// are the cheapest. With fewer the error is ec.ErrTooFew, and also backend.ErrCorrupt if
// any was bad.
func (o *Opener) Chunk(dst []byte, chunk int, shards [][]byte) (bad []int, err error) {
	c, k := &o.m.Chunks[chunk], int(o.m.Policy.K)
	if len(dst) != int(c.Plain) || len(shards) != len(c.Fragments) {
		return nil, fmt.Errorf("%w: room for %d of %d bytes, %d of %d fragments", manifest.ErrManifest, len(dst), c.Plain, len(shards), len(c.Fragments))
	}
	code, err := ec.New(o.m.Scheme.Code, k, int(o.m.Policy.M))
	if err != nil {
		return nil, err
	}
	if n := k * int(c.Shard); cap(o.buf) < n {
		o.buf = ec.Buffer(n)
	}
	o.buf = o.buf[:k*int(c.Shard)]
	have := make([][]byte, len(shards))
	var lost []int
	for i, p := range shards {
		good := p != nil && VerifyFragment(o.m, chunk, i, p) == nil
		if p != nil && !good {
			bad = append(bad, i)
		}
		switch {
		case i < k && good:
			have[i] = o.buf[i*int(c.Shard) : (i+1)*int(c.Shard)]
			copy(have[i], p)
		case i < k: // made again where it belongs
			lost = append(lost, i)
			have[i] = o.buf[i*int(c.Shard) : i*int(c.Shard) : (i+1)*int(c.Shard)]
		case good:
			have[i] = p
		}
	}
	if err := code.Reconstruct(have, lost); err != nil {
		if err = fmt.Errorf("chunk %d of object %v: %w", chunk, o.m.Object, err); len(bad) > 0 {
			err = fmt.Errorf("%w: fragments %v are not what was stored: %w", backend.ErrCorrupt, bad, err)
		}
		return bad, err
	}
	return bad, o.piece(dst, Piece{Chunk: chunk, Len: c.Plain}, o.buf[:c.Stored])
}
