package asd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/format"
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

// checkpoint writes the index to its file, while Applys go on. The new one has
// been synced before it takes the name of the one before.
func (a *ASD) checkpoint() error {
	a.mu.RLock()
	seq := a.seq
	list := make([]savedSegment, 0, len(a.segments))
	for _, s := range a.segments {
		list = append(list, savedSegment{s.number, uint32(s.tomb), s.incarnation, uint64(s.done), s.since})
	}
	a.mu.RUnlock()
	slices.SortFunc(list, func(x, y savedSegment) int { return int(int64(x.number) - int64(y.number)) })

	size, err := a.writeCheckpoint(seq, list)
	temp := path.Join(a.opt.Dir, indexNew)
	if err == nil {
		if err = a.opt.FS.Rename(temp, path.Join(a.opt.Dir, indexName)); err == nil {
			if err = a.syncDir(); err != nil {
				err = a.fail(err) // nobody may sync again and believe it (rule P6)
			}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.appended = 0 // a failed one is not tried again at once
	if err != nil {
		a.opt.FS.Remove(temp)
		return fmt.Errorf("checkpoint of the index: %w", err)
	}
	a.saved, a.savedSize = seq, size
	a.stats.indexBytes.Add(uint64(size))
	return nil
}

func (a *ASD) writeCheckpoint(seq uint64, list []savedSegment) (int64, error) {
	f, err := a.openFile(path.Join(a.opt.Dir, indexNew), disk.Write|disk.Create|disk.Truncate)
	if err != nil {
		return 0, err
	}
	w := &indexWriter{file: f}
	err = a.encodeIndex(w, rand.Uint64(), seq, list)
	if err == nil {
		err = f.Datasync()
	}
	return w.at, errors.Join(err, f.Close())
}

func (a *ASD) encodeIndex(w *indexWriter, incarnation, seq uint64, list []savedSegment) error {
	le := binary.LittleEndian
	b := format.AppendHeader(make([]byte, 0, 2*indexPiece), format.Header{
		Kind: format.KindASDIndex, Version: Version, MinReader: Version, Owner: a.identity.ID, Number: seq, Incarnation: incarnation,
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
		b = b[:0]
		more = false
		a.mu.RLock()
		a.index.from(next, func(key []byte, p place) bool {
			if len(b) >= indexPiece {
				more = true
				next = append(next[:0], key...)
				return false
			}
			at := len(b)
			b = append(b, byte(len(key)))
			b = append(b, make([]byte, placeSize)...)
			p.put(b[at+1:])
			b = append(b, key...)
			keys++
			return true
		})
		a.mu.RUnlock()
	}
	b = append(b, 0)
	b = le.AppendUint64(b, keys)
	if err := w.write(b); err != nil {
		return err
	}
	return w.write(le.AppendUint32(b[:0], w.sum))
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

// loadCheckpoint reads the checkpoint into the index. It returns nil if there
// is none. An error that is errIndex, or the medium's, is no reason not to open:
// the segments have all that is in it.
func (a *ASD) loadCheckpoint() (*checkpointed, error) {
	name := path.Join(a.opt.Dir, indexName)
	f, err := a.openFile(name, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	bad := 0
	r := &patient{file: f, name: name, bad: &bad}
	c, x, err := decodeIndex(io.NewSectionReader(r, 0, size), a.identity.ID)
	if r.err != nil {
		return nil, r.err // not what was made of it
	}
	if isNewer(err) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err != nil {
		return nil, err
	}
	c.size = size
	a.index = *x
	return c, nil
}

// indexReader reads a checkpoint.
type indexReader struct {
	r   *bufio.Reader
	err error
	buf [4096]byte
}

// next returns n bytes, at most 4096, valid until the next call; zeros once
// there was an error.
func (r *indexReader) next(n int) []byte {
	b := r.buf[:n]
	if r.err == nil {
		_, r.err = io.ReadFull(r.r, b)
	}
	if r.err != nil {
		clear(b)
	}
	return b
}

func decodeIndex(src io.Reader, asd [16]byte) (*checkpointed, *index, error) {
	r := &indexReader{r: bufio.NewReaderSize(src, 1<<20)}
	h, err := format.DecodeHeader(r.next(format.HeaderSize), format.KindASDIndex, Version, 0)
	if r.err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errIndex, r.err)
	}
	if errors.Is(err, format.ErrNewer) {
		return nil, nil, err
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errIndex, err)
	}
	if h.Owner != asd {
		return nil, nil, fmt.Errorf("%w: it is of ASD %v", errIndex, h.Owner)
	}
	sum := format.SeededCRC(h.Incarnation, nil)
	next := func(n int) []byte {
		b := r.next(n)
		sum = crc32.Update(sum, castagnoli, b)
		return b
	}
	le := binary.LittleEndian
	c := &checkpointed{seq: h.Number}
	head := next(8)
	flags := le.Uint32(head[4:])
	for range le.Uint32(head) {
		b := next(indexSegment)
		if r.err != nil {
			break
		}
		s := savedSegment{le.Uint32(b), le.Uint32(b[4:]), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])}
		// In order, and so no more than there can be, however long the file is.
		if n := len(c.segments); n > 0 && c.segments[n-1].number >= s.number || s.number == 0 {
			return nil, nil, fmt.Errorf("%w: segment %d out of order", errIndex, s.number)
		}
		c.segments = append(c.segments, s)
	}
	x := &index{}
	var last []byte
	for r.err == nil {
		n := int(next(1)[0])
		if n == 0 {
			break
		}
		b := next(placeSize + n)
		key := b[placeSize:]
		if last != nil && string(key) <= string(last) {
			return nil, nil, fmt.Errorf("%w: key %x after %x", errIndex, key, last)
		}
		last = append(last[:0], key...)
		p := getPlace(b)
		if p.size > osd.ValueMax {
			return nil, nil, fmt.Errorf("%w: key %x: %d bytes", errIndex, key, p.size)
		}
		if r.err == nil {
			x.put(key, p)
		}
	}
	keys := le.Uint64(next(8))
	want := sum
	got := le.Uint32(r.next(4))
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
