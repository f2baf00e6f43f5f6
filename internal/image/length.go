package image

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// promised is how long an image is at least, by what is in its first bytes: a
// partition table or a file system, which what says. 0: nothing tells. It is for
// images of which nobody knows the length; so one that misleads does no harm.
func promised(p []byte) (length int64, what string) {
	if n := superblock(p); n > 0 {
		return n, "file system"
	}
	return partitionTable(p), "partition table"
}

// partitionTable is where the last partition of an MBR, or a whole GPT, ends.
func partitionTable(p []byte) (end int64) {
	const entries, entryLen, protective = 446, 16, 0xee
	le := binary.LittleEndian
	if len(p) < 2*sectorLen || p[510] != 0x55 || p[511] != 0xaa {
		return 0
	}
	for i := range 4 {
		e := p[entries+i*entryLen:][:entryLen]
		first, sectors := int64(le.Uint32(e[8:])), int64(le.Uint32(e[12:]))
		switch kind := e[4]; {
		case e[0] != 0 && e[0] != 0x80:
			return 0 // a boot sector of something else
		case kind == protective && bytes.HasPrefix(p[sectorLen:], []byte("EFI PART")):
			if last := le.Uint64(p[sectorLen+32:]); last < 1<<54 { // of the second copy
				return int64(last+1) * sectorLen
			}
			return 0
		case kind == protective: // in sectors of another size
			return 0
		case kind != 0:
			end = max(end, (first+sectors)*sectorLen)
		}
	}
	return end
}

// superblock is the length of an ext2, 3, 4, XFS or Btrfs file system.
func superblock(p []byte) int64 {
	const (
		ext   = 1024
		btrfs = 64 << 10
	)
	var blocks, size uint64
	switch {
	case len(p) >= btrfs+4096 && bytes.HasPrefix(p[btrfs+64:], []byte("_BHRfS_M")):
		size, blocks = 1, binary.LittleEndian.Uint64(p[btrfs+209:]) // of this device
	case bytes.HasPrefix(p, []byte("XFSB")) && len(p) >= 16:
		size, blocks = uint64(binary.BigEndian.Uint32(p[4:])), binary.BigEndian.Uint64(p[8:])
	case len(p) >= 2*ext && binary.LittleEndian.Uint16(p[ext+56:]) == 0xef53:
		if shift := binary.LittleEndian.Uint32(p[ext+24:]); shift <= 6 {
			size, blocks = ext<<shift, uint64(binary.LittleEndian.Uint32(p[ext+4:]))
		}
	}
	high, low := bits.Mul64(size, blocks)
	if high != 0 || low > 1<<62 {
		return 0
	}
	return int64(low)
}
