package asd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/format"

	"github.com/google/uuid"
)

const (
	indexName    = "index"
	indexNew     = "index.new"
	indexSegment = 32
	// indexPiece is how much of the index is copied while it may not change.
	indexPiece = 128 << 10
)

// savedSegment is a segment as a checkpoint has it.
type savedSegment struct {
	number      uint32
	tomb        uint32
	incarnation uint64
	done        uint64
	since       uint64
}

// indexWriter writes a file from its begin and keeps a CRC of it.
type indexWriter struct {
	file disk.File
	at   int64
	sum  uint32
}

func (w *indexWriter) write(b []byte) error {
	n, err := w.file.WriteAt(b, w.at)
	w.at += int64(n)
	w.sum = crcOf(w.sum, b)
	return err
}

// checkpointed is a checkpoint that was read: all but the keys, which are in
// the index.
type checkpointed struct {
	seq      uint64
	size     int64
	segments []savedSegment
}

// errIndex is matched by the error for a checkpoint that is to be passed over.
var errIndex = errors.New("checkpoint of the index is bad")

// encodeIndex writes a checkpoint. Only a piece of the index at a time is held still.
func encodeIndex(w *indexWriter, asd uuid.UUID, incarnation, seq uint64, list []savedSegment, from *contents) error {
	le := binary.LittleEndian
	b := format.AppendHeader(make([]byte, 0, 2*indexPiece), format.Header{
		Kind: format.KindASDIndex, Version: Version, MinReader: Version, Owner: asd, Number: seq, Incarnation: incarnation,
	})
	if err := w.write(b); err != nil {
		return err
	}
	w.sum = format.SeededCRC(incarnation, nil)
	b = le.AppendUint32(b[:0], uint32(len(list)))
	b = le.AppendUint32(b, 0)
	for _, s := range list {
		b = le.AppendUint32(b, s.number)
		b = le.AppendUint32(b, s.tomb)
		b = le.AppendUint64(b, s.incarnation)
		b = le.AppendUint64(b, s.done)
		b = le.AppendUint64(b, s.since)
	}
	keys := uint64(0)
	for next, more := []byte(nil), true; more; {
		if err := w.write(b); err != nil {
			return err
		}
		var n uint64
		b, n, next = from.appendPlaces(b[:0], next, indexPiece)
		keys += n
		more = next != nil
	}
	b = append(b, 0)
	b = le.AppendUint64(b, keys)
	if err := w.write(b); err != nil {
		return err
	}
	return w.write(le.AppendUint32(b[:0], w.sum))
}

// indexReader reads a checkpoint and keeps a CRC of it. Its first error stays.
type indexReader struct {
	r   *bufio.Reader
	err error
	sum uint32
	buf [4096]byte
}

// next returns n bytes, at most 4096, valid until the next call; zeros once
// there was an error.
func (r *indexReader) next(n int) []byte {
	b := r.raw(n)
	r.sum = crc32.Update(r.sum, castagnoli, b)
	return b
}

// raw is next for bytes that the CRC does not cover.
func (r *indexReader) raw(n int) []byte {
	b := r.buf[:n]
	if r.err == nil {
		_, r.err = io.ReadFull(r.r, b)
	}
	if r.err != nil {
		clear(b)
	}
	return b
}

// decodeIndex reads a checkpoint of an ASD's index, all of it. Its error is errIndex, or
// format.ErrNewer.
func decodeIndex(src io.Reader, asd uuid.UUID) (*checkpointed, *index, error) {
	r := &indexReader{r: bufio.NewReaderSize(src, 1<<20)}
	c, err := r.header(asd)
	if err != nil {
		return nil, nil, err
	}
	le := binary.LittleEndian
	head := r.next(8)
	count, flags := le.Uint32(head), le.Uint32(head[4:])
	if c.segments, err = r.segments(count); err != nil {
		return nil, nil, err
	}
	x, err := r.places()
	if err != nil {
		return nil, nil, err
	}
	keys := le.Uint64(r.next(8))
	want := r.sum
	got := le.Uint32(r.raw(4))
	switch {
	case r.err != nil:
		return nil, nil, fmt.Errorf("%w: %w", errIndex, r.err)
	case got != want:
		return nil, nil, fmt.Errorf("%w: CRC is %08x, not %08x", errIndex, got, want)
	case flags != 0:
		return nil, nil, fmt.Errorf("%w: flags %#x in the checkpoint of the index", format.ErrNewer, flags)
	case keys != uint64(x.keys):
		return nil, nil, fmt.Errorf("%w: %d keys of %d", errIndex, x.keys, keys)
	}
	if _, err := r.r.ReadByte(); err != io.EOF {
		return nil, nil, fmt.Errorf("%w: bytes behind its end", errIndex)
	}
	return c, x, nil
}

// header reads the common header, from which on the CRC counts.
func (r *indexReader) header(asd uuid.UUID) (*checkpointed, error) {
	h, err := format.DecodeHeader(r.raw(format.HeaderSize), format.KindASDIndex, Version, 0)
	switch {
	case r.err != nil:
		return nil, fmt.Errorf("%w: %w", errIndex, r.err)
	case errors.Is(err, format.ErrNewer):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errIndex, err)
	case h.Owner != asd:
		return nil, fmt.Errorf("%w: it is of ASD %v", errIndex, h.Owner)
	}
	r.sum = format.SeededCRC(h.Incarnation, nil)
	return &checkpointed{seq: h.Number}, nil
}

// segments reads so many segments, fewer if the file ends.
func (r *indexReader) segments(count uint32) (list []savedSegment, err error) {
	le := binary.LittleEndian
	for range count {
		b := r.next(indexSegment)
		if r.err != nil {
			return list, nil
		}
		s := savedSegment{le.Uint32(b), le.Uint32(b[4:]), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])}
		// In order, and so no more than there can be, however long the file is.
		if n := len(list); n > 0 && list[n-1].number >= s.number || s.number == 0 {
			return nil, fmt.Errorf("%w: segment %d out of order", errIndex, s.number)
		}
		list = append(list, s)
	}
	return list, nil
}

// places reads the keys, up to the zero behind them or the file's end.
func (r *indexReader) places() (*index, error) {
	x := &index{}
	var last []byte
	for r.err == nil {
		n := int(r.next(1)[0])
		if n == 0 {
			break
		}
		b := r.next(placeSize + n)
		key := b[placeSize:]
		if last != nil && string(key) <= string(last) {
			return nil, fmt.Errorf("%w: key %x after %x", errIndex, key, last)
		}
		last = append(last[:0], key...)
		p := getPlace(b)
		if p.size > osd.ValueMax {
			return nil, fmt.Errorf("%w: key %x: %d bytes", errIndex, key, p.size)
		}
		if r.err == nil {
			x.put(key, p)
		}
	}
	return x, nil
}
