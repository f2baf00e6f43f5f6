package osd

import (
	"encoding/binary"
	"hash/crc32"
)

// BlockSize is what one checksum covers, in bytes. Only the last block of a
// value is shorter.
const BlockSize = 4096

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Blocks returns the number of blocks of so many bytes.
func Blocks(n int) int { return (n + BlockSize - 1) / BlockSize }

// BlockCRC returns the checksum of a block: CRC-32C over
//
//	8 bytes  seed, little-endian
//	4 bytes  number of the block in its value, little-endian
//	         the block
//
// Whoever writes the value derives the seed from what the value is. So a block of
// another value, or from another place in this one, does not pass.
func BlockCRC(seed uint64, block uint32, p []byte) uint32 {
	return crc32.Update(number(number(0, seed, 8), uint64(block), 4), castagnoli, p)
}

// number adds the n low bytes of v, little-endian, to a CRC-32C. It works byte by byte
// with the table, since a buffer that is passed to package crc32 escapes: an
// allocation for every 4 KiB would cost more.
func number(crc uint32, v uint64, n int) uint32 {
	crc = ^crc
	for range n {
		crc = castagnoli[byte(crc)^byte(v)] ^ crc>>8
		v >>= 8
	}
	return ^crc
}

// AppendCRCs appends to dst the checksum of each block of data, the first of
// which is block first of its value.
func AppendCRCs(dst []uint32, seed uint64, first uint32, data []byte) []uint32 {
	for len(data) > 0 {
		n := min(len(data), BlockSize)
		dst = append(dst, BlockCRC(seed, first, data[:n]))
		data = data[n:]
		first++
	}
	return dst
}

// TableCRC returns the CRC-32C of a value's checksums, 4 little-endian bytes
// each.
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
