package asd

import (
	"encoding/binary"
	"errors"
	"fmt"

	"openvstorage/alba/osd"
	"openvstorage/internal/format"
	"openvstorage/internal/wal"

	"github.com/google/uuid"
)

// Version is the newest format of segments and checkpoints that this release
// reads, and the one it writes; identityVersion that of identities.
const (
	Version         = 1
	identityVersion = 2
)

// blockSize is what batches and large values are aligned to.
const blockSize = osd.BlockSize

// Kinds of record. Numbers are on disk.
const (
	kindBatch = 1
	kindMark  = 2
)

// Operations of an entry. Numbers are on disk.
const (
	opPut    = 1
	opDelete = 2
)

const (
	prefixSize = 16
	entrySize  = 48
)

// entriesMax bounds a batch: what one Apply may have, several times.
const entriesMax = 8 * osd.UpdatesMax

// ErrFormat is matched by the error for bytes that are no batch. Bytes with a right CRC
// that say something that this release does not know are format.ErrNewer.
var ErrFormat = errors.New("not a batch of a disk segment")

// packed reports whether a value of so many bytes lies in the head of its
// batch, with its CRC before it, and not in blocks of its own.
func packed(size uint32) bool { return size < blockSize }

// entry is one update in a batch. Offsets are from the batch's begin.
type entry struct {
	Key      []byte
	Delete   bool
	Size     uint32
	Data     uint32
	Table    uint32
	TableCRC uint32
	Seed     uint64
	Epoch    uint64
	// Since is the segment that a delete was first written to.
	Since uint64
}

// prefix begins the body of a batch.
type prefix struct {
	Blocks  uint32
	Entries uint32
	At      uint32 // in blocks
}

func (p prefix) put(b []byte, incarnation uint64) {
	le := binary.LittleEndian
	le.PutUint32(b, p.Blocks)
	le.PutUint32(b[4:], p.Entries)
	le.PutUint32(b[8:], p.At)
	le.PutUint32(b[12:], format.SeededCRC(incarnation, b[:12]))
}

// decodePrefix reads the prefix of a batch that was found at off. length is
// that of the record's body.
func decodePrefix(b []byte, incarnation uint64, off int64, length int) (prefix, error) {
	if len(b) < prefixSize || length < prefixSize {
		return prefix{}, fmt.Errorf("%w: body of %d bytes", ErrFormat, length)
	}
	le := binary.LittleEndian
	if got, want := format.SeededCRC(incarnation, b[:12]), le.Uint32(b[12:]); got != want {
		return prefix{}, fmt.Errorf("%w: CRC of its prefix is %08x, not %08x", ErrFormat, got, want)
	}
	p := prefix{Blocks: le.Uint32(b), Entries: le.Uint32(b[4:]), At: le.Uint32(b[8:])}
	switch {
	case int64(p.At)*blockSize != off:
		return prefix{}, fmt.Errorf("%w: it says it is at block %d, not offset %d", ErrFormat, p.At, off)
	case p.Entries > entriesMax || uint64(p.Entries)*entrySize > uint64(length-prefixSize):
		return prefix{}, fmt.Errorf("%w: %d entries in %d bytes", ErrFormat, p.Entries, length)
	case p.size() < int64(wal.Size(length)) || off+p.size() > segmentMax:
		return prefix{}, fmt.Errorf("%w: %d blocks", ErrFormat, p.Blocks)
	}
	return p, nil
}

// size is the length of the batch in bytes.
func (p prefix) size() int64 { return int64(p.Blocks) * blockSize }

// segmentMax keeps offsets in 32 bits.
const segmentMax = 1<<32 - blockSize

// putEntry writes an entry and its key into a batch's body.
func putEntry(body []byte, i int, keyAt int, e *entry, incarnation uint64) {
	b := body[prefixSize+i*entrySize:][:entrySize]
	le := binary.LittleEndian
	le.PutUint32(b[4:], uint32(keyAt))
	b[8] = byte(len(e.Key))
	clear(b[9:])
	if e.Delete {
		b[9] = opDelete
		le.PutUint64(b[32:], e.Since)
	} else {
		b[9] = opPut
		le.PutUint32(b[12:], e.Size)
		le.PutUint32(b[16:], e.Data)
		le.PutUint32(b[20:], e.Table)
		le.PutUint32(b[24:], e.TableCRC)
		le.PutUint64(b[32:], e.Seed)
		le.PutUint64(b[40:], e.Epoch)
	}
	copy(body[keyAt:], e.Key)
	le.PutUint32(b, entryCRC(b, e.Key, incarnation))
}

func entryCRC(b, key []byte, incarnation uint64) uint32 {
	return crcOf(format.SeededCRC(incarnation, b[4:entrySize]), key)
}

// decodeEntry reads entry i of a batch of so many bytes. The key is a part of
// body.
func decodeEntry(body []byte, i int, size int64, incarnation uint64) (entry, error) {
	le := binary.LittleEndian
	b := body[prefixSize+i*entrySize:][:entrySize]
	keyAt, n := uint64(le.Uint32(b[4:])), uint64(b[8])
	if n == 0 || keyAt+n > uint64(len(body)) {
		return entry{}, fmt.Errorf("%w: entry %d: key of %d bytes at %d", ErrFormat, i, n, keyAt)
	}
	e := entry{Key: body[keyAt : keyAt+n : keyAt+n]}
	if got, want := entryCRC(b, e.Key, incarnation), le.Uint32(b); got != want {
		return entry{}, fmt.Errorf("%w: entry %d: CRC is %08x, not %08x", ErrFormat, i, got, want)
	}
	switch op := b[9]; {
	case op != opPut && op != opDelete:
		return entry{}, fmt.Errorf("%w: entry %d: operation %d", format.ErrNewer, i, op)
	case !allZero(b[10:12]) || !allZero(b[28:32]) || op == opDelete && !(allZero(b[12:28]) && allZero(b[40:48])):
		return entry{}, fmt.Errorf("%w: entry %d: bytes that are zero today are not", format.ErrNewer, i)
	case op == opDelete:
		e.Delete, e.Since = true, le.Uint64(b[32:])
		return e, nil
	}
	e.Size, e.Data, e.Table, e.TableCRC = le.Uint32(b[12:]), le.Uint32(b[16:]), le.Uint32(b[20:]), le.Uint32(b[24:])
	e.Seed, e.Epoch = le.Uint64(b[32:]), le.Uint64(b[40:])
	table := int64(osd.Blocks(int(e.Size))) * 4
	switch {
	case e.Size > osd.ValueMax || int64(e.Data)+int64(e.Size) > size || int64(e.Table)+table > size || e.Table%4 != 0,
		packed(e.Size) && e.Data-e.Table != uint32(table),
		!packed(e.Size) && e.Data%blockSize != 0:
		return entry{}, fmt.Errorf("%w: entry %d: %d bytes at %d, CRCs at %d, of %d", ErrFormat, i, e.Size, e.Data, e.Table, size)
	}
	return e, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// headerOf is a segment's header.
type headerOf struct {
	ASD         uuid.UUID
	Number      uint64
	Incarnation uint64
}

func appendHeader(dst []byte, h headerOf) []byte {
	start := len(dst)
	dst = format.AppendHeader(dst, format.Header{
		Kind: format.KindASDSegment, Version: Version, MinReader: Version,
		Owner: h.ASD, Number: h.Number, Incarnation: h.Incarnation,
	})
	return append(dst, make([]byte, blockSize-(len(dst)-start))...)
}

func decodeHeader(b []byte) (headerOf, error) {
	f, err := format.DecodeHeader(b, format.KindASDSegment, Version, 0)
	if err != nil {
		return headerOf{}, err
	}
	return headerOf{ASD: f.Owner, Number: f.Number, Incarnation: f.Incarnation}, nil
}

func roundUp(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }
