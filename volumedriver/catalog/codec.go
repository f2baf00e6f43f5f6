package catalog

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"openvstorage/internal/format"
)

// Segment is an immutable object that a root names. Its name is a hash of its bytes, so
// that equal segments have equal names in every generation.
type Segment struct {
	Name string
	Data []byte
}

// Encode returns the root, at most RootMax bytes, and the segments that it names. The
// segments must be in the backend before the root is (rule O3); those that an earlier
// generation names are there already. Equal catalogs give equal bytes.
//
// Errors: ErrInvalid for a catalog that Validate refuses, ErrTooLarge for one whose
// references to segments do not fit a root.
func Encode(c *Catalog) (root []byte, segments []Segment, err error) {
	return c.encode(RootMax)
}

func (c *Catalog) encode(rootMax int) (root []byte, segments []Segment, err error) {
	if err := c.Validate(); err != nil {
		return nil, nil, err
	}
	var lists [listEnd][]byte // what follows each list's header
	var forms [listEnd]byte
	var config []byte
	for _, v := range c.Config {
		config = appendSetting(config, v)
	}
	size := rootFixed + len(config) + crcSize
	for l := listID(1); l < listEnd; l++ {
		for i := range c.listLen(l) {
			lists[l] = c.appendEntry(lists[l], l, i)
		}
		size += listHeader + len(lists[l])
	}
	for size > rootMax {
		l := largestInline(&lists, &forms)
		if l == 0 {
			return nil, nil, fmt.Errorf("%w: vDisk %s: its root would have %d bytes, %d are allowed; delete snapshots", ErrTooLarge, c.Volume, size, rootMax)
		}
		refs, segs := c.cut(l)
		size += len(refs) - len(lists[l])
		lists[l], forms[l] = refs, formSegments
		segments = append(segments, segs...)
	}
	return c.appendRootObject(make([]byte, 0, size), size, config, &lists, &forms), segments, nil
}

// largestInline returns the list to move to segments next: the largest one whose
// references take less room in the root than its entries. 0 if there is none.
func largestInline(lists *[listEnd][]byte, forms *[listEnd]byte) (largest listID) {
	for l := listID(1); l < listEnd; l++ {
		if forms[l] == formInline && len(lists[l]) > refSize && len(lists[l]) > len(lists[largest]) {
			largest = l
		}
	}
	return largest
}

func (c *Catalog) appendRootObject(b []byte, size int, config []byte, lists *[listEnd][]byte, forms *[listEnd]byte) []byte {
	b = format.AppendHeader(b, format.Header{
		Kind: format.KindCatalog, Version: version, MinReader: version, Owner: c.Volume, Number: c.Generation,
	})
	var flags uint32
	if c.Deleting {
		flags |= flagDeleting
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = binary.LittleEndian.AppendUint16(b, rootFixed)
	b = append(b, clusterLog2, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(listEnd-1))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(config)))
	b = appendU64(b, c.Epoch, c.Size)
	b = appendTime(b, c.Created)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = appendU64(b, uint64(c.NextSCO), c.NextTLog, c.NextObject, c.StoredSeq)
	k := &c.Checkpoint
	b = appendU64(b, k.Seq, k.TLog, k.NextPage, k.Generation)
	b = append(b, k.Parent[:]...)
	b = appendRoot(b, k.Root)
	b = appendRoot(b, k.Live)
	b = appendU64(b, k.Recount)
	b = append(b, make([]byte, rootFixed-len(b))...)
	b = append(b, config...)
	for l := listID(1); l < listEnd; l++ {
		b = append(b, byte(l), forms[l])
		b = binary.LittleEndian.AppendUint16(b, uint16(l.entrySize()))
		b = binary.LittleEndian.AppendUint32(b, uint32(c.listLen(l)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(lists[l])))
		b = append(b, lists[l]...)
	}
	return binary.LittleEndian.AppendUint32(b, format.CRC(b))
}

// cut makes the segments of a list and the references to them.
func (c *Catalog) cut(l listID) (refs []byte, segments []Segment) {
	var entries []byte
	count := 0
	for i, n := 0, c.listLen(l); i < n; i++ {
		at := len(entries)
		entries = c.appendEntry(entries, l, i)
		count++
		end := len(entries) >= segmentMin && format.CRC(entries[at:])&segmentMask == 0
		if !end && len(entries) < segmentMax && i < n-1 {
			continue
		}
		s := c.segment(l, count, entries)
		refs = appendRef(refs, s, count)
		segments = append(segments, s)
		entries, count = entries[:0], 0
	}
	return refs, segments
}

func (c *Catalog) segment(l listID, count int, entries []byte) Segment {
	b := make([]byte, 0, segFixed+len(entries)+crcSize)
	b = format.AppendHeader(b, format.Header{
		Kind: format.KindSegment, Version: version, MinReader: version, Owner: c.Volume, Number: uint64(l),
	})
	b = binary.LittleEndian.AppendUint32(b, uint32(count))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entries)))
	b = binary.LittleEndian.AppendUint16(b, uint16(l.entrySize()))
	b = append(b, make([]byte, segFixed-len(b))...)
	b = append(b, entries...)
	b = binary.LittleEndian.AppendUint32(b, format.CRC(b))
	return Segment{Name: segmentName(b), Data: b}
}

func appendRef(b []byte, s Segment, count int) []byte {
	hash, _ := hex.DecodeString(s.Name[len(SegmentPrefix):])
	b = append(b, hash...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s.Data)))
	b = binary.LittleEndian.AppendUint32(b, format.CRC(s.Data))
	b = binary.LittleEndian.AppendUint32(b, uint32(count))
	return binary.LittleEndian.AppendUint32(b, 0)
}

// segmentOver is by how much the entry that reaches segmentMax may exceed it.
const segmentOver = snapFixed + nameMax + MetaMax

// SegmentMax is the largest encoded segment in bytes.
const SegmentMax = segFixed + segmentMax + segmentOver + crcSize
