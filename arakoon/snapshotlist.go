package arakoon

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"openvstorage/internal/format"
)

// SnapshotID is a snapshot's name: random, used once.
type SnapshotID [16]byte

func (id SnapshotID) String() string { return hex.EncodeToString(id[:]) }

// SnapshotFile is one file of a snapshot. The files of a snapshot never change.
type SnapshotFile struct {
	Name string // without a slash
	Size int64  // in bytes
	CRC  uint32 // CRC-32C of the whole file
}

// What raft's message about a snapshot says of it, in the snapshot's data, little-endian:
//
//	offset size field
//	 0      2   version, 1
//	 2      2   flags, zero
//	 4     16   id
//	20      4   number of files
//	24          for each, names ascending: length of the name u16, name, size u64,
//	            CRC-32C u32
//	            CRC-32C of all bytes before it, u32
//
// The files themselves are those of a Pebble checkpoint, and are fetched apart.
const (
	listVersion = 1
	listHead    = 24
	listFile    = 2 + 8 + 4 // without the name
)

// Bounds of a snapshot.
const (
	snapshotFilesMax = 1 << 16
	snapshotNameMax  = 255
)

// errSnapshotData is matched by the error for bytes that describe no snapshot.
var errSnapshotData = errors.New("description of a snapshot corrupt")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendSnapshotList(dst []byte, id SnapshotID, files []SnapshotFile) []byte {
	le, start := binary.LittleEndian, len(dst)
	dst = le.AppendUint16(dst, listVersion)
	dst = le.AppendUint16(dst, 0)
	dst = append(dst, id[:]...)
	dst = le.AppendUint32(dst, uint32(len(files)))
	for _, f := range files {
		dst = le.AppendUint16(dst, uint16(len(f.Name)))
		dst = append(dst, f.Name...)
		dst = le.AppendUint64(dst, uint64(f.Size))
		dst = le.AppendUint32(dst, f.CRC)
	}
	return le.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// decodeSnapshotList decodes such data. Names are such that none leads out of a directory.
func decodeSnapshotList(b []byte) (id SnapshotID, files []SnapshotFile, err error) {
	le := binary.LittleEndian
	if len(b) < listHead+4 {
		return id, nil, fmt.Errorf("%w: %d bytes", errSnapshotData, len(b))
	}
	body := b[:len(b)-4]
	if got, want := crc32.Checksum(body, castagnoli), le.Uint32(b[len(body):]); got != want {
		return id, nil, fmt.Errorf("%w: CRC is %08x, not %08x", errSnapshotData, got, want)
	}
	if v, flags := le.Uint16(body), le.Uint16(body[2:]); v != listVersion || flags != 0 {
		return id, nil, fmt.Errorf("%w: description of a snapshot of format %d with flags %#x, this release reads %d", format.ErrNewer, v, flags, listVersion)
	}
	copy(id[:], body[4:])
	n := le.Uint32(body[20:])
	body = body[listHead:]
	if n == 0 || n > snapshotFilesMax || uint64(n)*listFile > uint64(len(body)) {
		return id, nil, fmt.Errorf("%w: %d files in %d bytes", errSnapshotData, n, len(body))
	}
	files = make([]SnapshotFile, 0, n)
	for range n {
		if len(body) < 2 || len(body) < listFile+int(le.Uint16(body)) {
			return id, nil, fmt.Errorf("%w: file %d: %d bytes are left", errSnapshotData, len(files), len(body))
		}
		size := int(le.Uint16(body))
		f := SnapshotFile{Name: string(body[2 : 2+size])}
		body = body[2+size:]
		f.Size, f.CRC = int64(le.Uint64(body)), le.Uint32(body[8:])
		body = body[12:]
		if err := checkSnapshotFile(f, files); err != nil {
			return id, nil, err
		}
		files = append(files, f)
	}
	if len(body) > 0 {
		return id, nil, fmt.Errorf("%w: %d bytes behind the files", errSnapshotData, len(body))
	}
	return id, files, nil
}

func checkSnapshotFile(f SnapshotFile, before []SnapshotFile) error {
	switch {
	case f.Name == "" || f.Name == "." || f.Name == ".." || len(f.Name) > snapshotNameMax || strings.ContainsAny(f.Name, "/\\\x00"):
		return fmt.Errorf("%w: a file cannot be called %q", errSnapshotData, f.Name)
	case f.Size < 0:
		return fmt.Errorf("%w: file %s of %d bytes", errSnapshotData, f.Name, f.Size)
	case len(before) > 0 && before[len(before)-1].Name >= f.Name:
		return fmt.Errorf("%w: file %s comes behind %s", errSnapshotData, f.Name, before[len(before)-1].Name)
	}
	return nil
}

// fileNamed finds a file in a list that is ordered by name.
func fileNamed(files []SnapshotFile, name string) (f SnapshotFile, ok bool) {
	i, ok := slices.BinarySearchFunc(files, name, func(f SnapshotFile, name string) int { return strings.Compare(f.Name, name) })
	if ok {
		f = files[i]
	}
	return f, ok
}
