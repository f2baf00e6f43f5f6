package manifest

import (
	"crypto/sha256"
	"encoding/binary"
)

// InlineFragment stands for the fragment in the seed of inline bytes.
const InlineFragment = 0xffffffff

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
