package manifest

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
)

// InlineFragment stands for the fragment in the seed of inline bytes.
const InlineFragment = 0xffffffff

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Seed returns what begins every block checksum of a fragment.
func Seed(id ObjectID, chunk, fragment uint32) uint64 {
	var b [32]byte
	copy(b[:], "ovs-frag")
	copy(b[8:], id[:])
	binary.LittleEndian.PutUint32(b[24:], chunk)
	binary.LittleEndian.PutUint32(b[28:], fragment)
	sum := sha256.Sum256(b[:])
	return binary.LittleEndian.Uint64(sum[:])
}

// BlockCRC returns the checksum of a block of a fragment: CRC-32C over the
// seed, the block's number in the fragment, and its bytes.
func BlockCRC(seed uint64, block uint32, p []byte) uint32 {
	return crc32.Update(number(number(0, seed, 8), uint64(block), 4), castagnoli, p)
}

// number adds the n low bytes of v, little-endian, to a CRC-32C. It goes byte
// by byte over the table: what is handed to package crc32 escapes, and an
// allocation for every 4 KiB would cost more.
func number(crc uint32, v uint64, n int) uint32 {
	crc = ^crc
	for range n {
		crc = castagnoli[byte(crc)^byte(v)] ^ crc>>8
		v >>= 8
	}
	return ^crc
}

// AppendCRCs appends to dst the checksum of each 4 KiB of data, the first of
// which is block first of its fragment. Only at the end of inline bytes is a
// block shorter.
func AppendCRCs(dst []uint32, seed uint64, first uint32, data []byte) []uint32 {
	for len(data) > 0 {
		n := min(len(data), ShardAlign)
		dst = append(dst, BlockCRC(seed, first, data[:n]))
		data = data[n:]
		first++
	}
	return dst
}

// TableCRC returns the CRC-32C of a fragment's CRC table.
func TableCRC(crcs []uint32) uint32 {
	var sum uint32
	var b [256]byte
	for len(crcs) > 0 {
		n := min(len(crcs), len(b)/4)
		for i, crc := range crcs[:n] {
			binary.LittleEndian.PutUint32(b[4*i:], crc)
		}
		sum = crc32.Update(sum, castagnoli, b[:4*n])
		crcs = crcs[n:]
	}
	return sum
}
