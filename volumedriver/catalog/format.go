package catalog

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"openvstorage/sco"
)

// Version 2, which is what is written. Version 1 is described in format1.go.
//
// The root, object "catalog". Values are little-endian.
//
//	offset size field
//	  0     64  common header: kind catalog, owner = Volume, number = Generation
//	 64      4  length of the whole root, CRC included
//	 68      4  flags: bit 0 Deleting
//	 72      2  length of what is fixed, 256: where the settings begin
//	 74      1  binary logarithm of the cluster size: 12
//	 75      1  zero
//	 76      2  number of lists: 7
//	 78      2  bytes of settings
//	 80      8  Epoch
//	 88      8  Size
//	 96     12  Created: seconds since 1970 (8, signed), nanoseconds (4)
//	108      4  zero
//	112      8  NextSCO
//	120      8  NextTLog
//	128      8  NextObject
//	136      8  StoredSeq
//	144      8  checkpoint: Seq
//	152      8  TLog
//	160      8  NextPage
//	168      8  Generation
//	176     16  Parent
//	192     17  Root: page (8), clusters (8), levels (1)
//	209     17  Live: the same
//	226      8  Recount
//	234     22  zero: room for later releases
//	256      .  the settings, in order of their ids
//	  .      .  the lists, in order of their ids
//	end-4    4  CRC-32C of all that comes before
//
// A setting:
//
//	0      2  id, above that of the one before
//	2      2  flags: bit 0 Optional
//	4      2  length of the value
//	6      .  value
//
// A list:
//
//	offset size field
//	  0      1  id: 1 epochs, 2 origins, 3 children, 4 TLogs, 5 snapshots,
//	            6 page objects, 7 drops
//	  1      1  form: 0 the entries follow; 1 references to segments follow
//	  2      2  bytes of an entry; 0: each begins with its length
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
// A segment, object "catalog-seg-" and 32 hexadecimal digits, is of the version of
// the root that names it:
//
//	  0     64  common header: kind segment, owner = Volume, number = list id
//	 64      4  number of entries
//	 68      4  bytes of entries
//	 72      2  bytes of an entry, as in the list
//	 74      6  zero
//	 80      .  entries
//	end-4    4  CRC-32C of all that comes before
//
// Entries:
//
//	epoch       16  Epoch (8), Base (8)
//	origin      36  Volume (16), Snapshot (16), number that locations have for it
//	                (2): its place in the list; flags (1): none are known;
//	                zero (1)
//	child       36  Volume (16), Snapshot (16), flags (4: bit 0 Unstored)
//	TLog        32  Number (8), FirstSeq (8), LastSeq (8), Size (8)
//	page object 36  Number (8), First (8), End (8), Pages (4), Size (8)
//	drop         9  Page (8), Level (1)
//	snapshot     .  length of the entry (2), ID (16), Parent (16), Seq (8),
//	                Created (12), Size (8), NextSCO (8), flags (1: bit 0 Auto,
//	                bit 1 HasRoot), Root (17), length of the name (2), the name,
//	                length of the metadata (2), the metadata
//
// Two things are reserved for later releases; this one makes neither, and refuses both.
// Bit 0 of an origin's flags marks a tombstone: nothing refers to the origin any more (the
// clone was flattened), but its number is not free yet. An origin whose number is not its
// place in the list belongs to a table that was compacted.
//
// Whoever reads a catalog also rewrites it. A reader that skipped what it does not know
// would lose it: so it refuses what is unknown, and what is not zero where zeros belong,
// as the work of a newer release.
//
// CRCs have no seed. An object is put whole, so that it cannot hold bytes of an older one;
// and a segment's name is a hash of its bytes, which must be equal for equal entries in
// every generation. These bytes are on disk. They never change.
const (
	version      = 2 // of both the root and the segments
	rootFixed    = 256
	crcSize      = 4
	settingFixed = 6
	listHeader   = 12
	refSize      = 32
	segFixed     = 80
	snapFixed    = 92 // bytes of a snapshot without name and metadata

	flagDeleting = 1 << 0

	settingOptional = 1 << 0

	childUnstored = 1 << 0

	snapAuto    = 1 << 0
	snapHasRoot = 1 << 1

	formInline   = 0
	formSegments = 1
)

// clusterLog2 is 12.
var clusterLog2 = uint8(bits.TrailingZeros(sco.ClusterSize))

// The content decides where segments are cut. So an entry that is put in or taken out
// changes the segment that it is in, and the others keep their names.
const (
	segmentMin  = 16 << 10 // bytes of entries, before which no segment ends
	segmentMax  = 64 << 10 // bytes of entries, at which each segment ends
	segmentMask = 1<<8 - 1 // in between, one entry in 256 ends a segment
)

// SegmentPrefix begins the name of every segment object.
const SegmentPrefix = "catalog-seg-"

// Errors that callers match with errors.Is, next to format.ErrCorrupt and
// format.ErrNewer.
var (
	// ErrInvalid: the value contradicts itself, and is neither encoded nor decoded.
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

// entrySize is the size of each entry in bytes, 0 if sizes differ.
func (l listID) entrySize() int {
	return [...]int{0, 16, 36, 36, 32, 0, 36, 9}[l]
}

// entryMin is the smallest size of an entry of any version, in bytes. It bounds what a
// decoder allocates for a count that it has read.
func (l listID) entryMin() int {
	return [...]int{0, 16, 32, 32, 32, snapFixed1, 36, 9}[l]
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
	b = binary.LittleEndian.AppendUint16(b, uint16(snapFixed+len(s.Name)+len(s.Meta)))
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
	b = append(b, s.Name...)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s.Meta)))
	return append(b, s.Meta...)
}

func appendSetting(b []byte, s Setting) []byte {
	var flags uint16
	if s.Optional {
		flags |= settingOptional
	}
	for _, v := range []uint16{s.ID, flags, uint16(len(s.Value))} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return append(b, s.Value...)
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
		b = append(b, c.Origins[i].Snapshot[:]...)
		return append(binary.LittleEndian.AppendUint16(b, uint16(i)), 0, 0)
	case listChildren:
		k := &c.Children[i]
		b = append(b, k.Volume[:]...)
		b = append(b, k.Snapshot[:]...)
		var flags uint32
		if k.Unstored {
			flags |= childUnstored
		}
		return binary.LittleEndian.AppendUint32(b, flags)
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
