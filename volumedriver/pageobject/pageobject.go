// Package pageobject holds the codec of the backend objects that map pages of a
// checkpoint go to. An object is an index and a row of encoded pages: whoever has the
// index reads one page with one small read. The package does no I/O.
package pageobject

import (
	"encoding/binary"
	"fmt"
	"sort"

	"openvstorage/internal/format"

	"github.com/google/uuid"
)

// Layout, little-endian, version 1:
//
//	offset size field
//	  0     64  common header, kind map pages; number names the object
//	 64      4  n: pages
//	 68      4  CRC-32C of the index, seeded with the incarnation
//	 72     48  zero
//	120      4  zero
//	124      4  CRC-32C of bytes 64..123, seeded with the incarnation
//	128   16*n  index, by page number: page number (8), offset in the object (4),
//	            length (4)
//	  -      -  the pages, each with a CRC of its own
const (
	Version    = 1
	HeaderSize = 128
	indexEntry = 16
)

// SizeMax is the size in bytes at which a builder is full.
const SizeMax = 8 << 20

// Name is the object's name: "pages-" and 12 hexadecimal digits.
func Name(number uint64) string { return fmt.Sprintf("pages-%012x", number) }

// Builder gathers pages in ascending order of number.
type Builder struct {
	index []byte
	body  []byte
	n     int
	last  uint64
}

// Len is how many pages were added.
func (b *Builder) Len() int { return b.n }

// Size is how large the object would be, in bytes.
func (b *Builder) Size() int { return HeaderSize + len(b.index) + len(b.body) }

// Add appends a page, which is copied. Numbers must ascend.
func (b *Builder) Add(number uint64, page []byte) {
	if b.n > 0 && number <= b.last {
		panic(fmt.Sprintf("pageobject: page %d after page %d", number, b.last))
	}
	b.index = binary.LittleEndian.AppendUint64(b.index, number)
	b.index = binary.LittleEndian.AppendUint32(b.index, uint32(len(b.body)))
	b.index = binary.LittleEndian.AppendUint32(b.index, uint32(len(page)))
	b.body = append(b.body, page...)
	b.n++
	b.last = number
}

// Object returns the object's bytes. incarnation is random.
func (b *Builder) Object(owner uuid.UUID, number, incarnation uint64) []byte {
	dst := format.AppendHeader(make([]byte, 0, b.Size()), format.Header{
		Kind: format.KindPages, Version: Version, MinReader: Version,
		Owner: owner, Number: number, Incarnation: incarnation,
	})
	index := make([]byte, len(b.index))
	copy(index, b.index)
	for i := 8; i < len(index); i += indexEntry {
		off := binary.LittleEndian.Uint32(index[i:])
		binary.LittleEndian.PutUint32(index[i:], off+uint32(HeaderSize+len(index)))
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(b.n))
	dst = binary.LittleEndian.AppendUint32(dst, format.SeededCRC(incarnation, index))
	dst = append(dst, make([]byte, 52)...)
	dst = binary.LittleEndian.AppendUint32(dst, format.SeededCRC(incarnation, dst[64:]))
	return append(append(dst, index...), b.body...)
}

// Header is what the first HeaderSize bytes of an object say.
type Header struct {
	Number      uint64
	Incarnation uint64
	Pages       int
	indexSum    uint32
}

// IndexSize is the length of the index that follows the header, in bytes.
func (h Header) IndexSize() int { return h.Pages * indexEntry }

// DecodeHeader reads the header of an object of that owner.
func DecodeHeader(b []byte, owner uuid.UUID) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("%w: %d bytes are less than a header of map pages", format.ErrCorrupt, len(b))
	}
	c, err := format.DecodeHeader(b, format.KindPages, Version, 0)
	if err != nil {
		return Header{}, err
	}
	if got, want := format.SeededCRC(c.Incarnation, b[64:124]), binary.LittleEndian.Uint32(b[124:]); got != want {
		return Header{}, fmt.Errorf("%w: map pages' header CRC is %08x, not %08x", format.ErrCorrupt, got, want)
	}
	n := binary.LittleEndian.Uint32(b[64:])
	if c.Owner != owner || n > SizeMax/indexEntry {
		return Header{}, fmt.Errorf("%w: %d map pages of %s", format.ErrCorrupt, n, c.Owner)
	}
	return Header{c.Number, c.Incarnation, int(n), binary.LittleEndian.Uint32(b[68:])}, nil
}

// Entry says where a page is.
type Entry struct {
	Page   uint64
	Offset int64
	Length int
}

// DecodeIndex reads the IndexSize bytes behind the header.
func (h Header) DecodeIndex(b []byte) ([]Entry, error) {
	if len(b) != h.IndexSize() || format.SeededCRC(h.Incarnation, b) != h.indexSum {
		return nil, fmt.Errorf("%w: index of %s does not match its CRC", format.ErrCorrupt, Name(h.Number))
	}
	entries := make([]Entry, h.Pages)
	for i := range entries {
		e := b[i*indexEntry:]
		entries[i] = Entry{binary.LittleEndian.Uint64(e), int64(binary.LittleEndian.Uint32(e[8:])), int(binary.LittleEndian.Uint32(e[12:]))}
	}
	return entries, nil
}

// Find returns the entry of a page.
func Find(entries []Entry, page uint64) (Entry, bool) {
	i := sort.Search(len(entries), func(i int) bool { return entries[i].Page >= page })
	if i == len(entries) || entries[i].Page != page {
		return Entry{}, false
	}
	return entries[i], true
}
