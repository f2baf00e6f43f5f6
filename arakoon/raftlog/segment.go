package raftlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"
	"openvstorage/internal/wal"
)

// segment is an open segment file.
type segment struct {
	file        disk.File
	path        string
	number      uint64
	incarnation uint64
	size        int64
	version     uint16 // of its format

	life, generation uint64 // as its header says
}

const (
	suffix    = ".raft"
	spareName = "spare"

	// SegmentMax is the longest that a segment file gets, in bytes. Its usual length is
	// SegmentBytes; one append that needs more gets a longer file.
	SegmentMax = 256 << 20
)

func segmentName(number uint64) string { return fmt.Sprintf("%016x%s", number, suffix) }

func parseName(name string) (number uint64, ok bool) {
	hex, ok := strings.CutSuffix(name, suffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	number, err := strconv.ParseUint(hex, 16, 64)
	return number, err == nil && segmentName(number) == name
}

func roundUp(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

// listSegments returns the numbers of the segments in a directory. They must follow each
// other: segments go from the oldest on, so a gap is a file that was lost.
func listSegments(fsys disk.FS, dir string) (numbers []uint64, err error) {
	names, err := fsys.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, name := range names { // sorted, and so are the numbers
		n, ok := parseName(name)
		if !ok {
			continue
		}
		if k := len(numbers); k > 0 && numbers[k-1]+1 != n {
			return nil, fmt.Errorf("%w: %s: segment %s is missing; restore the directory", ErrDamaged, dir, segmentName(numbers[k-1]+1))
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// readSegment opens a segment and reads it whole into buf.
func (o Options) readSegment(number uint64, buf []byte) (*segment, []byte, error) {
	name := path.Join(o.Dir, segmentName(number))
	f, err := o.FS.OpenFile(name, disk.Write, 0)
	if err != nil {
		return nil, buf, err
	}
	h, buf, err := readFile(f, name, buf)
	switch {
	case err != nil:
	case h.Cluster != o.Cluster || h.Member != o.Member:
		err = fmt.Errorf("%w: %s: it is member %d of cluster %v, not member %d of %v", ErrIdentity, name, h.Member, h.Cluster, o.Member, o.Cluster)
	case h.Number != number:
		err = fmt.Errorf("%w: %s: its header says segment %d", ErrDamaged, name, h.Number)
	case h.Length == 0 && int64(len(buf)) < o.SegmentBytes:
		// Version 1 does not say how long it was made; it was never made shorter.
		err = fmt.Errorf("%w: %s has %d bytes, and was made with %d at least; restore it", ErrDamaged, name, len(buf), o.SegmentBytes)
	}
	if err != nil {
		return nil, buf, errors.Join(err, f.Close())
	}
	s := &segment{file: f, path: name, number: number, incarnation: h.Incarnation, size: int64(len(buf)) / blockSize * blockSize, version: h.version, life: h.Life, generation: h.Generation}
	return s, buf, nil
}

// readFile reads a segment file into buf: as much as its header says that it was made
// with. What is behind that was never written by a log.
func readFile(f disk.File, name string, buf []byte) (headerOf, []byte, error) {
	head := make([]byte, blockSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return headerOf{}, buf, fmt.Errorf("read %s: %w", name, err)
	}
	h, err := decodeHeader(head[:n])
	if errors.Is(err, format.ErrNewer) {
		return h, buf, newer(name, 0, err)
	}
	if err != nil {
		return h, buf, fmt.Errorf("%w: %s: header: %w", ErrDamaged, name, err)
	}
	size, err := f.Size()
	switch {
	case err != nil:
		return h, buf, fmt.Errorf("%s: %w", name, err)
	case size < h.Length:
		return h, buf, fmt.Errorf("%w: %s has %d bytes, and was made with %d; restore it", ErrDamaged, name, size, h.Length)
	case h.Length > 0:
		size = h.Length
	case size > SegmentMax:
		return h, buf, fmt.Errorf("%w: %s: %d bytes, a segment has %d at most; restore the file", ErrDamaged, name, size, SegmentMax)
	}
	if int64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if n, err := f.ReadAt(buf, 0); int64(n) < size {
		return h, buf, fmt.Errorf("read %s: %d bytes of %d: %w", name, n, size, err)
	}
	return h, buf, nil
}

// found is a record in a segment's bytes.
type found struct {
	off int64
	wal.Record
}

// scan reads the records of a segment. The first must have this seq, unless seq is 0. The
// records end before the seq limit, unless that is 0. end is the offset where they end,
// and why is what ended them: nil for limit, zeros, or the end of the file.
func scan(b []byte, incarnation, seq, limit uint64) (records []found, end int64, why error) {
	end = blockSize
	for end+wal.HeadSize <= int64(len(b)) {
		// Zeros up to the end of the block are padding: no record with a body
		// begins with them, and those without are the first of a block.
		if next := roundUp(end); next > end && zeros(b[end:min(next, end+wal.HeadSize)]) {
			end = next
			continue
		}
		h, ok, err := wal.DecodeHead(b[end:], incarnation)
		if err != nil || !ok {
			return records, end, err
		}
		if limit != 0 && h.Seq >= limit {
			return records, end, nil
		}
		if seq != 0 && h.Seq != seq {
			return records, end, fmt.Errorf("%w: seq %d, not %d", wal.ErrCorrupt, h.Seq, seq)
		}
		if end+int64(h.Size()) > int64(len(b)) {
			return records, end, fmt.Errorf("%w: record %d: %d bytes, %d are left", wal.ErrCorrupt, h.Seq, h.Size(), int64(len(b))-end)
		}
		body := b[end+wal.HeadSize : end+int64(wal.HeadSize+h.Length)]
		if err := h.Check(body, incarnation); err != nil {
			return records, end, err
		}
		records = append(records, found{end, wal.Record{Seq: h.Seq, Durable: h.Durable, Kind: h.Kind, Flags: h.Flags, Body: body}})
		seq = h.Seq + 1
		end += int64(h.Size())
	}
	return records, end, nil
}

// laterMark is the highest durable of the rounds that begin behind the offset where the
// records ended: if one of them says that more was synced, what ended the records is
// damage. The error is of a record that a newer release has written.
func laterMark(b []byte, incarnation uint64, from int64) (durable uint64, err error) {
	for at := from / blockSize * blockSize; at+wal.HeadSize <= int64(len(b)); at += blockSize {
		if at < blockSize {
			continue
		}
		h, ok, err := wal.DecodeHead(b[at:], incarnation)
		if errors.Is(err, format.ErrNewer) {
			return durable, err
		}
		if err == nil && ok {
			durable = max(durable, h.Durable)
		}
	}
	return durable, nil
}

func zeros(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
