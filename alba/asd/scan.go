package asd

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/format"
	"openvstorage/internal/wal"

	"github.com/google/uuid"
)

// Record is what a scan finds in a segment: a batch, a mark, or a gap.
type Record struct {
	Offset  int64
	Length  int64
	Seq     uint64
	Durable uint64
	Mark    bool
	// Kind is not zero for a record that this release does not know and that may be
	// skipped. Mark is set too, since such a record counts for its durable alone.
	Kind uint16
	// Gap is set if there is no batch here, but one follows, or a mark does that
	// speaks of one. It is also set if the medium does not give what is here. Err
	// says which.
	Gap     bool
	Entries []Entry
	// Err is not nil if something is wrong with the record; Entries then holds those
	// that are whole. It is osd.ErrUnreadable if the medium does not give some of the
	// record.
	Err error

	s *scanner
}

// Entry is one update of a batch. Offsets are in the file.
type Entry struct {
	Key      []byte
	Delete   bool
	Size     uint32
	Offset   int64
	Table    int64
	TableCRC uint32
	Seed     uint64
	Epoch    uint64
	Since    uint64
}

// Check reads the value of an entry and its CRC table and verifies both. A
// delete has neither.
func (r *Record) Check(i int) error {
	e := &r.Entries[i]
	if e.Delete {
		return nil
	}
	_, err := r.s.value(e, nil)
	return err
}

// Segment is the header of a segment file.
type Segment struct {
	ASD         uuid.UUID
	Number      uint64
	Incarnation uint64
	Size        int64
}

// ScanSegment reads a segment file and calls fn for each record in it, in order. It
// ends early if fn fails, or if a read fails with an error that is not the medium's.
// It returns the header even if what follows is bad. A segment may end with batches
// that do not count: their seqs are used again in the next segment.
func ScanSegment(fsys disk.FS, name string, fn func(*Record) error) (Segment, error) {
	f, err := fsys.OpenFile(name, 0, 0)
	if err != nil {
		return Segment{}, err
	}
	defer f.Close()
	bad := 0
	h, err := readHeader(f, name, &bad)
	if err != nil {
		return Segment{}, fmt.Errorf("%s: %w", name, err)
	}
	size, err := f.Size()
	if err != nil {
		return Segment{}, err
	}
	s := newScanner(f, name, h.Incarnation, size, &bad)
	_, err = s.scan(blockSize, 0, 0, fn)
	return Segment{h.ASD, h.Number, h.Incarnation, size}, err
}

func readHeader(f io.ReaderAt, name string, bad *int) (headerOf, error) {
	var b [blockSize]byte
	// A shorter file has zeros there.
	if err := readSmall(f, name, b[:], 0, bad); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return headerOf{}, err
	}
	return decodeHeader(b[:])
}

// scanner reads the records of a segment.
type scanner struct {
	file        io.ReaderAt
	name        string
	incarnation uint64
	size        int64
	bad         *int // blocks that could not be read

	window []byte
	at     int64 // of the window in the file
	small  int64 // up to here reads are small: a long one failed
}

// newScanner returns a scanner of a file. It reads no further than batches can reach,
// however long the file is.
func newScanner(f io.ReaderAt, name string, incarnation uint64, size int64, bad *int) *scanner {
	return &scanner{file: f, name: name, incarnation: incarnation, size: min(size, segmentBytesMax), bad: bad}
}

const windowSize = 64 << 10

// bytes returns n bytes at an offset, fewer if the file ends, valid until the next
// call. Bytes that the medium does not give are zeros, and the error an *unreadable.
func (s *scanner) bytes(off int64, n, window int) ([]byte, error) {
	n = int(min(int64(n), s.size-off))
	if n <= 0 {
		return nil, nil
	}
	if skip := off - s.at; skip >= 0 && skip+int64(n) <= int64(len(s.window)) {
		return s.window[skip : skip+int64(n)], nil
	}
	if off < s.small {
		window = blockSize
	}
	want := int(min(int64(max(n, window)), s.size-off))
	if cap(s.window) < want {
		s.window = make([]byte, want)
	}
	s.at = off
	s.window = s.window[:want]
	_, err := readFull(s.file, s.window, off)
	if err == nil {
		return s.window[:n], nil
	}
	if medium(err) {
		// A bad sector in the window is no reason not to read what is asked for.
		s.small = max(s.small, off+int64(want))
		b := s.window[:n]
		s.window = s.window[:0]
		return b, readSmall(s.file, s.name, b, off, s.bad)
	}
	s.window = s.window[:0]
	return nil, fmt.Errorf("%s, offset %d: %w", s.name, off, err)
}

// scan calls fn for the records from an offset on. It ends at the first batch whose
// seq reaches limit, unless that is zero. A batch whose seq is not above last, that of
// the batch before, counts as none. end is the offset behind the last record.
func (s *scanner) scan(from int64, last, limit uint64, fn func(*Record) error) (end int64, err error) {
	for end = from; end+wal.HeadSize <= s.size; {
		r, why := s.record(end)
		if why != nil && !isDamage(why) && !isUnreadable(why) {
			return end, why
		}
		if r != nil && isNewer(r.Err) && (limit == 0 || r.Seq < limit) {
			return end, r.Err
		}
		if r == nil || !r.Mark && r.Seq <= last {
			next, err := s.gap(end, last, why, fn)
			if next == 0 || err != nil {
				return end, err
			}
			end = next
			continue
		}
		if !r.Mark {
			if limit != 0 && r.Seq >= limit {
				return end, nil
			}
			last = r.Seq
		}
		end += r.Length
		if err := fn(r); err != nil {
			return end, err
		}
	}
	return end, nil
}

// gap deals with an offset at which there is no record. why is nil if there is
// nothing like one. It returns the offset of the next record, zero if there is none.
// The log ends here then, unless the medium does not give what is here: that is a gap.
func (s *scanner) gap(at int64, last uint64, why error, fn func(*Record) error) (next int64, err error) {
	if next, err = s.search(at+blockSize, last); err != nil {
		return 0, err
	}
	g := &Record{Offset: at, Length: next - at, Gap: true, Err: why}
	if next == 0 {
		if !isUnreadable(why) {
			return 0, nil
		}
		g.Length = s.size - at
	}
	if why == nil {
		g.Err = fmt.Errorf("%w: no record", ErrFormat)
	}
	return next, fn(g)
}

// search returns the offset of the first record from an offset on, zero if there is
// none. Its seq or its durable is above last, so there was a record before it. Blocks
// that cannot be read are passed over: the caller reports the first of them.
func (s *scanner) search(from int64, last uint64) (int64, error) {
	for at := from; at+wal.HeadSize <= s.size; at += blockSize {
		b, err := s.bytes(at, wal.HeadSize, 1<<20)
		if isUnreadable(err) {
			continue
		}
		if err != nil {
			return 0, err
		}
		h, ok, err := wal.DecodeHead(b, s.incarnation)
		if err != nil || !ok || h.Seq <= last || h.Kind != kindBatch && h.Flags&wal.FlagSkippable != 0 && h.Durable <= last {
			if isNewer(err) {
				return 0, s.newer(at, err)
			}
			continue
		}
		r, err := s.record(at)
		if r != nil {
			return at, nil
		}
		if err != nil && !isDamage(err) && !isUnreadable(err) {
			return 0, err
		}
	}
	return 0, nil
}

// record returns the record at an offset, nil if there is none.
func (s *scanner) record(at int64) (*Record, error) {
	b, err := s.bytes(at, wal.HeadSize, windowSize)
	if err != nil {
		return nil, err
	}
	h, ok, err := wal.DecodeHead(b, s.incarnation)
	if isNewer(err) {
		return nil, s.newer(at, err)
	}
	if err != nil || !ok {
		return nil, err
	}
	r := &Record{Offset: at, Seq: h.Seq, Durable: h.Durable, s: s}
	switch {
	case h.Kind == kindMark:
		r.Mark, r.Length = true, blockSize
		return r, nil
	case h.Kind != kindBatch:
		return s.unknown(r, h)
	case at+int64(h.Size()) > s.size:
		return nil, fmt.Errorf("%w: batch %d ends behind the file", ErrFormat, h.Seq)
	}
	b, err = s.bytes(at, h.Size(), windowSize)
	if err != nil && !isUnreadable(err) {
		return nil, err
	}
	r.Err = err
	body := bytes.Clone(b[wal.HeadSize:][:h.Length])
	p, err := decodePrefix(body, s.incarnation, at, h.Length)
	if err != nil {
		return nil, errors.Join(err, r.Err)
	}
	r.Length = p.size()
	r.Err = errors.Join(r.Err, h.Check(body, s.incarnation))
	for i := range int(p.Entries) {
		e, err := decodeEntry(body, i, p.size(), s.incarnation)
		if isNewer(err) {
			err = s.newer(at, err)
		}
		if err != nil {
			r.Err = errors.Join(r.Err, err)
			continue
		}
		r.Entries = append(r.Entries, Entry{
			Key: e.Key, Delete: e.Delete, Size: e.Size, Offset: at + int64(e.Data), Table: at + int64(e.Table),
			TableCRC: e.TableCRC, Seed: e.Seed, Epoch: e.Epoch, Since: e.Since,
		})
	}
	return r, nil
}

// unknown reads a record of a kind that this release does not know: as a mark if its
// flags say that it may be skipped, with format.ErrNewer if they do not.
func (s *scanner) unknown(r *Record, h wal.Head) (*Record, error) {
	if h.Flags&wal.FlagSkippable == 0 {
		r.Length, r.Err = blockSize, s.newer(r.Offset, fmt.Errorf("%w: record of kind %d", format.ErrNewer, h.Kind))
		return r, nil
	}
	b, err := s.bytes(r.Offset, h.Size(), windowSize)
	switch {
	case err != nil:
		return nil, err
	case len(b) < h.Size():
		return nil, fmt.Errorf("%w: record %d of kind %d ends behind the file", ErrFormat, h.Seq, h.Kind)
	}
	if err := h.Check(b[wal.HeadSize:][:h.Length], s.incarnation); err != nil {
		return nil, err
	}
	r.Mark, r.Kind, r.Length = true, h.Kind, roundUp(int64(h.Size()))
	return r, nil
}

// newer is the error for something that this release does not know. It is not damage:
// nothing is cut, deleted or compacted because of it.
func (s *scanner) newer(at int64, err error) error {
	return fmt.Errorf("%s, offset %d: %w; open it with the release that wrote it", s.name, at, err)
}

func isNewer(err error) bool { return errors.Is(err, format.ErrNewer) }

// value reads an entry's value and verifies it and its CRC table. buf, if it
// is long enough, becomes the memory of the data.
func (s *scanner) value(e *Entry, buf []byte) (osd.Value, error) {
	v := osd.Value{Seed: e.Seed, Epoch: e.Epoch, CRCs: make([]uint32, osd.Blocks(int(e.Size)))}
	table := make([]byte, 4*len(v.CRCs))
	if err := s.read(table, e.Table); err != nil {
		return v, fmt.Errorf("CRCs: %w", err)
	}
	getTable(v.CRCs, table)
	if got := osd.TableCRC(v.CRCs); got != e.TableCRC {
		return v, fmt.Errorf("%w: CRCs at offset %d: their CRC is %08x, not %08x", osd.ErrCorrupt, e.Table, got, e.TableCRC)
	}
	if cap(buf) < int(e.Size) {
		buf = aligned(nil, int(e.Size))
	}
	v.Data = buf[:e.Size]
	if err := s.read(v.Data, e.Offset); err != nil {
		return v, fmt.Errorf("data: %w", err)
	}
	if bad := check(v.Data, v.CRCs, v.Seed, 0); bad >= 0 {
		return v, fmt.Errorf("%w: block %d, at offset %d, does not match its checksum", osd.ErrCorrupt, bad, e.Offset+int64(bad)*blockSize)
	}
	return v, nil
}

// read fills p. The error is osd.ErrCorrupt if the file ends before, and an
// *unreadable if the medium does not give some of it.
func (s *scanner) read(p []byte, off int64) error {
	_, err := readFull(s.file, p, off)
	switch {
	case err == nil:
		return nil
	case medium(err):
		return readSmall(s.file, s.name, p, off, s.bad)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %s ends before offset %d", osd.ErrCorrupt, s.name, off+int64(len(p)))
	}
	return fmt.Errorf("%s, offset %d: %w", s.name, off, err)
}
