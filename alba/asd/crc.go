package asd

import (
	"encoding/binary"
	"hash/crc32"

	"openvstorage/alba/osd"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcOf goes on with a CRC-32C over p.
func crcOf(sum uint32, p []byte) uint32 { return crc32.Update(sum, castagnoli, p) }

// check returns the first block of data whose checksum does not hold, the
// first of which is block first of its value, or -1.
func check(data []byte, crcs []uint32, seed uint64, first uint32) int {
	for i := 0; len(data) > 0; i++ {
		n := min(len(data), blockSize)
		if osd.BlockCRC(seed, first+uint32(i), data[:n]) != crcs[i] {
			return i
		}
		data = data[n:]
	}
	return -1
}

func putTable(dst []byte, crcs []uint32) {
	for i, c := range crcs {
		binary.LittleEndian.PutUint32(dst[4*i:], c)
	}
}

func getTable(crcs []uint32, src []byte) {
	for i := range crcs {
		crcs[i] = binary.LittleEndian.Uint32(src[4*i:])
	}
}
