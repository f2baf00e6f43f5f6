package fragmentcache

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"sync/atomic"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"
)

const suffix = ".segment"

func segmentName(dir string, number uint64) string {
	return path.Join(dir, fmt.Sprintf("%016x%s", number, suffix))
}

// segmentNumber returns the number in a file's base name, if it is ours.
func segmentNumber(base string) (uint64, bool) {
	digits, ok := strings.CutSuffix(base, suffix)
	n, err := strconv.ParseUint(digits, 16, 64)
	return n, ok && err == nil && n > 0 && base == fmt.Sprintf("%016x%s", n, suffix)
}

// segment is a file of extents. Whoever reads it holds a reference, which is taken while an
// extent of the index names the segment. Whoever releases the last one closes the file.
type segment struct {
	file        disk.File
	name        string
	number      uint64
	incarnation uint64
	slot        int
	refs        atomic.Int64

	// crcs[i] is the checksum of block 1+i. The checksums of an extent are set before
	// the extent enters the index.
	crcs []uint32
	size int64 // of the file, once it is sealed

	failed atomic.Bool // a read failed, and a line in the log says so
}

func (s *segment) acquire() { s.refs.Add(1) }

func (s *segment) release() {
	if s.refs.Add(-1) == 0 {
		_ = s.file.Close() // nothing that it could tell matters
	}
}

// header returns block 0.
func header(number, incarnation uint64) []byte {
	b := format.AppendHeader(make([]byte, 0, blockSize), format.Header{
		Kind: format.KindFragmentCache, Version: Version, MinReader: Version, Number: number, Incarnation: incarnation,
	})
	return b[:blockSize]
}

// createSegment begins a segment. Its slot and checksums are not set.
func createSegment(fsys disk.FS, dir string, number, incarnation uint64) (*segment, error) {
	name := segmentName(dir, number)
	f, err := fsys.OpenFile(name, disk.Write|disk.Create|disk.Truncate, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(header(number, incarnation), 0); err != nil {
		return nil, errors.Join(err, f.Close(), fsys.Remove(name))
	}
	s := &segment{file: f, name: name, number: number, incarnation: incarnation}
	s.refs.Store(1)
	return s, nil
}

// openSegment opens a segment. readIndex finds whether it is sealed.
func openSegment(fsys disk.FS, dir string, number uint64) (s *segment, err error) {
	name := segmentName(dir, number)
	f, err := fsys.OpenFile(name, 0, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	var b [format.HeaderSize]byte
	if err := readFull(f, b[:], 0); err != nil {
		return nil, err
	}
	h, err := format.DecodeHeader(b[:], format.KindFragmentCache, Version, 0)
	if err != nil {
		return nil, err
	}
	if h.Number != number {
		return nil, fmt.Errorf("%w: it says it is number %x", errFormat, h.Number)
	}
	s = &segment{file: f, name: name, number: number, incarnation: h.Incarnation, size: size}
	s.refs.Store(1)
	return s, nil
}

// readIndex reads and checks the index of a sealed segment. It returns the buffer that holds
// it: buf, or a longer one.
func (s *segment) readIndex(buf []byte) (footer, []byte, error) {
	var b [footerSize]byte
	if s.size < blockSize+footerSize {
		return footer{}, buf, fmt.Errorf("%w: it has %d bytes", errFormat, s.size)
	}
	if err := readFull(s.file, b[:], s.size-footerSize); err != nil {
		return footer{}, buf, err
	}
	foot, err := decodeFooter(b[:], s.size, s.incarnation)
	if err != nil {
		return footer{}, buf, err
	}
	n := int(indexSize(foot.blocks, foot.entries)) - footerSize
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if err := readFull(s.file, buf, int64(foot.blocks)*blockSize); err != nil {
		return footer{}, buf, err
	}
	return foot, buf, foot.checkIndex(buf, s.incarnation)
}

func readFull(f disk.File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}
