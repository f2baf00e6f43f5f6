// Package stamp is a client that proves what a block device kept. It writes sectors
// that name themselves (address, sequence, writer, checksum), and logs when each write
// was issued and when it was acknowledged. After a kill or a power cut it reads the
// device back and shows that the log explains what is there: nothing acknowledged is
// missing, nothing is torn, nothing older has come back.
//
// The unit is the sector of 512 bytes, the unit of atomicity is the cluster of 4 KiB.
// The clock is the log itself: the number of a record is its time, so "acknowledged
// before that one was issued" is a comparison of two numbers. The package knows nothing
// of the server's own order: two writes that were in flight together may have been
// applied either way round.
package stamp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// Sizes in bytes.
const (
	SectorSize  = 512
	ClusterSize = 4096

	sectorsPerCluster = ClusterSize / SectorSize
)

// A stamped sector, little-endian:
//
//	offset  size  field
//	     0     8  magic "ovsstamp"
//	     8     8  run: which log it belongs to
//	    16     8  sector: its own address in sectors
//	    24     8  seq: number of the record that issued the write
//	    32     4  writer: number of the connection
//	    36     4  count: sectors in the write
//	    40     8  first: first sector of the write
//	    48   460  filler that depends on run, seq and sector
//	   508     4  CRC-32C of bytes 0 to 507
const (
	offRun    = 8
	offSector = 16
	offSeq    = 24
	offWriter = 32
	offCount  = 36
	offFirst  = 40
	offFiller = 48
	offCRC    = 508
)

var (
	magic      = []byte("ovsstamp")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	zeros      [SectorSize]byte
)

// ErrNotStamp is returned for a sector that is neither zeros nor a whole stamp.
var ErrNotStamp = errors.New("stamp: neither zeros nor a stamp with a good checksum")

// Stamp is what a sector says of itself. The zero Stamp is a sector of zeros.
type Stamp struct {
	Run    uint64
	Sector uint64 // address, in sectors
	Seq    uint64 // of the write
	Writer uint32
	Count  uint32 // sectors in the write
	First  uint64 // first sector of the write
}

// Fill stamps every sector of p, whose length is a multiple of SectorSize, as
// one write at sector s.First; s.Sector and s.Count are ignored.
func Fill(p []byte, s Stamp) {
	s.Count = uint32(len(p) / SectorSize)
	for i := uint64(0); i < uint64(s.Count); i++ {
		s.Sector = s.First + i
		encode(p[i*SectorSize:(i+1)*SectorSize], s)
	}
}

func encode(p []byte, s Stamp) {
	le := binary.LittleEndian
	copy(p, magic)
	le.PutUint64(p[offRun:], s.Run)
	le.PutUint64(p[offSector:], s.Sector)
	le.PutUint64(p[offSeq:], s.Seq)
	le.PutUint32(p[offWriter:], s.Writer)
	le.PutUint32(p[offCount:], s.Count)
	le.PutUint64(p[offFirst:], s.First)
	x := s.Run ^ s.Seq*0x9e3779b97f4a7c15 ^ s.Sector*0xc2b2ae3d27d4eb4f
	for i := offFiller; i+8 <= offCRC; i += 8 {
		x = x*6364136223846793005 + 1442695040888963407
		le.PutUint64(p[i:], x)
	}
	le.PutUint32(p[offCRC-4:], uint32(x>>32))
	le.PutUint32(p[offCRC:], crc32.Checksum(p[:offCRC], castagnoli))
}

// Decode reads the stamp of one sector.
func Decode(p []byte) (Stamp, error) {
	if len(p) != SectorSize {
		return Stamp{}, ErrNotStamp
	}
	if bytes.Equal(p, zeros[:]) {
		return Stamp{}, nil
	}
	le := binary.LittleEndian
	if !bytes.Equal(p[:len(magic)], magic) || crc32.Checksum(p[:offCRC], castagnoli) != le.Uint32(p[offCRC:]) {
		return Stamp{}, ErrNotStamp
	}
	return Stamp{
		Run:    le.Uint64(p[offRun:]),
		Sector: le.Uint64(p[offSector:]),
		Seq:    le.Uint64(p[offSeq:]),
		Writer: le.Uint32(p[offWriter:]),
		Count:  le.Uint32(p[offCount:]),
		First:  le.Uint64(p[offFirst:]),
	}, nil
}
