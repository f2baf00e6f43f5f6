package asd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"openvstorage/alba/osd"
)

// reader reads values and checks them.
type reader struct {
	dir       *directory
	health    *health
	contents  *contents
	stats     *counters
	onCorrupt func(key []byte, err error) // nil: nobody is told
	tables    tables
	buffers   chan []byte // blockSize + 8 bytes each
}

// buffer returns blockSize + 8 bytes. A channel and not a sync.Pool: of fixed
// size, and not emptied by the garbage collector.
func (r *reader) buffer() []byte {
	select {
	case b := <-r.buffers:
		return b
	default:
		return make([]byte, blockSize+8)
	}
}

func (r *reader) putBuffer(b []byte) {
	select {
	case r.buffers <- b:
	default:
	}
}

// lookup returns where a value is, and the open file. The caller releases it.
func (r *reader) lookup(key []byte) (place, *handle, error) {
	for {
		if r.health.closed() {
			return place{}, nil, osd.ErrClosed
		}
		p, s, h, err := r.contents.find(key)
		if h != nil || err != nil {
			return p, h, err
		}
		h, err = r.dir.acquire(s)
		s.waiting.Add(-1)
		switch {
		case err == nil:
			return p, h, nil
		case errors.Is(err, fs.ErrNotExist) && r.contents.moved(key, p):
			continue // the segment has been compacted meanwhile
		case errors.Is(err, fs.ErrNotExist) && r.dir.holdsASD():
			return p, nil, s.corrupt(key, 0, "the segment is gone")
		}
		return p, nil, s.readError(key, err)
	}
}

func (r *reader) read(key []byte, off uint32, p []byte, crcs []uint32) error {
	where, h, err := r.lookup(key)
	if err != nil {
		return err
	}
	defer h.release(r.dir.files)
	end := uint64(off) + uint64(len(p))
	if off%blockSize != 0 || end > uint64(where.size) || len(p)%blockSize != 0 && end != uint64(where.size) || len(crcs) != osd.Blocks(len(p)) {
		return fmt.Errorf("%w: %d bytes from %d of %d, %d checksums", osd.ErrInvalid, len(p), off, where.size, len(crcs))
	}
	if err := r.readFrom(h, where, key, off, p, crcs); err != nil {
		if errors.Is(err, osd.ErrCorrupt) {
			r.stats.corrupt.Add(1)
			r.dir.log.Error("asd: a value is corrupt", "asd", r.dir.id, "err", err)
			if r.onCorrupt != nil {
				r.onCorrupt(bytes.Clone(key), err)
			}
		}
		return err
	}
	return nil
}

// readFrom reads a range of a value, which must be in it, and checks it.
func (r *reader) readFrom(h *handle, where place, key []byte, off uint32, p []byte, crcs []uint32) error {
	if len(p) == 0 {
		return nil
	}
	if packed(where.size) {
		return r.readPacked(h, where, key, p, crcs)
	}
	s := h.segment
	if err := r.crcs(h, where, off/blockSize, crcs); err != nil {
		return s.readError(key, err)
	}
	at := int64(where.data) + int64(off)
	n, err := readFull(h.file, p, at)
	if err != nil {
		return s.readError(key, err)
	}
	r.stats.readBytes.Add(uint64(n))
	if bad := check(p, crcs, where.seed, off/blockSize); bad >= 0 {
		return s.corrupt(key, at+int64(bad)*blockSize, fmt.Sprintf("block %d does not match its checksum", int(off/blockSize)+bad))
	}
	return nil
}

// readPacked reads a value that lies behind its checksum.
func (r *reader) readPacked(h *handle, where place, key, p []byte, crcs []uint32) error {
	b := r.buffer()
	defer r.putBuffer(b)
	n, err := readFull(h.file, b[:4+len(p)], int64(where.table))
	if err != nil {
		return h.segment.readError(key, err)
	}
	r.stats.readBytes.Add(uint64(n))
	getTable(crcs, b)
	copy(p, b[4:])
	if check(p, crcs, where.seed, 0) >= 0 {
		return h.segment.corrupt(key, int64(where.data), "it does not match its checksum")
	}
	return nil
}

// readError returns the error of a value that could not be read whole. If the file
// ends before it, the value is corrupt. If the medium does not give it, it is
// osd.ErrUnreadable. Any other error says nothing about the value.
func (s *segment) readError(key []byte, err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return s.corrupt(key, 0, "the file ends before it")
	case medium(err):
		return fmt.Errorf("%w: key %x: %s: %w", osd.ErrUnreadable, key, s.path, err)
	}
	return fmt.Errorf("key %x: %s: %w", key, s.path, err)
}

// crcs fills crcs with the checksums of a value from a block on, by way of the
// cache.
func (r *reader) crcs(h *handle, where place, first uint32, crcs []uint32) error {
	at := int64(where.table) + 4*int64(first)
	for len(crcs) > 0 {
		block, off := uint32(at/blockSize), int(at%blockSize)
		n := min(len(crcs), (blockSize-off)/4)
		if !r.tables.get(where.segment, block, off, crcs[:n]) {
			if err := r.loadTable(h, block, off, crcs[:n]); err != nil {
				return err
			}
		}
		crcs = crcs[n:]
		at += int64(4 * n)
	}
	return nil
}

func (r *reader) loadTable(h *handle, block uint32, off int, crcs []uint32) error {
	b := r.buffer()
	defer r.putBuffer(b)
	if _, err := readFull(h.file, b[:blockSize], int64(block)*blockSize); err != nil { // heads are whole blocks
		return err
	}
	r.stats.readBytes.Add(blockSize)
	getTable(crcs, b[off:])
	r.tables.put(h.segment.number, block, b[:blockSize])
	return nil
}
