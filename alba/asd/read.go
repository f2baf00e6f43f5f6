package asd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"openvstorage/alba/osd"
)

// buffer returns blockSize + 8 bytes. A channel and not a sync.Pool: of fixed
// size, and not emptied by the garbage collector.
func (a *ASD) buffer() []byte {
	select {
	case b := <-a.buffers:
		return b
	default:
		return make([]byte, blockSize+8)
	}
}

func (a *ASD) putBuffer(b []byte) {
	select {
	case a.buffers <- b:
	default:
	}
}

// Read implements osd.OSD.
func (a *ASD) Read(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a.stats.reads.Add(1)
	if err := checkKey(key); err != nil {
		return fmt.Errorf("asd: read: %w", err)
	}
	if err := a.read(key, off, p, crcs); err != nil {
		return fmt.Errorf("asd: read: %w", err)
	}
	return nil
}

// lookup returns where a value is, and the file, which is to be released.
func (a *ASD) lookup(key []byte) (place, *handle, error) {
	for {
		p, s, h, err := a.find(key)
		if h != nil || err != nil {
			return p, h, err
		}
		h, err = a.file(s)
		s.waiting.Add(-1)
		switch {
		case err == nil:
			return p, h, nil
		case errors.Is(err, fs.ErrNotExist) && a.moved(key, p):
			continue // the segment has been compacted meanwhile
		case errors.Is(err, fs.ErrNotExist) && a.there():
			return p, nil, s.corrupt(key, 0, "the segment is gone")
		}
		return p, nil, s.readError(key, err)
	}
}

// there reports whether the ASD's directory is where it was: of a disk that is
// gone from under it nothing is known.
func (a *ASD) there() bool {
	_, err := a.opt.FS.Stat(path.Join(a.opt.Dir, identityName))
	return err == nil
}

// find returns where a value is, and the file, if it is open. Otherwise the
// segment is waited for.
func (a *ASD) find(key []byte) (place, *segment, *handle, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.closed {
		return place{}, nil, nil, osd.ErrClosed
	}
	p, ok := a.index.get(key)
	s := a.segments[p.segment]
	switch {
	case (!ok || s == nil) && a.unread != nil:
		return place{}, nil, nil, fmt.Errorf("key %x: %w", key, a.unread)
	case !ok:
		return place{}, nil, nil, osd.ErrNotFound
	case s == nil:
		return place{}, nil, nil, &CorruptError{Key: bytes.Clone(key), File: segmentName(p.segment), What: "the segment is missing or unreadable"}
	}
	if h := s.handle.Load(); h != nil && h.acquire() {
		return p, s, h, nil
	}
	s.waiting.Add(1)
	return p, s, nil, nil
}

// moved reports whether a value is no longer where it was.
func (a *ASD) moved(key []byte, p place) bool {
	q, ok := a.place(key)
	return !ok || q != p
}

func (a *ASD) read(key []byte, off uint32, p []byte, crcs []uint32) error {
	where, h, err := a.lookup(key)
	if err != nil {
		return err
	}
	defer h.release(a.files)
	end := uint64(off) + uint64(len(p))
	if off%blockSize != 0 || end > uint64(where.size) || len(p)%blockSize != 0 && end != uint64(where.size) || len(crcs) != osd.Blocks(len(p)) {
		return fmt.Errorf("%w: %d bytes from %d of %d, %d checksums", osd.ErrInvalid, len(p), off, where.size, len(crcs))
	}
	if err := a.readFrom(h, where, key, off, p, crcs); err != nil {
		if errors.Is(err, osd.ErrCorrupt) {
			a.stats.corrupt.Add(1)
			a.opt.Logger.Error("asd: a value is corrupt", "asd", a.ID(), "err", err)
			if a.opt.OnCorrupt != nil {
				a.opt.OnCorrupt(bytes.Clone(key), err)
			}
		}
		return err
	}
	return nil
}

// readFrom reads a range of a value, which must be in it, and checks it.
func (a *ASD) readFrom(h *handle, where place, key []byte, off uint32, p []byte, crcs []uint32) error {
	if len(p) == 0 {
		return nil
	}
	if packed(where.size) {
		return a.readPacked(h, where, key, p, crcs)
	}
	s := h.segment
	if err := a.crcs(h, where, off/blockSize, crcs); err != nil {
		return s.readError(key, err)
	}
	at := int64(where.data) + int64(off)
	n, err := readFull(h.file, p, at)
	if err != nil {
		return s.readError(key, err)
	}
	a.stats.readBytes.Add(uint64(n))
	if bad := check(p, crcs, where.seed, off/blockSize); bad >= 0 {
		return s.corrupt(key, at+int64(bad)*blockSize, fmt.Sprintf("block %d does not match its checksum", int(off/blockSize)+bad))
	}
	return nil
}

// readPacked reads a value that lies behind its checksum.
func (a *ASD) readPacked(h *handle, where place, key, p []byte, crcs []uint32) error {
	b := a.buffer()
	defer a.putBuffer(b)
	n, err := readFull(h.file, b[:4+len(p)], int64(where.table))
	if err != nil {
		return h.segment.readError(key, err)
	}
	a.stats.readBytes.Add(uint64(n))
	getTable(crcs, b)
	copy(p, b[4:])
	if check(p, crcs, where.seed, 0) >= 0 {
		return h.segment.corrupt(key, int64(where.data), "it does not match its checksum")
	}
	return nil
}

// readError is for a read that came back short. That the file ends is damage of
// the value; that the medium does not give it is osd.ErrUnreadable; anything else
// may pass.
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
func (a *ASD) crcs(h *handle, where place, first uint32, crcs []uint32) error {
	at := int64(where.table) + 4*int64(first)
	for len(crcs) > 0 {
		block, off := uint32(at/blockSize), int(at%blockSize)
		n := min(len(crcs), (blockSize-off)/4)
		if !a.tables.get(where.segment, block, off, crcs[:n]) {
			if err := a.loadTable(h, block, off, crcs[:n]); err != nil {
				return err
			}
		}
		crcs = crcs[n:]
		at += int64(4 * n)
	}
	return nil
}

func (a *ASD) loadTable(h *handle, block uint32, off int, crcs []uint32) error {
	b := a.buffer()
	defer a.putBuffer(b)
	if _, err := readFull(h.file, b[:blockSize], int64(block)*blockSize); err != nil { // heads are whole blocks
		return err
	}
	a.stats.readBytes.Add(blockSize)
	getTable(crcs, b[off:])
	a.tables.put(h.segment.number, block, b[:blockSize])
	return nil
}

// Stat implements osd.OSD.
func (a *ASD) Stat(ctx context.Context, keys [][]byte) ([]osd.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(keys) > osd.RangeMax {
		return nil, fmt.Errorf("asd: stat: %w: %d keys", osd.ErrInvalid, len(keys))
	}
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return nil, fmt.Errorf("asd: stat: %w", err)
		}
	}
	list := make([]osd.Info, len(keys))
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.closed {
		return nil, fmt.Errorf("asd: stat: %w", osd.ErrClosed)
	}
	for i, key := range keys {
		p, ok := a.index.get(key)
		if a.unread == nil && a.segments[p.segment] == nil {
			ok = false
		}
		list[i] = osd.Info{Key: bytes.Clone(key), Found: ok, Size: p.size, Epoch: p.epoch}
	}
	return list, nil
}

// Range implements osd.OSD.
func (a *ASD) Range(ctx context.Context, first, last []byte, limit int) ([]osd.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if limit < 0 || limit > osd.RangeMax {
		return nil, fmt.Errorf("asd: range: %w: limit %d", osd.ErrInvalid, limit)
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.closed {
		return nil, fmt.Errorf("asd: range: %w", osd.ErrClosed)
	}
	var list []osd.Info
	a.index.from(first, func(key []byte, p place) bool {
		if len(list) == limit || last != nil && bytes.Compare(key, last) >= 0 {
			return false
		}
		list = append(list, osd.Info{Key: bytes.Clone(key), Found: true, Size: p.size, Epoch: p.epoch})
		return true
	})
	return list, nil
}

// verifyPiece is how much of a value Verify holds at a time.
const verifyPiece = 256 << 10

// Verify implements osd.OSD.
func (a *ASD) Verify(ctx context.Context, after []byte, limit int) (bad []osd.Bad, next []byte, err error) {
	if limit < 1 {
		return nil, nil, fmt.Errorf("asd: verify: %w: limit %d", osd.ErrInvalid, limit)
	}
	key := after
	piece := make([]byte, verifyPiece)
	for range limit {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		var size uint32
		if key, size, err = a.following(key); err != nil || key == nil {
			return bad, nil, err
		}
		switch err := a.verify(ctx, key, size, piece); {
		case err == nil, errors.Is(err, osd.ErrNotFound), errors.Is(err, osd.ErrInvalid): // deleted or replaced since
		case errors.Is(err, osd.ErrClosed), ctx.Err() != nil:
			return nil, nil, err
		case !isDamage(err) && !errors.Is(err, osd.ErrUnreadable):
			return nil, nil, fmt.Errorf("asd: verify: %w", err) // it says nothing of the value
		default:
			bad = append(bad, osd.Bad{Key: key, Err: err})
		}
	}
	if last, _, err := a.following(key); err != nil || last == nil {
		return bad, nil, err
	}
	return bad, key, nil
}

// following returns the first key behind another, nil if there is none.
func (a *ASD) following(after []byte) (key []byte, size uint32, err error) {
	first := append(bytes.Clone(after), 0)
	if after == nil {
		first = nil
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.closed {
		return nil, 0, fmt.Errorf("asd: verify: %w", osd.ErrClosed)
	}
	a.index.from(first, func(k []byte, p place) bool {
		key, size = bytes.Clone(k), p.size
		return false
	})
	return key, size, nil
}

func (a *ASD) verify(ctx context.Context, key []byte, size uint32, piece []byte) error {
	var crcs [verifyPiece / blockSize]uint32
	for off := uint32(0); off < size; off += verifyPiece {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(verifyPiece, size-off)
		if err := a.read(key, off, piece[:n], crcs[:osd.Blocks(int(n))]); err != nil {
			return err
		}
	}
	return nil
}
