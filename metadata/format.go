package metadata

import (
	"encoding/binary"
	"fmt"

	"openvstorage/internal/format"

	"github.com/google/uuid"
)

// An encoded page, little-endian:
//
//	offset size field
//	 0     64   common header: kind map page, owner and number of the page;
//	            the incarnation is the birth generation
//	64      1   tree: 0 map, 1 live counters
//	65      1   level
//	66      1   encoding: 0 runs, 1 all words
//	67      1   zero
//	68      2   number of runs, 0 if all words
//	70      2   zero
//	72      8   newest seq that changed the page
//	80     12n  runs, in order, not overlapping; what they leave out is zero:
//	             0  2  index of the first word
//	             2  2  bits 0-9: how many words; bit 15: each is the one
//	                   before it plus 1, otherwise all are equal
//	             4  8  first word
//	or     4096 all words
//	end-4   4   CRC-32C of everything before it, seeded by the birth generation
//
// The header names owner and number, and the last CRC covers the header, so a
// page found under the name of another is refused.
//
// These bytes are on disk. They never change.
const (
	pageVersion  = 1
	pageHeader   = format.HeaderSize + 16
	runBytes     = 12
	maxRuns      = pageBytes / runBytes // with more runs, all words are smaller
	encodingRuns = 0
	encodingAll  = 1
	runStride    = 1 << 15
	badWordKind  = 3 // no location, reference or counter has these top bits
)

// MaxPageSize is the largest encoded page in bytes.
const MaxPageSize = pageHeader + pageBytes + 4

// PageHeader is what an encoded page says of itself besides its name.
type PageHeader struct {
	Kind  TreeKind
	Level uint8
	Birth uint64 // generation
	Seq   uint64
}

// AppendPage appends the encoded page to dst.
func AppendPage(dst []byte, owner uuid.UUID, number uint64, h PageHeader, w *[fanout]uint64) []byte {
	at := len(dst)
	dst = format.AppendHeader(dst, format.Header{
		Kind: format.KindPage, Version: pageVersion, MinReader: pageVersion,
		Owner: owner, Number: number, Incarnation: h.Birth,
	})
	dst = append(dst, byte(h.Kind), h.Level, encodingRuns, 0, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, h.Seq)
	runs := 0
	for i := 0; i < fanout; runs++ {
		n, stride := runAt(w, i)
		if n == 0 {
			break
		}
		if runs == maxRuns {
			return appendAll(dst[:at+pageHeader], at, h, w)
		}
		i += skipZeros(w, i)
		count := uint16(n)
		if stride == 1 {
			count |= runStride
		}
		dst = binary.LittleEndian.AppendUint16(dst, uint16(i))
		dst = binary.LittleEndian.AppendUint16(dst, count)
		dst = binary.LittleEndian.AppendUint64(dst, w[i])
		i += n
	}
	binary.LittleEndian.PutUint16(dst[at+68:], uint16(runs))
	return binary.LittleEndian.AppendUint32(dst, format.SeededCRC(h.Birth, dst[at:]))
}

func appendAll(dst []byte, at int, h PageHeader, w *[fanout]uint64) []byte {
	dst[at+66] = encodingAll
	for _, word := range w {
		dst = binary.LittleEndian.AppendUint64(dst, word)
	}
	return binary.LittleEndian.AppendUint32(dst, format.SeededCRC(h.Birth, dst[at:]))
}

func skipZeros(w *[fanout]uint64, i int) int {
	n := 0
	for i+n < fanout && w[i+n] == 0 {
		n++
	}
	return n
}

// runAt returns the length and stride of the first run at or after word i, 0
// if the rest is zero.
func runAt(w *[fanout]uint64, i int) (n int, stride uint64) {
	i += skipZeros(w, i)
	if i == fanout {
		return 0, 0
	}
	n = 1
	if i+1 < fanout && w[i+1] == w[i]+1 {
		stride = 1
	}
	for i+n < fanout && w[i+n] != 0 && w[i+n] == w[i+n-1]+stride {
		n++
	}
	return n, stride
}

// CheckPage returns nil if b is the page of that owner and number, an error
// that matches ErrPageCorrupt or format.ErrNewer otherwise.
func CheckPage(b []byte, owner uuid.UUID, number uint64) error {
	_, err := checkPage(b, owner, number)
	return err
}

func checkPage(b []byte, owner uuid.UUID, number uint64) (PageHeader, error) {
	fh, err := format.DecodeHeader(b, format.KindPage, pageVersion, 0)
	if err != nil {
		return PageHeader{}, fmt.Errorf("%w: %w", ErrPageCorrupt, err)
	}
	if fh.Owner != owner || fh.Number != number {
		return PageHeader{}, fmt.Errorf("%w: it is page %d of %s", ErrPageCorrupt, fh.Number, fh.Owner)
	}
	if len(b) < pageHeader+4 || len(b) > MaxPageSize {
		return PageHeader{}, fmt.Errorf("%w: %d bytes long", ErrPageCorrupt, len(b))
	}
	end := len(b) - 4
	if got, want := format.SeededCRC(fh.Incarnation, b[:end]), binary.LittleEndian.Uint32(b[end:]); got != want {
		return PageHeader{}, fmt.Errorf("%w: CRC is %08x, not %08x", ErrPageCorrupt, got, want)
	}
	h := PageHeader{Kind: TreeKind(b[64]), Level: b[65], Birth: fh.Incarnation, Seq: binary.LittleEndian.Uint64(b[72:])}
	if h.Kind > TreeLive || h.Level > maxLevels+2 || b[67] != 0 || b[70] != 0 || b[71] != 0 {
		return PageHeader{}, fmt.Errorf("%w: tree %d, level %d", ErrPageCorrupt, h.Kind, h.Level)
	}
	return h, nil
}

// DecodePage reads what AppendPage wrote of that owner and number into w,
// which is overwritten whole. Errors are those of CheckPage; w is then not to
// be used.
func DecodePage(b []byte, owner uuid.UUID, number uint64, w *[fanout]uint64) (PageHeader, error) {
	h, err := checkPage(b, owner, number)
	if err != nil {
		return h, err
	}
	runs, body := int(binary.LittleEndian.Uint16(b[68:])), b[pageHeader:len(b)-4]
	switch b[66] {
	case encodingRuns:
		err = decodeRuns(body, runs, w)
	case encodingAll:
		if runs != 0 || len(body) != pageBytes {
			return h, fmt.Errorf("%w: all words in %d bytes and %d runs", ErrPageCorrupt, len(body), runs)
		}
		for i := range w {
			w[i] = binary.LittleEndian.Uint64(body[8*i:])
		}
	default:
		err = fmt.Errorf("%w: encoding %d", ErrPageCorrupt, b[66])
	}
	if err != nil {
		return h, err
	}
	for i, word := range w {
		if word>>62 == badWordKind {
			return h, fmt.Errorf("%w: word %d is %#x", ErrPageCorrupt, i, word)
		}
	}
	return h, nil
}

func decodeRuns(body []byte, runs int, w *[fanout]uint64) error {
	if len(body) != runs*runBytes || runs > maxRuns {
		return fmt.Errorf("%w: %d runs in %d bytes", ErrPageCorrupt, runs, len(body))
	}
	clear(w[:])
	next := 0
	for ; len(body) > 0; body = body[runBytes:] {
		i, n := int(binary.LittleEndian.Uint16(body)), int(binary.LittleEndian.Uint16(body[2:]))
		stride := uint64(n >> 15)
		n &^= runStride
		if i < next || n == 0 || i+n > fanout {
			return fmt.Errorf("%w: run of %d words at %d", ErrPageCorrupt, n, i)
		}
		next = i + n
		word := binary.LittleEndian.Uint64(body[4:])
		for ; i < next; i++ {
			w[i] = word
			word += stride
		}
	}
	return nil
}
