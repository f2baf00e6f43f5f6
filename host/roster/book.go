package roster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"
)

// Book is what a host keeps of where others are.
type Book struct {
	Seeds []string // HOST:PORT that a token named, of hosts whose UUIDs are not known yet
	Hosts []Host   // in order of UUID
}

// The file of a Book, little-endian:
//
//	 0 64 common header: kind 18 (book of hosts), owner = the cluster's UUID
//	64  . count u8 and seeds, each with its length in a byte before it
//	 .  4 hosts; each: length u16, its record. In order of UUID.
//	 .  4 CRC-32C of all before, seeded with the incarnation
//
// It is replaced as a whole. Whatever this release does not know in it is refused.
// These bytes are on disk. They never change.
const (
	bookVersion = 1
	bookMax     = 8 << 20
)

// ErrOtherCluster: a book is of another cluster.
var ErrOtherCluster = errors.New("it is of another cluster")

// Encode returns the bytes of the book of a cluster. incarnation is random, and not zero.
func (b Book) Encode(cluster uuid.UUID, incarnation uint64) []byte {
	p := format.AppendHeader(nil, format.Header{
		Kind: format.KindHostBook, Version: bookVersion, MinReader: bookVersion, Owner: cluster, Incarnation: incarnation,
	})
	p = putTexts(p, b.Seeds)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(b.Hosts)))
	for _, h := range b.Hosts {
		r := h.Encode()
		p = append(binary.LittleEndian.AppendUint16(p, uint16(len(r))), r...)
	}
	return binary.LittleEndian.AppendUint32(p, format.SeededCRC(incarnation, p))
}

// DecodeBook reads the book of a cluster.
func DecodeBook(p []byte, cluster uuid.UUID) (Book, error) {
	h, err := format.DecodeRewritten(p, format.KindHostBook, bookVersion, 0)
	if err != nil {
		return Book{}, fmt.Errorf("book of hosts: %w", err)
	}
	if h.Owner != cluster {
		return Book{}, fmt.Errorf("book of hosts: %w: %s, and this is cluster %s", ErrOtherCluster, h.Owner, cluster)
	}
	end := len(p) - 4
	if end < format.HeaderSize || format.SeededCRC(h.Incarnation, p[:end]) != binary.LittleEndian.Uint32(p[end:]) {
		return Book{}, fmt.Errorf("book of hosts: %w: its checksum is wrong", format.ErrCorrupt)
	}
	c := texts{b: p[format.HeaderSize:end]}
	book := Book{Seeds: c.list()}
	if c.cut || len(c.b) < 4 {
		return Book{}, fmt.Errorf("book of hosts: %w: it is cut off", format.ErrCorrupt)
	}
	for _, a := range book.Seeds {
		if err := CheckAddress(a); err != nil {
			return Book{}, fmt.Errorf("book of hosts: %w: %w", format.ErrCorrupt, err)
		}
	}
	n := binary.LittleEndian.Uint32(c.b)
	if book.Hosts, c.b, err = decodeHosts(c.b[4:], n); err != nil {
		return Book{}, fmt.Errorf("book of hosts: %w", err)
	}
	if len(c.b) > 0 {
		return Book{}, fmt.Errorf("book of hosts: %w: %d bytes behind the last field", format.ErrNewer, len(c.b))
	}
	return book, nil
}

func decodeHosts(b []byte, n uint32) (all []Host, rest []byte, err error) {
	if n > HostsMax {
		return nil, nil, fmt.Errorf("%w: %d hosts, at most %d", format.ErrCorrupt, n, HostsMax)
	}
	for range n {
		if len(b) < 2 || len(b)-2 < int(binary.LittleEndian.Uint16(b)) {
			return nil, nil, fmt.Errorf("%w: it is cut off", format.ErrCorrupt)
		}
		end := 2 + int(binary.LittleEndian.Uint16(b))
		h, err := Decode(b[2:end])
		if err != nil {
			return nil, nil, err
		}
		if k := len(all); k > 0 && bytes.Compare(all[k-1].ID[:], h.ID[:]) >= 0 {
			return nil, nil, fmt.Errorf("%w: host %s is out of order", format.ErrCorrupt, h.ID)
		}
		all, b = append(all, h), b[end:]
	}
	return all, b, nil
}

// WriteBook replaces the book in a file, durably: after a crash it is the old one or the
// new one. Two calls for one file must not run at the same time.
func WriteBook(fsys disk.FS, name string, cluster uuid.UUID, incarnation uint64, b Book) (err error) {
	b.Hosts = slices.SortedFunc(slices.Values(b.Hosts), func(x, y Host) int { return bytes.Compare(x.ID[:], y.ID[:]) })
	return disk.ReplaceWhole(fsys, name, b.Encode(cluster, incarnation))
}

// ReadBook reads the book of a cluster from a file. The error matches fs.ErrNotExist if
// there is none.
func ReadBook(fsys disk.FS, name string, cluster uuid.UUID) (Book, error) {
	p, err := disk.ReadWhole(fsys, name, bookMax)
	if err != nil {
		return Book{}, err
	}
	b, err := DecodeBook(p, cluster)
	if err != nil {
		return Book{}, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}
