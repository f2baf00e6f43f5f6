package datadir

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"openvstorage/internal/format"
)

// The record, DIR/ovs.format: two equal copies of one block of 4096 bytes, so
// that no damaged sector loses it. Little-endian:
//
//	offset size field
//	  0     64  common header: kind 6 (data directory record), owner = the
//	            directory's UUID, number 0
//	 64      8  created, nanoseconds since 1970 UTC
//	 72   4020  zero
//	4092     4  CRC-32C of bytes 0..4091, seeded with the incarnation
//
// What is versioned here is the layout of the directory as a whole: which
// directories and files there are. Each file in it has a version of its own.
// These bytes are on disk. They never change.
const (
	// Version is the layout that this release makes and the newest it opens.
	//
	// 1: buffer/ (local SCOs and TLogs), map/ (local map pages), backend/ (the
	// local backend), registry/ (names, owners, epochs), lock, nbd.sock, ovs.sock.
	//
	// 2: the registry is in arakoon/registry, and what registry/ has is imported
	// from there once; arakoon/, asd/ and cache/ for the ALBA backend.
	Version = 2

	blockSize = 4096
	copies    = 2
	// FileSize is the length of the record's file in bytes.
	FileSize = copies * blockSize

	createdAt = format.HeaderSize
	crcAt     = blockSize - 4
)

// Record is what ovs.format says.
type Record struct {
	ID          uuid.UUID
	Created     time.Time
	Incarnation uint64
}

// Append appends the whole file to dst.
func Append(dst []byte, r Record) []byte {
	at := len(dst)
	dst = format.AppendHeader(dst, format.Header{
		Kind: format.KindDirectory, Version: Version, MinReader: Version, Owner: r.ID, Incarnation: r.Incarnation,
	})
	dst = binary.LittleEndian.AppendUint64(dst, uint64(r.Created.UnixNano()))
	dst = append(dst, make([]byte, at+crcAt-len(dst))...)
	dst = binary.LittleEndian.AppendUint32(dst, format.SeededCRC(r.Incarnation, dst[at:]))
	return append(dst, dst[at:]...)
}

// Decode reads the file. old: it was read from what is intact, or an older
// release made it, and needs to be written anew. A copy that a newer release wrote decides, even if the
// other can be read: such a directory must not be touched.
func Decode(b []byte) (r Record, old bool, err error) {
	var found []Record
	var firstErr error
	for i := range copies {
		c, version, err := decodeCopy(b[min(i*blockSize, len(b)):min((i+1)*blockSize, len(b))])
		switch {
		case errors.Is(err, format.ErrNewer):
			return Record{}, false, err
		case err == nil:
			found = append(found, c)
			old = old || version < Version
		case firstErr == nil:
			firstErr = err
		}
	}
	switch {
	case len(found) == 0:
		return Record{}, false, fmt.Errorf("both copies are damaged: %w", firstErr)
	case len(found) == copies && found[0] != found[1]:
		return Record{}, false, fmt.Errorf("%w: its two copies differ", format.ErrCorrupt)
	}
	return found[0], old || len(found) < copies || len(b) != FileSize, nil
}

func decodeCopy(b []byte) (r Record, version uint16, err error) {
	h, err := format.DecodeHeader(b, format.KindDirectory, Version, 0)
	if err != nil {
		return Record{}, 0, err
	}
	if len(b) < blockSize {
		return Record{}, 0, fmt.Errorf("%w: %d bytes of %d", format.ErrCorrupt, len(b), blockSize)
	}
	if got, want := format.SeededCRC(h.Incarnation, b[:crcAt]), binary.LittleEndian.Uint32(b[crcAt:]); got != want {
		return Record{}, 0, fmt.Errorf("%w: record CRC is %08x, not %08x", format.ErrCorrupt, got, want)
	}
	return Record{
		ID:          h.Owner,
		Created:     time.Unix(0, int64(binary.LittleEndian.Uint64(b[createdAt:]))).UTC(),
		Incarnation: h.Incarnation,
	}, h.Version, nil
}
