package catalog

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"openvstorage/internal/format"
	"openvstorage/sco"

	"github.com/google/uuid"
)

// The root, object "catalog". Values are little-endian.
//
//	offset size field
//	  0     64  common header: kind catalog, owner = Volume, number = Generation
//	 64      4  length of the whole root, CRC included
//	 68      4  flags: bit 0 Deleting
//	 72      8  Epoch
//	 80      8  Size
//	 88     12  Created: seconds since 1970 (8, signed), nanoseconds (4)
//	100      8  NextSCO
//	108      8  NextTLog
//	116      8  NextObject
//	124      8  StoredSeq
//	132      8  checkpoint: Seq
//	140      8  TLog
//	148      8  NextPage
//	156      8  Generation
//	164     16  Parent
//	180     17  Root: page (8), clusters (8), levels (1)
//	197     17  Live: the same
//	214      8  Recount
//	222      2  number of lists: 7
//	224      .  the lists, in order of their ids
//	end-4    4  CRC-32C of all that comes before
//
// A list:
//
//	offset size field
//	  0      1  id: 1 epochs, 2 origins, 3 children, 4 TLogs, 5 snapshots,
//	            6 page objects, 7 drops
//	  1      1  form: 0 the entries follow; 1 references to segments follow
//	  2      2  zero
//	  4      4  number of entries in all
//	  8      4  bytes that follow
//
// A reference to a segment, 32 bytes:
//
//	 0     16  the first 16 bytes of the SHA-256 of the segment, which name it
//	16      4  length of the segment
//	20      4  CRC-32C of the segment
//	24      4  number of entries in it
//	28      4  zero
//
// A segment, object "catalog-seg-" and 32 hexadecimal digits:
//
//	  0     64  common header: kind segment, owner = Volume, number = list id
//	 64      4  number of entries
//	 68      4  bytes of entries
//	 72      .  entries
//	end-4    4  CRC-32C of all that comes before
//
// Entries:
//
//	epoch       16  Epoch (8), Base (8)
//	origin      32  Volume (16), Snapshot (16)
//	child       32  Volume (16), Snapshot (16)
//	TLog        32  Number (8), FirstSeq (8), LastSeq (8), Size (8)
//	page object 36  Number (8), First (8), End (8), Pages (4), Size (8)
//	drop         9  Page (8), Level (1)
//	snapshot     .  ID (16), Parent (16), Seq (8), Created (12), Size (8),
//	                NextSCO (8), flags (1: bit 0 Auto, bit 1 HasRoot),
//	                Root (17), length of the name (2), the name
//
// A catalog is rewritten by whoever reads it, so that a reader that skipped
// what it does not know would lose it: unknown lists, forms and flags are
// refused. These bytes are on disk. They never change.
const (
	version    = 1 // of both the root and the segments
	rootFixed  = 224
	crcSize    = 4
	listHeader = 12
	refSize    = 32
	segFixed   = 72
	nameMax    = 1024 // bytes of a snapshot's name

	flagDeleting = 1 << 0

	snapAuto    = 1 << 0
	snapHasRoot = 1 << 1

	formInline   = 0
	formSegments = 1
)

// Segments are cut where the content says so, so that an entry put in or
// taken out changes the segment it is in and leaves the others their names.
const (
	segmentMin  = 16 << 10 // bytes of entries; no cut before
	segmentMax  = 64 << 10 // bytes of entries; a cut at the latest
	segmentMask = 1<<8 - 1 // in between, one entry in 256 ends a segment
)

// SegmentPrefix begins the name of every segment object.
const SegmentPrefix = "catalog-seg-"

// Errors that callers match with errors.Is, next to format.ErrCorrupt and
// format.ErrNewer.
var (
	// ErrInvalid: the value contradicts itself; it was neither encoded nor accepted.
	ErrInvalid = errors.New("catalog contradicts itself")
	// ErrTooLarge: the catalog does not fit a root even with all its lists in segments.
	ErrTooLarge = errors.New("catalog is too large")
)

// listID numbers the lists on disk.
type listID uint8

const (
	listEpochs listID = 1 + iota
	listOrigins
	listChildren
	listTLogs
	listSnapshots
	listPages
	listDrops
	listEnd
)

func (l listID) String() string {
	names := [...]string{"", "epochs", "origins", "children", "TLogs", "snapshots", "page objects", "drops"}
	if int(l) < len(names) && l > 0 {
		return names[l]
	}
	return fmt.Sprintf("list %d", uint8(l))
}

// entryMin is the least number of bytes that an entry takes; it bounds what a
// count can make a decoder allocate.
func (l listID) entryMin() int {
	return [...]int{0, 16, 32, 32, 32, 88, 36, 9}[l]
}

func segmentName(data []byte) string {
	sum := sha256.Sum256(data)
	return SegmentPrefix + hex.EncodeToString(sum[:16])
}

func appendTime(b []byte, t time.Time) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(t.Unix()))
	return binary.LittleEndian.AppendUint32(b, uint32(t.Nanosecond()))
}

func appendRoot(b []byte, r Root) []byte {
	b = appendU64(b, r.Page, r.Clusters)
	return append(b, r.Levels)
}

func appendU64(b []byte, vs ...uint64) []byte {
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func appendSnapshot(b []byte, s *Snapshot) []byte {
	b = append(b, s.ID[:]...)
	b = append(b, s.Parent[:]...)
	b = appendU64(b, s.Seq)
	b = appendTime(b, s.Created)
	b = appendU64(b, s.Size, uint64(s.NextSCO))
	var flags byte
	if s.Auto {
		flags |= snapAuto
	}
	if s.HasRoot {
		flags |= snapHasRoot
	}
	b = append(b, flags)
	b = appendRoot(b, s.Root)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s.Name)))
	return append(b, s.Name...)
}

// listLen returns the number of entries of a list.
func (c *Catalog) listLen(l listID) int {
	switch l {
	case listEpochs:
		return len(c.Epochs)
	case listOrigins:
		return len(c.Origins)
	case listChildren:
		return len(c.Children)
	case listTLogs:
		return len(c.TLogs)
	case listSnapshots:
		return len(c.Snapshots)
	case listPages:
		return len(c.Pages)
	default:
		return len(c.Checkpoint.Drops)
	}
}

// appendEntry appends entry i of a list.
func (c *Catalog) appendEntry(b []byte, l listID, i int) []byte {
	switch l {
	case listEpochs:
		return appendU64(b, c.Epochs[i].Epoch, c.Epochs[i].Base)
	case listOrigins:
		b = append(b, c.Origins[i].Volume[:]...)
		return append(b, c.Origins[i].Snapshot[:]...)
	case listChildren:
		b = append(b, c.Children[i].Volume[:]...)
		return append(b, c.Children[i].Snapshot[:]...)
	case listTLogs:
		t := &c.TLogs[i]
		return appendU64(b, t.Number, t.FirstSeq, t.LastSeq, uint64(t.Size))
	case listSnapshots:
		return appendSnapshot(b, &c.Snapshots[i])
	case listPages:
		p := &c.Pages[i]
		b = appendU64(b, p.Number, p.First, p.End)
		b = binary.LittleEndian.AppendUint32(b, p.Pages)
		return appendU64(b, uint64(p.Size))
	default:
		b = appendU64(b, c.Checkpoint.Drops[i].Page)
		return append(b, c.Checkpoint.Drops[i].Level)
	}
}

// decodeEntry reads one entry and appends it to its list.
func (c *Catalog) decodeEntry(r *reader, l listID) {
	switch l {
	case listEpochs:
		c.Epochs = append(c.Epochs, EpochStart{Epoch: r.u64(), Base: r.u64()})
	case listOrigins:
		c.Origins = append(c.Origins, Origin{Volume: r.uuid(), Snapshot: r.uuid()})
	case listChildren:
		c.Children = append(c.Children, Child{Volume: r.uuid(), Snapshot: r.uuid()})
	case listTLogs:
		c.TLogs = append(c.TLogs, TLog{Number: r.u64(), FirstSeq: r.u64(), LastSeq: r.u64(), Size: int64(r.u64())})
	case listSnapshots:
		c.Snapshots = append(c.Snapshots, r.snapshot())
	case listPages:
		c.Pages = append(c.Pages, PageObject{Number: r.u64(), First: r.u64(), End: r.u64(), Pages: r.u32(), Size: int64(r.u64())})
	default:
		c.Checkpoint.Drops = append(c.Checkpoint.Drops, Drop{Page: r.u64(), Level: r.u8()})
	}
}

// reader takes values off the front of b. After the first shortfall every
// value is zero and err says so; the caller checks it once.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(text string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+text, append([]any{format.ErrCorrupt}, args...)...)
	}
	r.b = nil
}

func (r *reader) take(n int) []byte {
	if r.err != nil || len(r.b) < n {
		r.fail("it ends in the middle of a value")
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) u8() uint8 {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if v := r.take(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if v := r.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if v := r.take(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (r *reader) uuid() (id uuid.UUID) {
	copy(id[:], r.take(16))
	return id
}

func (r *reader) time() time.Time {
	sec, nsec := int64(r.u64()), r.u32()
	if nsec >= 1e9 {
		r.fail("a time with %d nanoseconds", nsec)
	}
	return time.Unix(sec, int64(nsec)).UTC()
}

func (r *reader) root() Root {
	return Root{Page: r.u64(), Clusters: r.u64(), Levels: r.u8()}
}

func (r *reader) snapshot() Snapshot {
	s := Snapshot{
		ID: r.uuid(), Parent: r.uuid(), Seq: r.u64(), Created: r.time(), Size: r.u64(),
		NextSCO: sco.Number(r.u64()),
	}
	flags := r.u8()
	if flags&^(snapAuto|snapHasRoot) != 0 {
		r.fail("a snapshot with unknown flags %#x", flags)
	}
	s.Auto, s.HasRoot = flags&snapAuto != 0, flags&snapHasRoot != 0
	s.Root = r.root()
	s.Name = string(r.take(int(r.u16())))
	return s
}
