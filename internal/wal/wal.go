// Package wal frames the records of the system's own logs: the raft log and
// the segments of a disk daemon. A log is a file, perhaps pre-written, that
// begins with the common header (package format) in a block of its own and
// goes on with records, each aligned to 8 bytes.
//
// A record, little-endian:
//
//	offset size field
//	 0      4   CRC-32C of bytes 4..39, seeded
//	 4      4   length of the body in bytes
//	 8      8   seq: rises by at least one with every record of a log
//	16      8   durable: the highest seq whose sync had returned when the
//	            record was written, in this file or an earlier one
//	24      2   kind, the log's own; 0 is not used
//	26      2   flags; bit 0: whoever does not know the kind may skip it
//	28      4   zero
//	32      4   CRC-32C of the body, seeded
//	36      4   zero
//	40     length  body, then zeros up to a multiple of 8
//
// The seed is the file's incarnation, so that old records of a recycled file are not
// taken for new ones. Zeros where a record would begin are the log's end.
//
// The durable marks decide what a bad record means. A record at or below the highest
// mark in the log had been synced: if it is bad, that is damage, and the log is refused.
// A bad record above the mark ends the log (rule O2).
package wal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"openvstorage/internal/format"
)

// HeadSize is the length of a record without its body.
const HeadSize = 40

// Align is what records are aligned to.
const Align = 8

// BodyMax is the longest body in bytes.
const BodyMax = 64 << 20

// ErrCorrupt is matched by the error for bytes that are no record.
var ErrCorrupt = errors.New("log record corrupt")

// FlagSkippable marks a record that a reader which does not know its kind may skip.
const FlagSkippable = 1

// Head is a record without its body.
type Head struct {
	Seq     uint64
	Durable uint64
	Length  int // of the body
	Kind    uint16
	Flags   uint16
	sum     uint32
}

// Record is a record with its body.
type Record struct {
	Seq     uint64
	Durable uint64
	Kind    uint16
	Flags   uint16
	Body    []byte
}

// Size is the length in the log of a record with a body of n bytes.
func Size(n int) int { return (HeadSize + n + Align - 1) / Align * Align }

// Size is the record's length in the log.
func (h Head) Size() int { return Size(h.Length) }

// Append appends the record to dst, which begins at a multiple of Align in the
// log. The body is the concatenation of bodies; r.Body comes first.
func Append(dst []byte, incarnation uint64, r Record, bodies ...[]byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, HeadSize)...)
	dst = append(dst, r.Body...)
	for _, b := range bodies {
		dst = append(dst, b...)
	}
	body := dst[start+HeadSize:]
	h := Head{Seq: r.Seq, Durable: r.Durable, Length: len(body), Kind: r.Kind, Flags: r.Flags, sum: format.SeededCRC(incarnation, body)}
	h.put(dst[start:], incarnation)
	for len(dst)-start < h.Size() {
		dst = append(dst, 0)
	}
	return dst
}

// AppendHead appends the head of a record whose body the caller writes separately,
// padded to Size.
func AppendHead(dst []byte, incarnation uint64, r Record) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, HeadSize)...)
	h := Head{Seq: r.Seq, Durable: r.Durable, Length: len(r.Body), Kind: r.Kind, Flags: r.Flags, sum: format.SeededCRC(incarnation, r.Body)}
	h.put(dst[start:], incarnation)
	return dst
}

func (h Head) put(b []byte, incarnation uint64) {
	le := binary.LittleEndian
	le.PutUint32(b[4:], uint32(h.Length))
	le.PutUint64(b[8:], h.Seq)
	le.PutUint64(b[16:], h.Durable)
	le.PutUint16(b[24:], h.Kind)
	le.PutUint16(b[26:], h.Flags)
	le.PutUint32(b[32:], h.sum)
	le.PutUint32(b, format.SeededCRC(incarnation, b[4:HeadSize]))
}

// DecodeHead decodes the head at the start of b. If there are zeros, ok is false and err
// is nil: the log ends. The error is ErrCorrupt, or format.ErrNewer for a whole head
// with a flag or field that this release does not know, which is never a log's end.
func DecodeHead(b []byte, incarnation uint64) (h Head, ok bool, err error) {
	if len(b) < HeadSize {
		return Head{}, false, fmt.Errorf("%w: %d bytes are left", ErrCorrupt, len(b))
	}
	b = b[:HeadSize]
	if zeros(b) {
		return Head{}, false, nil
	}
	le := binary.LittleEndian
	if got, want := format.SeededCRC(incarnation, b[4:]), le.Uint32(b); got != want {
		return Head{}, false, fmt.Errorf("%w: CRC of its head is %08x, not %08x", ErrCorrupt, got, want)
	}
	h = Head{
		Length: int(le.Uint32(b[4:])), Seq: le.Uint64(b[8:]), Durable: le.Uint64(b[16:]),
		Kind: le.Uint16(b[24:]), Flags: le.Uint16(b[26:]), sum: le.Uint32(b[32:]),
	}
	if unknown := h.Flags &^ FlagSkippable; unknown != 0 || le.Uint32(b[28:]) != 0 || le.Uint32(b[36:]) != 0 {
		return Head{}, false, fmt.Errorf("%w: record %d of kind %d: flags %#x, and %#x and %#x in bytes that are zero today",
			format.ErrNewer, h.Seq, h.Kind, unknown, le.Uint32(b[28:]), le.Uint32(b[36:]))
	}
	if h.Length > BodyMax || h.Kind == 0 || h.Durable >= h.Seq {
		return Head{}, false, fmt.Errorf("%w: seq %d, durable %d, kind %d, %d bytes", ErrCorrupt, h.Seq, h.Durable, h.Kind, h.Length)
	}
	return h, true, nil
}

// Check verifies the body.
func (h Head) Check(body []byte, incarnation uint64) error {
	if len(body) != h.Length {
		return fmt.Errorf("%w: record %d: %d bytes of %d", ErrCorrupt, h.Seq, len(body), h.Length)
	}
	if got := format.SeededCRC(incarnation, body); got != h.sum {
		return fmt.Errorf("%w: record %d: CRC is %08x, not %08x", ErrCorrupt, h.Seq, got, h.sum)
	}
	return nil
}

func zeros(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// Scan calls fn for each whole record of b in turn. It ends when the records end, when
// one is bad, or when fn fails. Bodies alias b. end is the offset behind the last good
// record. err is nil if the scan ended at zeros or at the end of b.
func Scan(b []byte, incarnation uint64, fn func(off int64, r Record) error) (end int64, err error) {
	last := uint64(0)
	for len(b)-int(end) >= HeadSize {
		at := b[end:]
		h, ok, err := DecodeHead(at, incarnation)
		if err != nil || !ok {
			return end, err
		}
		if h.Seq <= last {
			return end, fmt.Errorf("%w: seq %d after %d", ErrCorrupt, h.Seq, last)
		}
		if h.Size() > len(at) {
			return end, fmt.Errorf("%w: record %d: %d bytes, %d are left", ErrCorrupt, h.Seq, h.Size(), len(at))
		}
		body := at[HeadSize : HeadSize+h.Length : HeadSize+h.Length]
		if err := h.Check(body, incarnation); err != nil {
			return end, err
		}
		if !zeros(at[HeadSize+h.Length : h.Size()]) {
			return end, fmt.Errorf("%w: record %d is padded with other than zeros", ErrCorrupt, h.Seq)
		}
		if err := fn(end, Record{Seq: h.Seq, Durable: h.Durable, Kind: h.Kind, Flags: h.Flags, Body: body}); err != nil {
			return end, err
		}
		last = h.Seq
		end += int64(h.Size())
	}
	return end, nil
}
