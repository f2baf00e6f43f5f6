package sco

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"openvstorage/internal/format"

	"github.com/google/uuid"
)

// An SCO is a row of 4 KiB blocks, little-endian, version 1:
//
//	block 0            header
//	blocks 1..n        data clusters and commit blocks, in the order of writing
//	blocks n+1..       footer: what each of the blocks 1..n is
//	last 128 bytes     trailer, which ends the last footer block and the object
//
// An open SCO has no footer yet: its file is pre-written and holds what an
// earlier SCO left in it. Every CRC but that of a cluster is seeded with the
// incarnation, so blocks of the earlier SCO are not taken for new ones. The CRC of a
// cluster is plain: it is kept in TLog entries and footers, which have seeded CRCs.
//
// Header, 4096 bytes:
//
//	offset size field
//	  0     64  common header, kind SCO
//	 64      4  cluster size in bytes: 4096
//	 68      4  capacity: blocks in the file
//	 72      8  epoch of the owner that opened it
//	 80      8  first seq: no entry below it has its data here
//	 88      4  zero
//	 92      4  seeded CRC-32C of bytes 64..91
//	 96   4000  zero
//
// Commit block, one or more 4 KiB blocks (rule O2):
//
//	 0      4  magic "CMT1"
//	 4      4  seeded CRC-32C of bytes 8..64+entries length-1
//	 8      4  length of the entries in bytes
//	12      4  index of this block in the SCO
//	16      8  round: number of the sync that it belongs to
//	24      8  first seq covered
//	32      8  last seq covered (seq)
//	40      8  durable: the highest seq whose sync had returned
//	48     16  zero
//	64      -  TLog entries covered, as in the TLog; then zeros to the block's end
//
// Footer, in columns, so that the CRCs of a whole SCO are one small read:
//
//	4*n  CRC-32C of blocks 1..n (0 for a commit block)
//	8*n  cluster address of blocks 1..n (all ones for a commit block)
//	8*n  seq of blocks 1..n (0 for a commit block)
//	     zeros up to the trailer
//
// Trailer, the last 128 bytes:
//
//	  0      8  magic "SCOTAIL1"
//	  8      8  SCO number
//	 16      8  incarnation
//	 24      4  n: blocks described
//	 28      4  first block of the footer: n+1 in an object; in a file of the write
//	            buffer such that the trailer ends the file
//	 32      4  seeded CRC-32C of the CRC column
//	 36      4  seeded CRC-32C of the address column
//	 40      4  seeded CRC-32C of the seq column
//	 44      4  data clusters among the n blocks
//	 48      8  lowest seq, 0 if there is no data
//	 56      8  highest seq
//	 64     16  form
//	 80     44  zero
//	124      4  seeded CRC-32C of bytes 0..123
//
// Form: what a reader must know to read a commit block or a trailer. It is all zeros
// today. Anything else is refused as written by a newer release, and so are bytes that
// are not zero in the rest of a trailer.
//
//	0      2  version; 0 stands for 1
//	2      2  minimum reader; 0 stands for 1
//	4      4  incompatible features
//	8      1  log2 of the cluster size; 0 stands for 12
//	9      7  zero
const (
	Version      = 1
	HeaderSize   = ClusterSize
	TrailerSize  = 128
	commitHeader = 64
	perBlock     = 4 + 8 + 8

	// SizeMax is the largest SCO in bytes, file or object.
	SizeMax = (MaxIndex + 1) * ClusterSize

	commitMagic  = "CMT1"
	trailerMagic = "SCOTAIL1"
)

// NoAddress marks a block, in the address column, that holds no data cluster.
const NoAddress = ^uint64(0)

// ErrCorrupt and ErrNewer are matched by what this package returns.
var (
	ErrCorrupt = format.ErrCorrupt
	ErrNewer   = format.ErrNewer
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum is the checksum of one cluster.
func Sum(cluster []byte) uint32 { return crc32.Checksum(cluster, castagnoli) }

// Header describes an SCO from its first block.
type Header struct {
	Volume      uuid.UUID
	Number      Number
	Incarnation uint64
	Capacity    int // blocks
	Epoch       uint64
	FirstSeq    uint64
}

// AppendHeader appends the header block.
func AppendHeader(dst []byte, h Header) []byte {
	at := len(dst)
	dst = format.AppendHeader(dst, format.Header{
		Kind: format.KindSCO, Version: Version, MinReader: Version,
		Owner: h.Volume, Number: uint64(h.Number), Incarnation: h.Incarnation,
	})
	dst = binary.LittleEndian.AppendUint32(dst, ClusterSize)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.Capacity))
	dst = binary.LittleEndian.AppendUint64(dst, h.Epoch)
	dst = binary.LittleEndian.AppendUint64(dst, h.FirstSeq)
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	dst = binary.LittleEndian.AppendUint32(dst, format.SeededCRC(h.Incarnation, dst[at+64:at+92]))
	return append(dst, make([]byte, HeaderSize-96)...)
}

// DecodeHeader reads the first block.
func DecodeHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("%w: %d bytes are less than an SCO header", ErrCorrupt, len(b))
	}
	c, err := format.DecodeHeader(b, format.KindSCO, Version, 0)
	if err != nil {
		return Header{}, err
	}
	if got, want := format.SeededCRC(c.Incarnation, b[64:92]), binary.LittleEndian.Uint32(b[92:]); got != want {
		return Header{}, fmt.Errorf("%w: SCO header CRC is %08x, not %08x", ErrCorrupt, got, want)
	}
	if size := binary.LittleEndian.Uint32(b[64:]); size != ClusterSize {
		return Header{}, fmt.Errorf("%w: SCO with clusters of %d bytes", ErrNewer, size)
	}
	if binary.LittleEndian.Uint32(b[88:]) != 0 {
		return Header{}, fmt.Errorf("%w: SCO header with a field at 88 that this release does not know", ErrNewer)
	}
	h := Header{
		Volume: c.Owner, Number: Number(c.Number), Incarnation: c.Incarnation,
		Capacity: int(binary.LittleEndian.Uint32(b[68:])),
		Epoch:    binary.LittleEndian.Uint64(b[72:]),
		FirstSeq: binary.LittleEndian.Uint64(b[80:]),
	}
	if h.Capacity < 3 || h.Capacity > MaxIndex+1 || h.Number > MaxNumber {
		return Header{}, fmt.Errorf("%w: SCO %d with %d blocks", ErrCorrupt, h.Number, h.Capacity)
	}
	return h, nil
}

// Commit is what a commit block says.
type Commit struct {
	Index    int
	Round    uint64
	FirstSeq uint64
	Seq      uint64
	Durable  uint64
	Entries  []byte // encoded TLog entries; their own CRCs are the TLog's and not checked here
}

// CommitBlocks is the number of blocks that a commit with that many bytes of
// entries takes.
func CommitBlocks(entries int) int {
	return (commitHeader + entries + ClusterSize - 1) / ClusterSize
}

// AppendCommit appends c as whole blocks.
func AppendCommit(dst []byte, incarnation uint64, c Commit) []byte {
	at := len(dst)
	dst = append(dst, commitMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(c.Entries)))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(c.Index))
	dst = binary.LittleEndian.AppendUint64(dst, c.Round)
	dst = binary.LittleEndian.AppendUint64(dst, c.FirstSeq)
	dst = binary.LittleEndian.AppendUint64(dst, c.Seq)
	dst = binary.LittleEndian.AppendUint64(dst, c.Durable)
	dst = append(dst, make([]byte, 16)...)
	dst = append(dst, c.Entries...)
	binary.LittleEndian.PutUint32(dst[at+4:], format.SeededCRC(incarnation, dst[at+8:]))
	return append(dst, make([]byte, CommitBlocks(len(c.Entries))*ClusterSize-(len(dst)-at))...)
}

// checkForm refuses a form that is not that of this release. The CRC is right by then,
// so a newer release has written it.
func checkForm(b []byte) error {
	for _, c := range b {
		if c != 0 {
			return fmt.Errorf("%w: its form is %x, this release reads zeros", ErrNewer, b)
		}
	}
	return nil
}

// IsCommit reports whether the block looks like the first of a commit; only
// DecodeCommit tells whether it is one.
func IsCommit(block []byte) bool { return len(block) >= 4 && string(block[:4]) == commitMagic }

// DecodeCommit reads the commit that begins at block index of an SCO, b
// being the SCO's bytes from there on. Entries alias b.
func DecodeCommit(b []byte, incarnation uint64, index int) (Commit, error) {
	if len(b) < ClusterSize || !IsCommit(b) {
		return Commit{}, fmt.Errorf("%w: no commit at block %d", ErrCorrupt, index)
	}
	n := int(binary.LittleEndian.Uint32(b[8:]))
	if n > len(b)-commitHeader {
		return Commit{}, fmt.Errorf("%w: commit at block %d has %d bytes of entries, more than there are", ErrCorrupt, index, n)
	}
	if got, want := format.SeededCRC(incarnation, b[8:commitHeader+n]), binary.LittleEndian.Uint32(b[4:]); got != want {
		return Commit{}, fmt.Errorf("%w: commit at block %d has CRC %08x, not %08x", ErrCorrupt, index, got, want)
	}
	c := Commit{
		Index:    int(binary.LittleEndian.Uint32(b[12:])),
		Round:    binary.LittleEndian.Uint64(b[16:]),
		FirstSeq: binary.LittleEndian.Uint64(b[24:]),
		Seq:      binary.LittleEndian.Uint64(b[32:]),
		Durable:  binary.LittleEndian.Uint64(b[40:]),
		Entries:  b[commitHeader : commitHeader+n],
	}
	if err := checkForm(b[48:commitHeader]); err != nil {
		return Commit{}, fmt.Errorf("commit at block %d: %w", index, err)
	}
	if c.Index != index {
		return Commit{}, fmt.Errorf("%w: commit of block %d found at block %d", ErrCorrupt, c.Index, index)
	}
	return c, nil
}

// Blocks describes the blocks 1..n of an SCO: the footer in memory. Index i
// of each slice is block i+1.
type Blocks struct {
	Sums  []uint32
	Addrs []uint64
	Seqs  []uint64
}

// Room returns how many blocks of data and commits fit an SCO of that many
// blocks beside its header, footer and trailer.
func Room(capacity int) int {
	n := capacity - 2
	for n > 0 && 1+n+FooterBlocks(n) > capacity {
		n--
	}
	return n
}

// FooterBlocks is the number of blocks that the footer and trailer of n
// blocks take.
func FooterBlocks(n int) int {
	return (n*perBlock + TrailerSize + ClusterSize - 1) / ClusterSize
}

// AppendFooter appends the footer and trailer of the first n blocks, to be
// written from block first on.
func AppendFooter(dst []byte, h Header, t Blocks, n, first int) []byte {
	at := len(dst)
	var data uint32
	var low, high uint64
	for i := range n {
		sum := t.Sums[i]
		if t.Addrs[i] == NoAddress {
			sum = 0 // a commit block has one of its own
		}
		dst = binary.LittleEndian.AppendUint32(dst, sum)
	}
	for i := range n {
		dst = binary.LittleEndian.AppendUint64(dst, t.Addrs[i])
		if t.Addrs[i] != NoAddress {
			data++
		}
	}
	for i := range n {
		s := t.Seqs[i]
		dst = binary.LittleEndian.AppendUint64(dst, s)
		if s != 0 && (low == 0 || s < low) {
			low = s
		}
		high = max(high, s)
	}
	columns := dst[at:]
	dst = append(dst, make([]byte, FooterBlocks(n)*ClusterSize-TrailerSize-len(columns))...)
	tail := len(dst)
	dst = append(dst, trailerMagic...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.Number))
	dst = binary.LittleEndian.AppendUint64(dst, h.Incarnation)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(first))
	dst = binary.LittleEndian.AppendUint32(dst, format.SeededCRC(h.Incarnation, columns[:4*n]))
	dst = binary.LittleEndian.AppendUint32(dst, format.SeededCRC(h.Incarnation, columns[4*n:12*n]))
	dst = binary.LittleEndian.AppendUint32(dst, format.SeededCRC(h.Incarnation, columns[12*n:20*n]))
	dst = binary.LittleEndian.AppendUint32(dst, data)
	dst = binary.LittleEndian.AppendUint64(dst, low)
	dst = binary.LittleEndian.AppendUint64(dst, high)
	dst = append(dst, make([]byte, 60)...)
	return binary.LittleEndian.AppendUint32(dst, format.SeededCRC(h.Incarnation, dst[tail:]))
}

// Trailer is what the last bytes of a sealed SCO say.
type Trailer struct {
	Number      Number
	Incarnation uint64
	Blocks      int // n
	First       int // block of the footer
	Data        int // data clusters among them
	LowSeq      uint64
	HighSeq     uint64

	sums, addrs, seqs uint32
}

// FooterOffset is where the CRC column begins, in bytes from the SCO's start.
func (t Trailer) FooterOffset() int64 { return int64(t.First) * ClusterSize }

// Size is the length of the whole SCO in bytes.
func (t Trailer) Size() int64 {
	return int64(t.First+FooterBlocks(t.Blocks)) * ClusterSize
}

// DecodeTrailer reads the last TrailerSize bytes of an SCO of that size. With
// ErrNewer it returns the number and the incarnation: the caller can tell if the
// trailer is of this SCO, or of one that had the file before.
func DecodeTrailer(b []byte, size int64) (Trailer, error) {
	if len(b) != TrailerSize || string(b[:8]) != trailerMagic {
		return Trailer{}, fmt.Errorf("%w: no SCO trailer", ErrCorrupt)
	}
	t := Trailer{
		Number:      Number(binary.LittleEndian.Uint64(b[8:])),
		Incarnation: binary.LittleEndian.Uint64(b[16:]),
		Blocks:      int(binary.LittleEndian.Uint32(b[24:])),
		First:       int(binary.LittleEndian.Uint32(b[28:])),
		sums:        binary.LittleEndian.Uint32(b[32:]),
		addrs:       binary.LittleEndian.Uint32(b[36:]),
		seqs:        binary.LittleEndian.Uint32(b[40:]),
		Data:        int(binary.LittleEndian.Uint32(b[44:])),
		LowSeq:      binary.LittleEndian.Uint64(b[48:]),
		HighSeq:     binary.LittleEndian.Uint64(b[56:]),
	}
	if got, want := format.SeededCRC(t.Incarnation, b[:124]), binary.LittleEndian.Uint32(b[124:]); got != want {
		return Trailer{}, fmt.Errorf("%w: SCO trailer CRC is %08x, not %08x", ErrCorrupt, got, want)
	}
	if err := checkForm(b[64:124]); err != nil {
		return t, fmt.Errorf("trailer of SCO %d: %w", t.Number, err)
	}
	if t.Blocks > MaxIndex || t.First <= t.Blocks || t.First > MaxIndex+1 || t.Size() != size {
		return Trailer{}, fmt.Errorf("%w: SCO trailer speaks of %d blocks in %d bytes", ErrCorrupt, t.Blocks, size)
	}
	return t, nil
}

// DecodeSums reads the CRC column: b is 4*t.Blocks bytes from FooterOffset.
func (t Trailer) DecodeSums(b []byte) ([]uint32, error) {
	if len(b) != 4*t.Blocks {
		return nil, fmt.Errorf("%w: CRC column of %s has %d bytes, not %d", ErrCorrupt, t.Number.Name(), len(b), 4*t.Blocks)
	}
	if got := format.SeededCRC(t.Incarnation, b); got != t.sums {
		return nil, fmt.Errorf("%w: CRC column of %s has CRC %08x, not %08x", ErrCorrupt, t.Number.Name(), got, t.sums)
	}
	sums := make([]uint32, t.Blocks)
	for i := range sums {
		sums[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return sums, nil
}

// DecodeFooter reads all columns: b begins at FooterOffset.
func (t Trailer) DecodeFooter(b []byte) (Blocks, error) {
	n := t.Blocks
	if len(b) < perBlock*n {
		return Blocks{}, fmt.Errorf("%w: footer of %s is cut short", ErrCorrupt, t.Number.Name())
	}
	sums, err := t.DecodeSums(b[:4*n])
	if err != nil {
		return Blocks{}, err
	}
	if format.SeededCRC(t.Incarnation, b[4*n:12*n]) != t.addrs || format.SeededCRC(t.Incarnation, b[12*n:20*n]) != t.seqs {
		return Blocks{}, fmt.Errorf("%w: address or seq column of %s does not match its CRC", ErrCorrupt, t.Number.Name())
	}
	f := Blocks{Sums: sums, Addrs: make([]uint64, n), Seqs: make([]uint64, n)}
	for i := range n {
		f.Addrs[i] = binary.LittleEndian.Uint64(b[4*n+8*i:])
		f.Seqs[i] = binary.LittleEndian.Uint64(b[12*n+8*i:])
	}
	return f, nil
}
