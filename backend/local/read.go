package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"openvstorage/backend"
	"openvstorage/internal/format"
)

// open returns the object, held for the caller, from the cache or the disk.
func (s *Store) open(sp *space, name string) (*object, error) {
	o, gen := s.cache.get(objectKey{sp, name})
	if o != nil {
		return o, nil
	}
	if err := backend.CheckName(name); err != nil {
		return nil, err
	}
	o, err := s.load(sp, name)
	if err != nil {
		return nil, err
	}
	return s.cache.add(o, gen), nil
}

// load opens an object's file and checks its trailer and table.
func (s *Store) load(sp *space, name string) (*object, error) {
	path := sp.path(name)
	f, err := s.fs.OpenFile(path, 0, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.absent(sp, name)
	}
	if err != nil {
		return nil, fmt.Errorf("open object: %w", err)
	}
	o := &object{file: f, path: path, key: objectKey{sp, name}}
	if err := o.readTail(incarnation(sp.name, name)); err != nil {
		f.Close()
		return nil, fmt.Errorf("object %s: %w", path, err)
	}
	return o, nil
}

// absent is the error for a file that is not there: the object does not exist, or its
// namespace was deleted meanwhile.
func (s *Store) absent(sp *space, name string) error {
	if s.isGone(sp) {
		return fmt.Errorf("%w: %s", backend.ErrNamespaceNotFound, sp.name)
	}
	return fmt.Errorf("%w: %s/%s", backend.ErrNotFound, sp.name, name)
}

func (o *object) readTail(incarnation uint64) error {
	length, err := o.file.Size()
	if err != nil {
		return err
	}
	size, table, ok := sizes(length)
	if !ok {
		return fmt.Errorf("%w: no object makes a file of %d bytes", backend.ErrCorrupt, length)
	}
	if table > tableMin {
		if err := o.checkTrailer(incarnation, size, table); err != nil {
			return err
		}
	}
	tail := make([]byte, table+trailerSize)
	if n, err := o.file.ReadAt(tail, size); n < len(tail) {
		return o.short(size+int64(n), err)
	}
	v, err := decodeTail(tail, incarnation, size)
	if err != nil {
		return asCorrupt(err)
	}
	o.size, o.version, o.table, o.seed = size, v, tail[:table:table], seedState(incarnation)
	return nil
}

// tableMin is the longest table in bytes that is read together with the trailer. For a
// longer table the trailer is read first, and memory is allocated only if the trailer
// confirms the size: a damaged file may have any length.
const tableMin = 64 << 10

func (o *object) checkTrailer(incarnation uint64, size, table int64) error {
	trailer := make([]byte, trailerSize)
	if n, err := o.file.ReadAt(trailer, size+table); n < len(trailer) {
		return o.short(size+table+int64(n), err)
	}
	_, err := decodeTrailer(trailer, incarnation, size)
	return asCorrupt(err)
}

// asCorrupt turns an error of decoding into one of the backend.
func asCorrupt(err error) error {
	if errors.Is(err, format.ErrCorrupt) {
		return fmt.Errorf("%w: %w", backend.ErrCorrupt, err)
	}
	return err
}

// short is the error for a read that returned too few bytes: ErrCorrupt if the file ends
// there, else the disk's error.
func (o *object) short(off int64, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %s ends at offset %d", backend.ErrCorrupt, o.path, off)
	}
	return err
}

// readAt fills p from offset off, as Get promises. It reads whole blocks:
// straight into p where p covers them, else into a buffer from the pool.
func (o *object) readAt(pool *pool, p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("%s: offset %d is negative", o.path, off)
	}
	if off >= o.size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	if int64(len(p)) > o.size-off {
		p, err = p[:o.size-off], io.EOF
	}
	for n < len(p) {
		m, fail := o.readPart(pool, p[n:], off+int64(n))
		if fail != nil {
			return 0, fail
		}
		n += m
	}
	return n, err
}

// readPart reads some of p with one call: all of it if it is aligned or fits
// the buffer, else up to where the alignment changes.
func (o *object) readPart(pool *pool, p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	low := off / blockSize * blockSize
	high := min((end+blockSize-1)/blockSize*blockSize, o.size)
	if low == off && high == end {
		return len(p), o.readBlocks(p, off)
	}
	if high-low > bufferSize {
		if low == off { // up to the last whole block
			n := int(end/blockSize*blockSize - off)
			return n, o.readBlocks(p[:n], off)
		}
		high = low + blockSize // the first block, which p begins inside of
	}
	b := pool.get()
	defer pool.put(b)
	buf := b[:high-low]
	if err := o.readBlocks(buf, low); err != nil {
		return 0, err
	}
	return copy(p, buf[off-low:]), nil
}

// readBlocks reads whole blocks (the last may be the object's shorter last
// one) and verifies them (P2).
func (o *object) readBlocks(p []byte, off int64) error {
	if n, err := o.file.ReadAt(p, off); n < len(p) {
		return o.short(off+int64(n), err)
	}
	for at := 0; at < len(p); at += blockSize {
		block := p[at:min(at+blockSize, len(p))]
		i := (off + int64(at)) / blockSize
		got, want := blockCRC(o.seed, block), binary.LittleEndian.Uint32(o.table[4*i:])
		if got != want {
			return fmt.Errorf("%w: %s: offset %d: CRC is %08x, not %08x", backend.ErrCorrupt, o.path, off+int64(at), got, want)
		}
	}
	return nil
}

// holds reports whether the object's bytes are data.
func (o *object) holds(pool *pool, data []byte) (bool, error) {
	if o.size != int64(len(data)) {
		return false, nil
	}
	b := pool.get()
	defer pool.put(b)
	for off := 0; off < len(data); off += bufferSize {
		part := data[off:min(off+bufferSize, len(data))]
		if err := o.readBlocks(b[:len(part)], int64(off)); err != nil {
			return false, err
		}
		if string(b[:len(part)]) != string(part) {
			return false, nil
		}
	}
	return true, nil
}

// Unaligned reads and comparisons go through buffers of bufferSize bytes. The pool keeps
// up to buffersKept of them.
const (
	bufferSize  = 256 << 10
	buffersKept = 8
)

// pool is a bounded free list of buffers of bufferSize.
type pool struct{ free chan []byte }

func newPool() *pool { return &pool{free: make(chan []byte, buffersKept)} }

func (p *pool) get() []byte {
	select {
	case b := <-p.free:
		return b
	default:
		return make([]byte, bufferSize)
	}
}

func (p *pool) put(b []byte) {
	select {
	case p.free <- b[:bufferSize]:
	default:
	}
}
