package object

import (
	"encoding/binary"
	"fmt"

	"openvstorage/alba/manifest"
	"openvstorage/alba/preset"
	"openvstorage/backend"
	"openvstorage/internal/format"
)

// Table says where the blocks of a chunk lie that is not dense. It is immutable and may
// be kept and shared for ever, since an object id never stands for another object.
type Table struct {
	ends  []uint32 // stored bytes up to the end of each block
	kinds []byte
}

// Size returns the memory that the table takes, in bytes, for a cache's count.
func (t *Table) Size() int { return 48 + 5*len(t.ends) }

func (t *Table) block(i int) (from, to uint32, kind byte) {
	if i > 0 {
		from = t.ends[i-1]
	}
	return from, t.ends[i], t.kinds[i]
}

// Table reads the table of a chunk. buf holds the bytes of its TableSpan, whole
// blocks as Ranges gives them.
func (o *Opener) Table(chunk int, buf []byte) (*Table, error) {
	s, ok := TableSpan(o.m, chunk)
	if !ok {
		return nil, fmt.Errorf("%w: chunk %d has no table", manifest.ErrManifest, chunk)
	}
	p, err := o.stored(s, buf)
	if err != nil {
		return nil, err
	}
	return o.parseTable(chunk, p, s.From)
}

// parseTable opens a stored table. body is the number of stored bytes before
// it, which the blocks must fill.
func (o *Opener) parseTable(chunk int, p []byte, body uint32) (*Table, error) {
	bad := func(text string, args ...any) error {
		return fmt.Errorf("%w: table of chunk %d of object %v: %s", backend.ErrCorrupt, chunk, o.m.Object, fmt.Sprintf(text, args...))
	}
	g := layoutOf(o.m, &o.m.Chunks[chunk], nil)
	blocks := manifest.Blocks(g.bytes, g.log2)
	length := 4*blocks + 4
	if len(p) != length+int(g.overhead) {
		return nil, bad("%d bytes for %d blocks", len(p), blocks)
	}
	b, err := o.sealer.open(o.scratch[:0], p, uint32(chunk), tableBlock, kindTable, length)
	if err != nil {
		return nil, err
	}
	o.scratch = b[:0]
	seed := manifest.Seed(o.m.Object, uint32(chunk), tableFragment)
	if got, want := format.SeededCRC(seed, b[:4*blocks]), binary.LittleEndian.Uint32(b[4*blocks:]); got != want {
		return nil, bad("CRC is %08x, not %08x", got, want)
	}
	t := &Table{ends: make([]uint32, blocks), kinds: make([]byte, blocks)}
	var at uint64
	for i := range blocks {
		entry := binary.LittleEndian.Uint32(b[4*i:])
		t.kinds[i] = byte(entry >> 24)
		n := int(entry & 0xffffff)
		if !o.lengthOK(t.kinds[i], n-int(g.overhead), g.plain(i)) {
			return nil, bad("block %d of %d plain bytes has kind %d and %d stored ones", i, g.plain(i), t.kinds[i], n)
		}
		at += uint64(n)
		t.ends[i] = uint32(at)
	}
	if at != uint64(body) {
		return nil, bad("its blocks have %d bytes, not %d", at, body)
	}
	return t, nil
}

// lengthOK reports whether a block can have n bytes before it is sealed.
func (o *Opener) lengthOK(kind byte, n, plain int) bool {
	switch kind {
	case kindZero:
		return n == -int(o.sealer.overhead()) // nothing is stored, no seal either
	case kindRaw:
		return n == plain
	case kindCompressed:
		return n > 0 && n <= packedMax(plain) && o.m.Scheme.Compression != preset.CompressionNone
	}
	return false
}
