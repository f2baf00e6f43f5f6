package catalog

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"openvstorage/internal/format"
	"openvstorage/sco"
)

// Segment is an immutable object that a root names. Its name is made from its
// bytes: equal segments have equal names, in every generation.
type Segment struct {
	Name string
	Data []byte
}

// Encode returns the root, at most RootMax bytes, and the segments that it
// names. The segments must be in the backend before the root is (rule O3);
// those that an earlier generation named are there already. It refuses a
// catalog that Validate refuses (ErrInvalid), and one whose references alone
// are more than a root holds (ErrTooLarge). Equal catalogs give equal bytes.
func Encode(c *Catalog) (root []byte, segments []Segment, err error) {
	return c.encode(RootMax)
}

func (c *Catalog) encode(rootMax int) (root []byte, segments []Segment, err error) {
	if err := c.Validate(); err != nil {
		return nil, nil, err
	}
	var lists [listEnd][]byte // what follows each list's header
	var forms [listEnd]byte
	size := rootFixed + crcSize
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
	return c.appendRootObject(make([]byte, 0, size), size, &lists, &forms), segments, nil
}

// largestInline returns the list to move to segments next: the largest one
// that gets smaller by it. 0 if there is none.
func largestInline(lists *[listEnd][]byte, forms *[listEnd]byte) (largest listID) {
	for l := listID(1); l < listEnd; l++ {
		if forms[l] == formInline && len(lists[l]) > refSize && len(lists[l]) > len(lists[largest]) {
			largest = l
		}
	}
	return largest
}

func (c *Catalog) appendRootObject(b []byte, size int, lists *[listEnd][]byte, forms *[listEnd]byte) []byte {
	b = format.AppendHeader(b, format.Header{
		Kind: format.KindCatalog, Version: version, MinReader: version, Owner: c.Volume, Number: c.Generation,
	})
	var flags uint32
	if c.Deleting {
		flags |= flagDeleting
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = appendU64(b, c.Epoch, c.Size)
	b = appendTime(b, c.Created)
	b = appendU64(b, uint64(c.NextSCO), c.NextTLog, c.NextObject, c.StoredSeq)
	k := &c.Checkpoint
	b = appendU64(b, k.Seq, k.TLog, k.NextPage, k.Generation)
	b = append(b, k.Parent[:]...)
	b = appendRoot(b, k.Root)
	b = appendRoot(b, k.Live)
	b = appendU64(b, k.Recount)
	b = binary.LittleEndian.AppendUint16(b, uint16(listEnd-1))
	for l := listID(1); l < listEnd; l++ {
		b = append(b, byte(l), forms[l], 0, 0)
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

// ref is a decoded reference to a segment.
type ref struct {
	name   string
	length uint32
	crc    uint32
	count  uint32
}

func (r *reader) ref() ref {
	v := ref{name: SegmentPrefix + hex.EncodeToString(r.take(16)), length: r.u32(), crc: r.u32(), count: r.u32()}
	if zero := r.u32(); zero != 0 {
		r.fail("a reference to a segment with %#x where zero belongs", zero)
	}
	if v.length > SegmentMax {
		r.fail("a reference to a segment of %d bytes", v.length)
	}
	return v
}

// segmentOver is by how much the entry that reaches segmentMax may exceed it.
const segmentOver = 88 + nameMax

// SegmentMax is the largest encoded segment in bytes.
const SegmentMax = segFixed + segmentMax + segmentOver + crcSize

// Decode reads what Encode wrote. fetch returns the segment object of that
// name; its error is passed on. What is damaged gives format.ErrCorrupt, what
// a newer release wrote format.ErrNewer, what contradicts itself ErrInvalid;
// in all cases nothing of it is returned.
func Decode(root []byte, fetch func(name string) ([]byte, error)) (*Catalog, error) {
	c, err := decode(root, fetch)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	return c, nil
}

// Segments returns the names of the segment objects that a root names, so
// that those of older generations can be told apart and deleted.
func Segments(root []byte) ([]string, error) {
	var names []string
	_, err := walk(root, func(_ *Catalog, _ listID, r ref) error {
		names = append(names, r.name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	return names, nil
}

func decode(root []byte, fetch func(name string) ([]byte, error)) (*Catalog, error) {
	c, err := walk(root, func(c *Catalog, l listID, r ref) error {
		data, err := fetch(r.name)
		if err != nil {
			return fmt.Errorf("segment %s: %w", r.name, err)
		}
		if err := c.decodeSegment(l, r, data); err != nil {
			return fmt.Errorf("segment %s: %w", r.name, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, c.Validate()
}

// walk decodes the root and calls segment for every reference, in order.
func walk(root []byte, segment func(*Catalog, listID, ref) error) (*Catalog, error) {
	h, err := format.DecodeHeader(root, format.KindCatalog, version, 0)
	if err != nil {
		return nil, err
	}
	if len(root) < rootFixed+crcSize || len(root) > RootMax {
		return nil, fmt.Errorf("%w: a root of %d bytes", format.ErrCorrupt, len(root))
	}
	if n := binary.LittleEndian.Uint32(root[64:]); int64(n) != int64(len(root)) {
		return nil, fmt.Errorf("%w: a root of %d bytes says that it has %d", format.ErrCorrupt, len(root), n)
	}
	body, err := checkCRC(root)
	if err != nil {
		return nil, err
	}
	r := &reader{b: body[68:]}
	c := &Catalog{Volume: h.Owner, Generation: h.Number}
	c.decodeFixed(r)
	if n := r.u16(); r.err == nil && n != uint16(listEnd-1) {
		return nil, fmt.Errorf("%w: a root with %d lists", format.ErrNewer, n)
	}
	for l := listID(1); l < listEnd; l++ {
		if err := c.decodeList(r, l, segment); err != nil {
			return nil, fmt.Errorf("%v: %w", l, err)
		}
	}
	if len(r.b) != 0 {
		return nil, fmt.Errorf("%w: %d bytes behind the last list", format.ErrCorrupt, len(r.b))
	}
	return c, nil
}

func checkCRC(b []byte) (body []byte, err error) {
	body = b[:len(b)-crcSize]
	if got, want := format.CRC(body), binary.LittleEndian.Uint32(b[len(body):]); got != want {
		return nil, fmt.Errorf("%w: CRC is %08x, not %08x", format.ErrCorrupt, got, want)
	}
	return body, nil
}

func (c *Catalog) decodeFixed(r *reader) {
	flags := r.u32()
	if flags&^flagDeleting != 0 {
		r.fail("unknown flags %#x", flags)
	}
	c.Deleting = flags&flagDeleting != 0
	c.Epoch, c.Size, c.Created = r.u64(), r.u64(), r.time()
	c.NextSCO, c.NextTLog, c.NextObject, c.StoredSeq = sco.Number(r.u64()), r.u64(), r.u64(), r.u64()
	k := &c.Checkpoint
	k.Seq, k.TLog, k.NextPage, k.Generation = r.u64(), r.u64(), r.u64(), r.u64()
	k.Parent = r.uuid()
	k.Root, k.Live = r.root(), r.root()
	k.Recount = r.u64()
}

func (c *Catalog) decodeList(r *reader, want listID, segment func(*Catalog, listID, ref) error) error {
	id, form, zero := listID(r.u8()), r.u8(), r.u16()
	count, length := r.u32(), r.u32()
	if r.err != nil {
		return r.err
	}
	if id != want || zero != 0 || uint64(length) > uint64(len(r.b)) {
		return fmt.Errorf("%w: list %d of %d bytes (%#x)", format.ErrCorrupt, id, length, zero)
	}
	part := &reader{b: r.take(int(length))}
	var total uint64
	switch form {
	case formInline:
		c.decodeEntries(part, want, count)
		total = uint64(count)
	case formSegments:
		for len(part.b) > 0 {
			v := part.ref()
			if part.err != nil {
				break
			}
			if err := segment(c, want, v); err != nil {
				return err
			}
			total += uint64(v.count)
		}
	default:
		return fmt.Errorf("%w: a list of form %d", format.ErrNewer, form)
	}
	if part.err != nil {
		return part.err
	}
	if len(part.b) != 0 || total != uint64(count) {
		return fmt.Errorf("%w: %d entries of %d, %d bytes left", format.ErrCorrupt, total, count, len(part.b))
	}
	return nil
}

// decodeEntries reads count entries, which must use up part.
func (c *Catalog) decodeEntries(part *reader, l listID, count uint32) {
	if uint64(count)*uint64(l.entryMin()) > uint64(len(part.b)) {
		part.fail("%d entries in %d bytes", count, len(part.b))
	}
	for range count {
		if part.err != nil {
			return
		}
		c.decodeEntry(part, l)
	}
	if part.err == nil && len(part.b) != 0 {
		part.fail("%d bytes behind the last of %d entries", len(part.b), count)
	}
}

func (c *Catalog) decodeSegment(l listID, want ref, data []byte) error {
	if uint64(len(data)) != uint64(want.length) || len(data) < segFixed+crcSize {
		return fmt.Errorf("%w: it has %d bytes, the root says %d", format.ErrCorrupt, len(data), want.length)
	}
	if got := format.CRC(data); got != want.crc {
		return fmt.Errorf("%w: CRC is %08x, the root says %08x", format.ErrCorrupt, got, want.crc)
	}
	if name := segmentName(data); name != want.name {
		return fmt.Errorf("%w: its bytes belong to %s", format.ErrCorrupt, name)
	}
	h, err := format.DecodeHeader(data, format.KindSegment, version, 0)
	if err != nil {
		return err
	}
	if h.Owner != c.Volume || h.Number != uint64(l) {
		return fmt.Errorf("%w: it holds %v of vDisk %s", format.ErrCorrupt, listID(min(h.Number, 255)), h.Owner)
	}
	body, err := checkCRC(data)
	if err != nil {
		return err
	}
	count, length := binary.LittleEndian.Uint32(body[64:]), binary.LittleEndian.Uint32(body[68:])
	if count != want.count || uint64(length) != uint64(len(body)-segFixed) {
		return fmt.Errorf("%w: %d entries in %d bytes, the root says %d entries", format.ErrCorrupt, count, length, want.count)
	}
	part := &reader{b: body[segFixed:]}
	c.decodeEntries(part, l, count)
	return part.err
}
