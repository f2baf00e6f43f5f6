package local

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"openvstorage/backend"
	"openvstorage/internal/format"
)

// An object file. Values are little-endian; S is the size of the object, N is
// S / 4096 rounded up.
//
//	offset size field
//	 0     S    the object's bytes
//	 S     4 N  table: CRC-32C of each 4 KiB of the object, the last one shorter
//	 end-80 64  common header: kind object, number = version of the object,
//	            incarnation = the first 8 bytes of the SHA-256 of
//	            "namespace/name", which seeds every CRC below and above
//	 end-16 8   S
//	 end-8  4   CRC-32C of the table
//	 end-4  4   CRC-32C of the 76 bytes before
//
// The seed binds a file to its name: if an object was renamed, or swapped with another,
// its trailer and each of its blocks fail their checks. The checksums come last, so that
// the object lies aligned in the file and is written in one pass. S follows from the
// length of the file alone, so that one read fetches table and trailer. These bytes are
// on disk. They never change.
const (
	version     = 1
	blockSize   = 4096
	trailerSize = format.HeaderSize + 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// incarnation is the seed of an object's CRCs.
func incarnation(namespace, name string) uint64 {
	sum := sha256.Sum256([]byte(namespace + "/" + name))
	return binary.LittleEndian.Uint64(sum[:8])
}

// seedState returns the CRC of the seed alone; crc32.Update from there gives
// format.SeededCRC without taking the seed again for every block.
func seedState(incarnation uint64) uint32 {
	var seed [8]byte
	binary.LittleEndian.PutUint64(seed[:], incarnation)
	return format.CRC(seed[:])
}

func blockCRC(seed uint32, p []byte) uint32 { return crc32.Update(seed, castagnoli, p) }

// appendTable appends the CRC of every block of data.
func appendTable(table []byte, seed uint32, data []byte) []byte {
	for len(data) > 0 {
		n := min(len(data), blockSize)
		table = binary.LittleEndian.AppendUint32(table, blockCRC(seed, data[:n]))
		data = data[n:]
	}
	return table
}

func appendTrailer(b []byte, incarnation uint64, v backend.Version, size int64, table []byte) []byte {
	at := len(b)
	b = format.AppendHeader(b, format.Header{
		Kind: format.KindObject, Version: version, MinReader: version, Number: uint64(v), Incarnation: incarnation,
	})
	b = binary.LittleEndian.AppendUint64(b, uint64(size))
	b = binary.LittleEndian.AppendUint32(b, format.SeededCRC(incarnation, table))
	return binary.LittleEndian.AppendUint32(b, format.SeededCRC(incarnation, b[at:]))
}

// sizes returns the object's size and that of its table, given the length of
// the file. ok is false if no object makes a file of that length.
func sizes(file int64) (size, table int64, ok bool) {
	rest := file - trailerSize
	if rest < 0 {
		return 0, 0, false
	}
	blocks := (rest + blockSize + 3) / (blockSize + 4)
	size = rest - 4*blocks
	return size, 4 * blocks, size >= 0 && (size+blockSize-1)/blockSize == blocks
}

// fileSize is the inverse of sizes.
func fileSize(size int64) int64 {
	return size + 4*((size+blockSize-1)/blockSize) + trailerSize
}

// decodeTail checks table and trailer, which are the last bytes of a file
// whose object has size bytes, and returns the object's version.
func decodeTail(tail []byte, incarnation uint64, size int64) (backend.Version, error) {
	at := len(tail) - trailerSize
	table, trailer := tail[:at], tail[at:]
	v, err := decodeTrailer(trailer, incarnation, size)
	if err != nil {
		return 0, err
	}
	if got, want := format.SeededCRC(incarnation, table), binary.LittleEndian.Uint32(trailer[72:]); got != want {
		return 0, fmt.Errorf("table at offset %d: %w: CRC is %08x, not %08x", size, format.ErrCorrupt, got, want)
	}
	return v, nil
}

// decodeTrailer checks the trailer alone.
func decodeTrailer(trailer []byte, incarnation uint64, size int64) (backend.Version, error) {
	h, err := format.DecodeHeader(trailer, format.KindObject, version, 0)
	offset := fileSize(size) - trailerSize
	if err != nil {
		return 0, fmt.Errorf("trailer at offset %d: %w", offset, err)
	}
	if h.Incarnation != incarnation {
		return 0, fmt.Errorf("trailer at offset %d: %w: it belongs to an object of another name", offset, format.ErrCorrupt)
	}
	if got, want := format.SeededCRC(incarnation, trailer[:76]), binary.LittleEndian.Uint32(trailer[76:]); got != want {
		return 0, fmt.Errorf("trailer at offset %d: %w: CRC is %08x, not %08x", offset, format.ErrCorrupt, got, want)
	}
	if n := binary.LittleEndian.Uint64(trailer[64:]); n != uint64(size) {
		return 0, fmt.Errorf("trailer at offset %d: %w: an object of %d bytes, the file has room for %d", offset, format.ErrCorrupt, n, size)
	}
	if h.Number == 0 {
		return 0, fmt.Errorf("trailer at offset %d: %w: version 0", offset, format.ErrCorrupt)
	}
	return backend.Version(h.Number), nil
}
