package filetree

import (
	"encoding/binary"
	"fmt"

	"openvstorage/internal/format"
)

// Kind says what an entry is. Numbers are stored.
type Kind uint8

// Kinds.
const (
	Directory Kind = 1
	File      Kind = 2
	EmptyDisk Kind = 3 // NAME.raw before it has a size
	Disk      Kind = 4 // attributes of a vDisk, by its id
)

// Attr is what users can change of an entry, its content apart.
type Attr struct {
	Mode     uint32 // the twelve low bits
	UID, GID uint32
	Modified int64 // nanoseconds since 1970
	Changed  int64
}

// Entry is a node of the tree.
type Entry struct {
	Kind Kind
	Attr
	Node uint64 // its number; stays when it is moved
	Size int64  // of a file, in bytes
}

// DiskAttr is what is kept of a vDisk. Its time of modification is right as long as the
// vDisk is as it was at Epoch and Seq: writes to the vDisk do not change the tree.
type DiskAttr struct {
	Attr
	Epoch, Seq uint64
}

// NoOwner is the owner and the group of a vDisk to which nobody gave an owner. Its mode
// does not count then.
const NoOwner = 1<<32 - 1

const (
	recordVersion = 1
	recordSize    = 46
	diskVersion   = 2
	diskSize      = 62
	modeBits      = 0o7777
)

func encodeDisk(a DiskAttr) []byte {
	b := encode(Entry{Kind: Disk, Attr: a.Attr})
	b[0] = diskVersion
	b = binary.BigEndian.AppendUint64(b, a.Epoch)
	return binary.BigEndian.AppendUint64(b, a.Seq)
}

// decodeDisk reads what is kept of a vDisk. A record of an older release has no place in
// the vDisk's order.
func decodeDisk(b []byte) (a DiskAttr, err error) {
	switch {
	case len(b) > 0 && b[0] > diskVersion:
		return a, fmt.Errorf("%w: record of version %d, this release reads up to %d", format.ErrNewer, b[0], diskVersion)
	case len(b) > diskSize && b[0] == diskVersion:
		return a, fmt.Errorf("%w: record of %d bytes, this release knows %d", format.ErrNewer, len(b), diskSize)
	case len(b) == diskSize && b[0] == diskVersion:
		a.Epoch, a.Seq = binary.BigEndian.Uint64(b[46:]), binary.BigEndian.Uint64(b[54:])
		b = append([]byte{recordVersion}, b[1:recordSize]...)
	}
	e, err := decode(b)
	if err == nil && e.Kind != Disk {
		err = fmt.Errorf("corrupt record: a vDisk of kind %d", e.Kind)
	}
	a.Attr = e.Attr
	return a, err
}

func encode(e Entry) []byte {
	b := make([]byte, 0, diskSize)
	b = append(b, recordVersion, byte(e.Kind))
	b = binary.BigEndian.AppendUint32(b, e.Mode)
	b = binary.BigEndian.AppendUint32(b, e.UID)
	b = binary.BigEndian.AppendUint32(b, e.GID)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Modified))
	b = binary.BigEndian.AppendUint64(b, uint64(e.Changed))
	b = binary.BigEndian.AppendUint64(b, e.Node)
	return binary.BigEndian.AppendUint64(b, uint64(e.Size))
}

// decode reads a record, and refuses one that contradicts itself. It also refuses what
// it does not know: whoever reads a record writes it again, and would lose that.
func decode(b []byte) (e Entry, err error) {
	switch {
	case len(b) > 0 && b[0] > recordVersion:
		return e, fmt.Errorf("%w: record of version %d, this release reads up to %d", format.ErrNewer, b[0], recordVersion)
	case len(b) > recordSize:
		return e, fmt.Errorf("%w: record of %d bytes, this release knows %d", format.ErrNewer, len(b), recordSize)
	case len(b) != recordSize || b[0] != recordVersion:
		return e, fmt.Errorf("corrupt record of %d bytes", len(b))
	}
	e = Entry{
		Kind: Kind(b[1]),
		Attr: Attr{
			Mode: binary.BigEndian.Uint32(b[2:]), UID: binary.BigEndian.Uint32(b[6:]), GID: binary.BigEndian.Uint32(b[10:]),
			Modified: int64(binary.BigEndian.Uint64(b[14:])), Changed: int64(binary.BigEndian.Uint64(b[22:])),
		},
		Node: binary.BigEndian.Uint64(b[30:]), Size: int64(binary.BigEndian.Uint64(b[38:])),
	}
	switch {
	case e.Kind > Disk:
		return e, fmt.Errorf("%w: record of kind %d", format.ErrNewer, e.Kind)
	case e.Kind < Directory:
		return e, fmt.Errorf("corrupt record: kind %d", e.Kind)
	case e.Mode&^modeBits != 0:
		return e, fmt.Errorf("%w: record with mode %o", format.ErrNewer, e.Mode)
	case e.Size < 0 || e.Size > MaxFile || e.Size != 0 && e.Kind != File:
		return e, fmt.Errorf("corrupt record: size %d of kind %d", e.Size, e.Kind)
	case (e.Kind == Disk) != (e.Node == 0):
		return e, fmt.Errorf("corrupt record: node %d of kind %d", e.Node, e.Kind)
	}
	return e, nil
}

const (
	prefix        = "files/"
	entryPrefix   = prefix + "e/"
	contentPrefix = prefix + "c/"
	diskPrefix    = prefix + "d/"
)

func entryKey(path string) []byte { return []byte(entryPrefix + path) }

func diskKey(id [16]byte) []byte { return append([]byte(diskPrefix), id[:]...) }

func nodeKey(node uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(contentPrefix), node)
}

func pieceKey(node uint64, piece uint32) []byte {
	return binary.BigEndian.AppendUint32(nodeKey(node), piece)
}

func parsePieceKey(k []byte) (node uint64, piece uint32, ok bool) {
	if len(k) != len(contentPrefix)+12 || string(k[:len(contentPrefix)]) != contentPrefix {
		return 0, 0, false
	}
	k = k[len(contentPrefix):]
	return binary.BigEndian.Uint64(k), binary.BigEndian.Uint32(k[8:]), true
}
