package tlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Scan calls fn for each entry of a whole TLog (header included) in order
// and returns the header, the offset behind the last good entry, and whether a
// seal ends the file. A torn or foreign entry ends the scan without an error: that is
// how the log ends in a file that was never synced. The caller judges whether the log
// may end there (rule O2). Scan returns an error for a bad header, for an entry that a
// newer release wrote, and if fn returns one.
func Scan(b []byte, fn func(off int64, e Entry) error) (h Header, end int64, sealed bool, err error) {
	return walk(&window{b: b, end: int64(len(b)), size: int64(len(b))}, fn)
}

// ScanAt is Scan of a file or object of size bytes. It keeps windowBytes of it in
// memory, and reads little behind the end of the log, however large the file is. An
// error of r does not count as the end of the log: it is returned. The payload of an
// entry is valid until fn returns.
func ScanAt(r io.ReaderAt, size int64, fn func(off int64, e Entry) error) (h Header, end int64, sealed bool, err error) {
	return walk(&window{r: r, size: size}, fn)
}

// Ordered is ScanAt that returns the entries with a seq of their own.
func Ordered(r io.ReaderAt, size int64) (h Header, entries []Entry, end int64, err error) {
	h, end, _, err = ScanAt(r, size, func(_ int64, e Entry) error {
		if e.Kind.Ordered() {
			e.Payload = bytes.Clone(e.Payload)
			entries = append(entries, e)
		}
		return nil
	})
	return h, entries, end, err
}

func walk(w *window, fn func(off int64, e Entry) error) (h Header, end int64, sealed bool, err error) {
	if err := w.fill(HeaderSize); err != nil {
		return h, 0, false, err
	}
	h, err = DecodeHeader(w.b)
	if err != nil {
		return h, 0, false, err
	}
	seed := SeedOf(h.Incarnation)
	w.skip(HeaderSize)
	for {
		at := w.at()
		if err := w.fill(entryMax); err != nil {
			return h, at, false, err
		}
		e, n, err := Decode(w.b, seed)
		if errors.Is(err, ErrNewer) {
			return h, at, false, err
		}
		if err != nil {
			return h, at, false, nil
		}
		if err := fn(at, e); err != nil {
			return h, at, false, err
		}
		w.skip(n)
		if e.Kind == KindSeal {
			return h, w.at(), true, nil
		}
	}
}

// entryMax is a bound of the length of an entry, in bytes.
const entryMax = 1 << 16

// windowBytes is how much of a TLog is read at a time.
const windowBytes = 4 << 20

// window is the part of a TLog that a scan has in memory.
type window struct {
	r    io.ReaderAt // nil: b is all of it
	buf  []byte
	b    []byte // not scanned yet
	end  int64  // offset behind b
	size int64
}

// at is the offset of b.
func (w *window) at() int64 { return w.end - int64(len(w.b)) }

func (w *window) skip(n int) { w.b = w.b[n:] }

// fill makes b at least n bytes long, if there are so many.
func (w *window) fill(n int) error {
	if w.r == nil || len(w.b) >= n || w.end >= w.size {
		return nil
	}
	if w.buf == nil {
		w.buf = make([]byte, min(w.size, windowBytes))
	}
	k := copy(w.buf, w.b)
	part := w.buf[k:min(int64(len(w.buf)), int64(k)+w.size-w.end)]
	got, err := w.r.ReadAt(part, w.end)
	if got < len(part) {
		if err != nil && err != io.EOF {
			return fmt.Errorf("read at %d: %w", w.end, err)
		}
		w.size = w.end + int64(got) // the file is shorter than size said
	}
	w.b, w.end = w.buf[:k+got], w.end+int64(got)
	return nil
}

// ScanCovered calls fn for each of the entries that a commit block covers.
func ScanCovered(b []byte, fn func(Entry) error) error {
	for len(b) > 0 {
		e, n, err := DecodeCovered(b)
		if err != nil {
			return err
		}
		if err := fn(e); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
