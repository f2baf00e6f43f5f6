package asd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"
	"openvstorage/internal/generation"

	"github.com/google/uuid"
)

const (
	claimName = "claim"
	claimNew  = "claim.new"
)

// claimBlocks is the number of blocks, which are written in turn: a torn write leaves
// the one before whole.
const claimBlocks = 2

const claimVersion = 1

// claimIncarnation seeds the CRC of a claim: its file is never recycled.
const claimIncarnation = 0

func appendClaim(dst []byte, id uuid.UUID, turn uint64, m generation.Mark) []byte {
	start := len(dst)
	dst = format.AppendHeader(dst, format.Header{
		Kind: format.KindASDClaim, Version: claimVersion, MinReader: claimVersion, Owner: id, Number: turn, Incarnation: claimIncarnation,
	})
	at := len(dst)
	dst = m.Append(dst)
	dst = binary.LittleEndian.AppendUint32(dst, format.SeededCRC(claimIncarnation, dst[at:]))
	return append(dst, make([]byte, blockSize-(len(dst)-start))...)
}

// decodeClaim reads a block; turn 0: it holds none.
func decodeClaim(b []byte) (id uuid.UUID, turn uint64, m generation.Mark, err error) {
	const end = format.HeaderSize + generation.Size
	if len(b) < blockSize {
		return id, 0, m, fmt.Errorf("%w: a claim of %d bytes", format.ErrCorrupt, len(b))
	}
	h, err := format.DecodeRewritten(b, format.KindASDClaim, claimVersion, 0)
	if err != nil {
		return id, 0, m, err
	}
	if got, want := format.SeededCRC(claimIncarnation, b[format.HeaderSize:end]), binary.LittleEndian.Uint32(b[end:]); got != want {
		return id, 0, m, fmt.Errorf("%w: CRC of the claim is %08x, not %08x", format.ErrCorrupt, got, want)
	}
	m, err = generation.Decode(b[format.HeaderSize:end])
	return h.Owner, h.Number, m, err
}

// ReadClaim returns the newest generation of its backend that the ASD in a directory
// has seen; the zero mark if it has seen none. whole is false if one of the claim's two
// blocks cannot be used: the ASD may have seen a newer generation then. ReadClaim opens
// nothing else.
func ReadClaim(fsys disk.FS, dir string) (m generation.Mark, whole bool, err error) {
	m, _, whole, err = readClaim(fsys, dir)
	return m, whole, err
}

func readClaim(fsys disk.FS, dir string) (newest generation.Mark, turn uint64, whole bool, err error) {
	name := path.Join(dir, claimName)
	f, err := fsys.OpenFile(name, 0, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return newest, 0, true, nil
	}
	if err != nil {
		return newest, 0, false, err
	}
	defer f.Close()
	var bad []error
	b := make([]byte, blockSize)
	for i := range int64(claimBlocks) {
		n, err := f.ReadAt(b, i*blockSize)
		if err != nil && !errors.Is(err, io.EOF) && disk.CauseOf(err) != disk.BadDisk {
			return newest, 0, false, fmt.Errorf("read %s: %w", name, err)
		}
		var t uint64
		var m generation.Mark
		if err == nil || errors.Is(err, io.EOF) {
			_, t, m, err = decodeClaim(b[:n])
		}
		switch {
		case errors.Is(err, format.ErrNewer):
			return newest, 0, false, fmt.Errorf("%s: %w", name, err)
		case err != nil:
			bad = append(bad, err)
		case t > turn:
			newest, turn = m, t
		}
	}
	if turn == 0 {
		bad = append(bad, errors.New("it holds no generation"))
		return newest, 0, false, fmt.Errorf("%s: %w; restore the file, or replace the disk", name, errors.Join(bad...))
	}
	return newest, turn, len(bad) == 0, nil
}
