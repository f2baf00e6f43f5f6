// Package format is the header that begins every file and every backend
// object of the system, so that any of them can be named, refused or
// inspected without knowing what it is.
//
// Layout, 64 bytes, little-endian:
//
//	offset size field
//	 0      8   magic "OVSTORE1"
//	 8      2   kind (SCO, TLog, ...)
//	10      2   version: the format of this kind that wrote it
//	12      2   minimum reader: the oldest version that can read it
//	14      2   zero
//	16      4   compatible features: a reader may ignore bits it does not know
//	20      4   incompatible features: a reader must refuse bits it does not know
//	24     16   owner: UUID of the vDisk (or store) it belongs to
//	40      8   number: which of its kind, used once in the owner's life
//	48      8   incarnation: random, drawn each time a file is begun; it seeds
//	            every CRC in the file, so that what a recycled file held before
//	            cannot pass for new
//	56      4   zero
//	60      4   CRC-32C of bytes 0..59
//
// These bytes are on disk. They never change.
package format

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/google/uuid"
)

// HeaderSize is the length of the common header in bytes.
const HeaderSize = 64

// Magic begins every file and object.
const Magic = "OVSTORE1"

// Kind says what a file or object is.
type Kind uint16

// Kinds of file and object. Numbers are on disk.
const (
	KindSCO       Kind = 1
	KindTLog      Kind = 2
	KindCatalog   Kind = 3 // root
	KindSegment   Kind = 4 // immutable catalog segment
	KindPages     Kind = 5 // map pages of a checkpoint
	KindDirectory Kind = 6 // the data directory's own record
	KindRegistry  Kind = 7
	KindObject    Kind = 8 // trailer of an object file of the local backend
	KindPage      Kind = 9 // one map page in the local page store

	KindRaftLog    Kind = 10 // segment of a raft log
	KindASD        Kind = 11 // a disk daemon's identity
	KindASDSegment Kind = 12 // segment of fragments
	KindASDIndex   Kind = 13 // checkpoint of a disk daemon's index

	KindFragmentCache Kind = 14 // segment of the fragment cache

	KindASDClaim  Kind = 15 // the newest generation that a disk daemon has seen
	KindRaftMarks Kind = 16 // how far a raft log reaches, outside of it

	KindTrustCache Kind = 17 // records of hosts and certificates that a host has seen

	KindBackup Kind = 20 // of a group
)

func (k Kind) String() string {
	names := [...]string{1: "SCO", 2: "TLog", 3: "catalog", 4: "catalog segment", 5: "map pages", 6: "data directory record", 7: "registry", 8: "object", 9: "map page",
		10: "raft log", 11: "disk identity", 12: "disk segment", 13: "disk index",
		14: "fragment cache segment", 15: "disk claim", 16: "raft log marks",
		17: "trust cache", 20: "backup of a group"}
	if int(k) < len(names) && names[k] != "" {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint16(k))
}

// Errors of DecodeHeader. ErrCorrupt: the bytes are not a whole header.
// ErrNewer: it was written by a newer release, whose data must not be touched.
var (
	ErrCorrupt = errors.New("corrupt")
	ErrNewer   = errors.New("written by a newer release")
)

// Header is the common header.
type Header struct {
	Kind         Kind
	Version      uint16
	MinReader    uint16
	Compatible   uint32
	Incompatible uint32
	Owner        uuid.UUID
	Number       uint64
	Incarnation  uint64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC returns the CRC-32C of p.
func CRC(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// SeededCRC returns the CRC-32C of p, begun with the incarnation of the file that holds
// p. So what another incarnation of the file left behind does not fit.
func SeededCRC(incarnation uint64, p []byte) uint32 {
	var seed [8]byte
	binary.LittleEndian.PutUint64(seed[:], incarnation)
	return crc32.Update(crc32.Checksum(seed[:], castagnoli), castagnoli, p)
}

// AppendHeader appends h's 64 bytes to dst.
func AppendHeader(dst []byte, h Header) []byte {
	at := len(dst)
	dst = append(dst, Magic...)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(h.Kind))
	dst = binary.LittleEndian.AppendUint16(dst, h.Version)
	dst = binary.LittleEndian.AppendUint16(dst, h.MinReader)
	dst = binary.LittleEndian.AppendUint16(dst, 0)
	dst = binary.LittleEndian.AppendUint32(dst, h.Compatible)
	dst = binary.LittleEndian.AppendUint32(dst, h.Incompatible)
	dst = append(dst, h.Owner[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, h.Number)
	dst = binary.LittleEndian.AppendUint64(dst, h.Incarnation)
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	return binary.LittleEndian.AppendUint32(dst, CRC(dst[at:]))
}

// DecodeHeader reads a header of the wanted kind. version is the newest
// version of that kind that the caller reads, features the incompatible
// features that it knows.
func DecodeHeader(b []byte, want Kind, version uint16, features uint32) (Header, error) {
	h, err := Peek(b)
	if err != nil {
		return h, err
	}
	if h.Kind != want {
		return h, fmt.Errorf("%w: it is a %v, not a %v", ErrCorrupt, h.Kind, want)
	}
	if h.MinReader > version {
		return h, fmt.Errorf("%w: %v format %d, this release reads up to %d", ErrNewer, h.Kind, h.MinReader, version)
	}
	if unknown := h.Incompatible &^ features; unknown != 0 {
		return h, fmt.Errorf("%w: %v with features %#x", ErrNewer, h.Kind, unknown)
	}
	for _, room := range [...][2]int{{14, 16}, {56, 60}} {
		if at := NotZero(b[room[0]:room[1]]); at >= 0 {
			at += room[0]
			return h, fmt.Errorf("%w: %v whose header has %#x at offset %d, where this release has zero", ErrNewer, h.Kind, b[at], at)
		}
	}
	return h, nil
}

// DecodeRewritten is DecodeHeader for files that their reader rewrites whole. It
// refuses whatever the reader would lose by that: any newer version even if its minimum
// reader is older, any compatible feature (the reader knows none), and bytes that are
// not zero where this release has zeros.
func DecodeRewritten(b []byte, want Kind, version uint16, features uint32) (Header, error) {
	h, err := DecodeHeader(b, want, version, features)
	switch {
	case err != nil:
		return h, err
	case h.Version > version:
		return h, fmt.Errorf("%w: %v format %d, this release rewrites up to %d", ErrNewer, h.Kind, h.Version, version)
	case h.Version == 0:
		return h, fmt.Errorf("%w: %v format 0 does not exist", ErrCorrupt, h.Kind)
	case h.Compatible != 0:
		return h, fmt.Errorf("%w: %v with compatible features %#x, which this release would lose", ErrNewer, h.Kind, h.Compatible)
	}
	if at := NotZero(b[14:16]); at >= 0 {
		return h, fmt.Errorf("%w: %v whose header has %#x at offset %d, where this release has zero", ErrNewer, h.Kind, b[14+at], 14+at)
	}
	if at := NotZero(b[56:60]); at >= 0 {
		return h, fmt.Errorf("%w: %v whose header has %#x at offset %d, where this release has zero", ErrNewer, h.Kind, b[56+at], 56+at)
	}
	return h, nil
}

// NotZero returns the index of the first byte that is not zero, or -1 if all are zero.
// Room for later releases is zero: another byte there belongs to a field of a later
// release.
func NotZero(b []byte) int {
	return slices.IndexFunc(b, func(c byte) bool { return c != 0 })
}

// Peek reads a header of any kind and version.
func Peek(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("%w: %d bytes are less than a header", ErrCorrupt, len(b))
	}
	if string(b[:8]) != Magic {
		return Header{}, fmt.Errorf("%w: no magic at offset 0", ErrCorrupt)
	}
	if got, want := CRC(b[:60]), binary.LittleEndian.Uint32(b[60:]); got != want {
		return Header{}, fmt.Errorf("%w: header CRC is %08x, not %08x", ErrCorrupt, got, want)
	}
	h := Header{
		Kind:         Kind(binary.LittleEndian.Uint16(b[8:])),
		Version:      binary.LittleEndian.Uint16(b[10:]),
		MinReader:    binary.LittleEndian.Uint16(b[12:]),
		Compatible:   binary.LittleEndian.Uint32(b[16:]),
		Incompatible: binary.LittleEndian.Uint32(b[20:]),
		Number:       binary.LittleEndian.Uint64(b[40:]),
		Incarnation:  binary.LittleEndian.Uint64(b[48:]),
	}
	copy(h.Owner[:], b[24:40])
	return h, nil
}
