package tlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"

	"openvstorage/internal/format"
	"openvstorage/sco"

	"github.com/google/uuid"
)

// A TLog is a header and a row of entries, little-endian, version 1.
//
// Header, 128 bytes:
//
//	offset size field
//	  0     64  common header, kind TLog
//	 64      8  epoch of the owner that opened it
//	 72      8  first seq: the first entry with a seq of its own has this one
//	 80     40  zero
//	120      4  zero
//	124      4  seeded CRC-32C of bytes 64..123
//
// Entry, 36 bytes and a payload, a multiple of 4 long:
//
//	 0      4  seeded CRC-32C of bytes 4..length-1
//	 4      2  length in bytes, payload included
//	 6      1  kind
//	 7      1  flags; bit 0: a reader that does not know the kind skips the entry;
//	           it has its seq, and changes nothing. Other bits are refused.
//	 8      8  seq
//	16      8  address: the first cluster (write, trim, zero); bytes (resize);
//	           the next SCO (snapshot)
//	24      8  location of the first cluster (write)
//	32      4  run: number of clusters (write, trim, zero)
//	36      -  payload
//
// The address of a snapshot is the number of the next SCO at that time: it is above
// every SCO that the snapshot can name.
//
// Payloads: write: CRC-32C of each cluster, 4 bytes each. snapshot: UUID (16),
// creation time in Unix nanoseconds (8), flags (4; bit 0: made for a clone;
// others are refused),
// length of the name (4), the name, zeros to a multiple of 4. rollback: UUID
// of the snapshot. Other kinds have none.
//
// A durable mark has no place in the order: its seq is the highest seq known
// to be durable. A seal ends the file: its seq is the last one in it.
const (
	Version    = 1
	HeaderSize = 128
	EntrySize  = 36
	// RunMax is the most clusters that one write entry can describe.
	RunMax = (1<<16 - 1 - EntrySize) / 4
)

// Kind says what an entry records. Numbers are on disk.
type Kind uint8

// Kinds of entry.
const (
	KindWrite    Kind = 1
	KindTrim     Kind = 2
	KindZero     Kind = 3
	KindCommit   Kind = 4 // reserved: commits live in SCOs
	KindDurable  Kind = 5
	KindSnapshot Kind = 6
	KindRollback Kind = 7
	KindResize   Kind = 8
	KindSeal     Kind = 9
)

func (k Kind) String() string {
	names := [...]string{1: "write", 2: "trim", 3: "zero", 4: "commit", 5: "durable", 6: "snapshot", 7: "rollback", 8: "resize", 9: "seal"}
	if int(k) < len(names) && names[k] != "" {
		return names[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Ordered reports whether entries of this kind have a seq of their own. Entries that may
// be skipped have one.
func (k Kind) Ordered() bool { return k != KindDurable && k != KindSeal && k != KindCommit }

// FlagSkippable marks an entry that readers may skip if they do not know it.
const FlagSkippable = 1

// Skipped reports whether the entry is of a kind that this release does not know,
// and may pass over.
func (e Entry) Skipped() bool { return e.Flags&FlagSkippable != 0 && !e.Kind.known() }

func (k Kind) known() bool { return k >= KindWrite && k <= KindSeal }

// ErrCorrupt and ErrNewer are matched by what this package returns.
var (
	ErrCorrupt = format.ErrCorrupt
	ErrNewer   = format.ErrNewer
)

// ID numbers a TLog within its vDisk; it is used once in the vDisk's life.
type ID uint64

// Name returns the object (and file) name: "tlog-" and 12 hexadecimal digits.
func (id ID) Name() string { return fmt.Sprintf("tlog-%012x", uint64(id)) }

// ParseName reads what Name writes.
func ParseName(name string) (ID, error) {
	if len(name) != 17 || name[:5] != "tlog-" {
		return 0, fmt.Errorf("tlog: %q is not a TLog's name", name)
	}
	v, err := strconv.ParseUint(name[5:], 16, 48)
	if err != nil || ID(v).Name() != name {
		return 0, fmt.Errorf("tlog: %q is not a TLog's name", name)
	}
	return ID(v), nil
}

// Header describes a TLog from its first bytes.
type Header struct {
	Volume      uuid.UUID
	ID          ID
	Incarnation uint64
	Epoch       uint64
	FirstSeq    uint64
}

// AppendHeader appends the header.
func AppendHeader(dst []byte, h Header) []byte {
	at := len(dst)
	dst = format.AppendHeader(dst, format.Header{
		Kind: format.KindTLog, Version: Version, MinReader: Version,
		Owner: h.Volume, Number: uint64(h.ID), Incarnation: h.Incarnation,
	})
	dst = binary.LittleEndian.AppendUint64(dst, h.Epoch)
	dst = binary.LittleEndian.AppendUint64(dst, h.FirstSeq)
	dst = append(dst, make([]byte, 44)...)
	return binary.LittleEndian.AppendUint32(dst, format.SeededCRC(h.Incarnation, dst[at+64:at+124]))
}

// DecodeHeader reads the header.
func DecodeHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("%w: %d bytes are less than a TLog header", ErrCorrupt, len(b))
	}
	c, err := format.DecodeHeader(b, format.KindTLog, Version, 0)
	if err != nil {
		return Header{}, err
	}
	if got, want := format.SeededCRC(c.Incarnation, b[64:124]), binary.LittleEndian.Uint32(b[124:]); got != want {
		return Header{}, fmt.Errorf("%w: TLog header CRC is %08x, not %08x", ErrCorrupt, got, want)
	}
	return Header{
		Volume: c.Owner, ID: ID(c.Number), Incarnation: c.Incarnation,
		Epoch:    binary.LittleEndian.Uint64(b[64:]),
		FirstSeq: binary.LittleEndian.Uint64(b[72:]),
	}, nil
}

// Entry is one decoded entry. Payload aliases the bytes that it was read from.
type Entry struct {
	Kind     Kind
	Flags    uint8
	Seq      uint64
	Addr     uint64
	Location sco.Location
	Run      uint32
	Payload  []byte
}

// Seed is the start of the CRC of every entry in a file of that incarnation.
type Seed uint32

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// SeedOf returns the seed of an incarnation.
func SeedOf(incarnation uint64) Seed { return Seed(format.SeededCRC(incarnation, nil)) }

// AppendEntry appends e. It panics if the payload does not fit an entry or is
// no multiple of 4 bytes long: callers split runs at RunMax.
func AppendEntry(dst []byte, seed Seed, e Entry) []byte {
	n := EntrySize + len(e.Payload)
	if n > 1<<16-1 || n%4 != 0 {
		panic("tlog: entry of " + strconv.Itoa(n) + " bytes")
	}
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, byte(n), byte(n>>8), byte(e.Kind), e.Flags)
	dst = binary.LittleEndian.AppendUint64(dst, e.Seq)
	dst = binary.LittleEndian.AppendUint64(dst, e.Addr)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(e.Location))
	dst = binary.LittleEndian.AppendUint32(dst, e.Run)
	dst = append(dst, e.Payload...)
	binary.LittleEndian.PutUint32(dst[at:], crc32.Update(uint32(seed), castagnoli, dst[at+4:]))
	return dst
}

// AppendWrite appends a write entry for len(sums) clusters, with no
// allocation beyond dst's growth.
func AppendWrite(dst []byte, seed Seed, seq, addr uint64, loc sco.Location, sums []uint32) []byte {
	if len(sums) > RunMax {
		panic("tlog: run of " + strconv.Itoa(len(sums)) + " clusters")
	}
	n := EntrySize + 4*len(sums)
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, byte(n), byte(n>>8), byte(KindWrite), 0)
	dst = binary.LittleEndian.AppendUint64(dst, seq)
	dst = binary.LittleEndian.AppendUint64(dst, addr)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(loc))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(sums)))
	for _, s := range sums {
		dst = binary.LittleEndian.AppendUint32(dst, s)
	}
	binary.LittleEndian.PutUint32(dst[at:], crc32.Update(uint32(seed), castagnoli, dst[at+4:]))
	return dst
}

// Decode reads the entry at the start of b, checks its CRC, and returns it
// with its length.
func Decode(b []byte, seed Seed) (Entry, int, error) {
	n, err := entryLength(b)
	if err != nil {
		return Entry{}, 0, err
	}
	if got, want := crc32.Update(uint32(seed), castagnoli, b[4:n]), binary.LittleEndian.Uint32(b); got != want {
		return Entry{}, 0, fmt.Errorf("%w: entry CRC is %08x, not %08x", ErrCorrupt, got, want)
	}
	return parse(b[:n])
}

// DecodeCovered reads an entry whose bytes a commit block's CRC covers: its
// own CRC belongs to the TLog that it was written to and is not checked.
func DecodeCovered(b []byte) (Entry, int, error) {
	n, err := entryLength(b)
	if err != nil {
		return Entry{}, 0, err
	}
	return parse(b[:n])
}

func entryLength(b []byte) (int, error) {
	if len(b) < EntrySize {
		return 0, fmt.Errorf("%w: %d bytes are less than an entry", ErrCorrupt, len(b))
	}
	n := int(binary.LittleEndian.Uint16(b[4:]))
	if n < EntrySize || n > len(b) || n%4 != 0 {
		return 0, fmt.Errorf("%w: entry length %d of %d bytes", ErrCorrupt, n, len(b))
	}
	return n, nil
}

func parse(b []byte) (Entry, int, error) {
	e := Entry{
		Kind: Kind(b[6]), Flags: b[7],
		Seq:      binary.LittleEndian.Uint64(b[8:]),
		Addr:     binary.LittleEndian.Uint64(b[16:]),
		Location: sco.Location(binary.LittleEndian.Uint64(b[24:])),
		Run:      binary.LittleEndian.Uint32(b[32:]),
		Payload:  b[EntrySize:],
	}
	return e, len(b), e.validate()
}

// validate refuses kinds, flags and fields that this release does not know. The CRC is
// right by then, so the entry was written as it is, by a newer release. It must not be
// taken for a torn entry, which would end the log.
func (e Entry) validate() error {
	if other := e.Flags &^ FlagSkippable; other != 0 {
		return fmt.Errorf("%w: entry of %v with flags %#x", ErrNewer, e.Kind, other)
	}
	bad := false
	switch e.Kind {
	case KindWrite:
		bad = e.Run == 0 || len(e.Payload) != 4*int(e.Run) || e.Location.Kind() != sco.KindData
	case KindTrim, KindZero:
		bad = e.Run == 0 || len(e.Payload) != 0
	case KindSnapshot:
		_, err := e.Snapshot()
		return err
	case KindRollback:
		bad = len(e.Payload) != 16
	case KindResize, KindDurable, KindSeal, KindCommit:
		bad = len(e.Payload) != 0
	default:
		if e.Flags&FlagSkippable == 0 {
			return fmt.Errorf("%w: entry of %v", ErrNewer, e.Kind)
		}
	}
	if bad {
		return fmt.Errorf("%w: %v entry of a form that this release does not know", ErrNewer, e.Kind)
	}
	return nil
}

// Sum returns the CRC-32C of the i-th cluster of a write.
func (e Entry) Sum(i int) uint32 { return binary.LittleEndian.Uint32(e.Payload[4*i:]) }

// Snapshot is the payload of a snapshot entry.
type Snapshot struct {
	ID      uuid.UUID
	Created int64 // Unix nanoseconds
	Auto    bool  // made for a clone of the live vDisk
	Name    string
}

// Payload encodes s.
func (s Snapshot) Payload() []byte {
	b := append(make([]byte, 0, 32+len(s.Name)+3), s.ID[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Created))
	var flags uint32
	if s.Auto {
		flags = snapshotAuto
	}
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s.Name)))
	b = append(b, s.Name...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// snapshotAuto is the flag of a snapshot that was made for a clone.
const snapshotAuto = 1

// Snapshot decodes the payload of a snapshot entry. It refuses flags that this release
// does not know with ErrNewer.
func (e Entry) Snapshot() (Snapshot, error) {
	b := e.Payload
	if len(b) < 32 {
		return Snapshot{}, fmt.Errorf("%w: snapshot entry with %d bytes", ErrNewer, len(b))
	}
	n, flags := binary.LittleEndian.Uint32(b[28:]), binary.LittleEndian.Uint32(b[24:])
	if uint64(n) > uint64(len(b)-32) || len(b)-32-int(n) > 3 {
		return Snapshot{}, fmt.Errorf("%w: snapshot entry with a name of %d bytes", ErrNewer, n)
	}
	if other := flags &^ snapshotAuto; other != 0 {
		return Snapshot{}, fmt.Errorf("%w: snapshot entry with flags %#x", ErrNewer, other)
	}
	s := Snapshot{
		Created: int64(binary.LittleEndian.Uint64(b[16:])),
		Auto:    flags&snapshotAuto != 0,
		Name:    string(b[32 : 32+n]),
	}
	copy(s.ID[:], b)
	return s, nil
}

// Rollback decodes the payload of a rollback entry.
func (e Entry) Rollback() uuid.UUID {
	var id uuid.UUID
	copy(id[:], e.Payload)
	return id
}
