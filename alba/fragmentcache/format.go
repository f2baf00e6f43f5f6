package fragmentcache

import (
	"encoding/binary"
	"errors"
	"fmt"

	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/internal/format"
)

// A segment, little-endian, in blocks of 4096 bytes:
//
//	block 0       common header (kind 14), then zeros
//	block 1..n-1  blocks of extents
//	then, when it is sealed:
//	  entries     32 bytes for each extent, in the order of their blocks
//	  checksums    4 bytes for each of blocks 1..n-1: the writer's
//	  footer      32 bytes, which end the file
//
// An entry:
//
//	offset size field
//	 0     16   object id
//	16      4   chunk
//	20      4   first block of the extent in its fragment
//	24      4   first block of the extent in the segment
//	28      1   fragment
//	29      1   blocks, 1 to 16
//	30      2   zero
//
// The footer:
//
//	offset size field
//	 0      8   "OVSFRAGC"
//	 8      4   blocks of the segment, n
//	12      4   entries
//	16      8   zero
//	24      4   CRC-32C of entries and checksums, seeded with the incarnation
//	28      4   CRC-32C of bytes 0..27, seeded with the incarnation

// Version is the newest format of segments that this release reads, and the
// one it writes.
const Version = 1

const (
	blockSize  = osd.BlockSize
	entrySize  = 32
	footerSize = 32
	footMagic  = "OVSFRAGC"
)

// blocksMax bounds a segment, in blocks: 1 GiB.
const blocksMax = 1 << 18

// runMax bounds an extent, in blocks.
const runMax = 16

// errFormat is matched by the errors for bytes that are not a segment.
var errFormat = errors.New("not a segment of the fragment cache")

// fragment names a fragment. Version and namespace of its key do not matter.
type fragment struct {
	object manifest.ObjectID
	chunk  uint32
	number uint8
}

func fragmentOf(k manifest.Key) fragment {
	return fragment{object: k.Object, chunk: k.Chunk, number: k.Fragment}
}

// entry says what an extent is and where it lies in its segment. All are in
// blocks.
type entry struct {
	fragment
	first uint32 // in the fragment
	at    uint32 // in the segment
	n     uint32
}

// indexSize is the length of what ends a sealed segment.
func indexSize(blocks, entries int) int64 {
	return int64(entries)*entrySize + 4*int64(blocks-1) + footerSize
}

// segmentSize is the length of a sealed segment.
func segmentSize(blocks, entries int) int64 {
	return int64(blocks)*blockSize + indexSize(blocks, entries)
}

// appendIndex appends what ends a sealed segment of 1+len(crcs) blocks.
func appendIndex(dst []byte, entries []entry, crcs []uint32, incarnation uint64) []byte {
	le := binary.LittleEndian
	begin := len(dst)
	for i := range entries {
		e := &entries[i]
		dst = append(dst, e.object[:]...)
		dst = le.AppendUint32(dst, e.chunk)
		dst = le.AppendUint32(dst, e.first)
		dst = le.AppendUint32(dst, e.at)
		dst = append(dst, e.number, byte(e.n), 0, 0)
	}
	for _, crc := range crcs {
		dst = le.AppendUint32(dst, crc)
	}
	return appendFooter(dst, dst[begin:], uint32(1+len(crcs)), uint32(len(entries)), incarnation)
}

// appendFooter appends the footer of a segment with so many blocks and entries;
// index is the entries and checksums.
func appendFooter(dst, index []byte, blocks, entries uint32, incarnation uint64) []byte {
	le := binary.LittleEndian
	begin := len(dst)
	dst = append(dst, footMagic...)
	dst = le.AppendUint32(dst, blocks)
	dst = le.AppendUint32(dst, entries)
	dst = le.AppendUint64(dst, 0)
	dst = le.AppendUint32(dst, format.SeededCRC(incarnation, index))
	return le.AppendUint32(dst, format.SeededCRC(incarnation, dst[begin:]))
}

// footer is what ends a sealed segment.
type footer struct {
	blocks, entries int
	sum             uint32
}

// decodeFooter reads the footer of a segment of so many bytes.
func decodeFooter(b []byte, size int64, incarnation uint64) (footer, error) {
	le := binary.LittleEndian
	if len(b) != footerSize || string(b[:8]) != footMagic {
		return footer{}, fmt.Errorf("%w: it is not sealed", errFormat)
	}
	if got, want := format.SeededCRC(incarnation, b[:28]), le.Uint32(b[28:]); got != want {
		return footer{}, fmt.Errorf("%w: CRC of its footer is %08x, not %08x", errFormat, got, want)
	}
	blocks, entries := le.Uint32(b[8:]), le.Uint32(b[12:])
	if blocks < 1 || blocks > blocksMax || entries >= blocks || segmentSize(int(blocks), int(entries)) != size {
		return footer{}, fmt.Errorf("%w: %d blocks and %d extents in %d bytes", errFormat, blocks, entries, size)
	}
	return footer{blocks: int(blocks), entries: int(entries), sum: le.Uint32(b[24:])}, nil
}

// checkIndex checks the bytes before the footer.
func (f footer) checkIndex(b []byte, incarnation uint64) error {
	if want := int(indexSize(f.blocks, f.entries)) - footerSize; len(b) != want {
		return fmt.Errorf("%w: index of %d bytes, not %d", errFormat, len(b), want)
	}
	if got := format.SeededCRC(incarnation, b); got != f.sum {
		return fmt.Errorf("%w: CRC of its index is %08x, not %08x", errFormat, got, f.sum)
	}
	return nil
}

// decodeEntry reads entry i of an index that was checked.
func (f footer) decodeEntry(b []byte, i int) (entry, error) {
	le := binary.LittleEndian
	b = b[i*entrySize:][:entrySize]
	e := entry{first: le.Uint32(b[20:]), at: le.Uint32(b[24:]), n: uint32(b[29])}
	copy(e.object[:], b)
	e.chunk, e.number = le.Uint32(b[16:]), b[28]
	if e.n < 1 || e.n > runMax || e.at < 1 || uint64(e.at)+uint64(e.n) > uint64(f.blocks) || uint64(e.first)+uint64(e.n) > fragmentBlocks {
		return entry{}, fmt.Errorf("%w: extent %d: %d blocks of %d at %d of %d", errFormat, i, e.n, e.first, e.at, f.blocks)
	}
	return e, nil
}

// fragmentBlocks bounds the blocks of a fragment that can be named: offsets have 32 bits.
const fragmentBlocks = 1 << 32 / blockSize

// decodeCRCs appends to dst the checksums of an index that was checked.
func (f footer) decodeCRCs(dst []uint32, b []byte) []uint32 {
	for b = b[f.entries*entrySize:]; len(b) >= 4; b = b[4:] {
		dst = append(dst, binary.LittleEndian.Uint32(b))
	}
	return dst
}
