package catalog

import (
	"encoding/binary"
	"fmt"

	"openvstorage/internal/format"
	"openvstorage/sco"
)

// Decode decodes what Encode of this release or an earlier one has made. fetch returns
// the segment object of that name.
//
// Errors: format.ErrCorrupt for damage, format.ErrNewer for what a newer release wrote,
// ErrInvalid for a catalog that contradicts itself, and those of fetch.
func Decode(root []byte, fetch func(name string) ([]byte, error)) (*Catalog, error) {
	c, err := decode(root, fetch)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	return c, nil
}

// Segments returns the names of the segment objects that a root names. With them the
// segments of older generations can be told apart, and deleted.
func Segments(root []byte) ([]string, error) {
	var names []string
	_, err := walk(root, func(_ *Catalog, _ place, r ref) error {
		names = append(names, r.name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	return names, nil
}

func decode(root []byte, fetch func(name string) ([]byte, error)) (*Catalog, error) {
	c, err := walk(root, func(c *Catalog, p place, r ref) error {
		data, err := fetch(r.name)
		if err != nil {
			return fmt.Errorf("segment %s: %w", r.name, err)
		}
		if err := c.decodeSegment(p, r, data); err != nil {
			return fmt.Errorf("segment %s: %w", r.name, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, c.Validate()
}

// place says which list entries belong to, and which version they are of.
type place struct {
	list    listID
	version uint16
}

// walk decodes the root and calls segment for every reference, in order.
func walk(root []byte, segment func(*Catalog, place, ref) error) (*Catalog, error) {
	h, err := format.DecodeRewritten(root, format.KindCatalog, version, 0)
	if err != nil {
		return nil, err
	}
	if len(root) < rootFixed1+crcSize || len(root) > RootMax {
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
	lists := 0
	if h.Version == 1 {
		lists = c.decodeFixed1(r)
	} else {
		lists = c.decodeFixed(r)
	}
	if r.err != nil {
		return nil, r.err
	}
	if err := c.decodeLists(r, lists, h.Version, segment); err != nil {
		return nil, err
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

func (c *Catalog) decodeFlags(r *reader) {
	flags := r.u32()
	if unknown := flags &^ flagDeleting; unknown != 0 {
		r.newer("flags %#x", unknown)
	}
	c.Deleting = flags&flagDeleting != 0
}

// decodeNumbers decodes what follows the time of creation in both versions.
func (c *Catalog) decodeNumbers(r *reader) {
	c.NextSCO, c.NextTLog, c.NextObject, c.StoredSeq = sco.Number(r.u64()), r.u64(), r.u64(), r.u64()
	k := &c.Checkpoint
	k.Seq, k.TLog, k.NextPage, k.Generation = r.u64(), r.u64(), r.u64(), r.u64()
	k.Parent = r.uuid()
	k.Root, k.Live = r.root(), r.root()
	k.Recount = r.u64()
}

// decodeFixed decodes the part of fixed length, and the settings.
func (c *Catalog) decodeFixed(r *reader) (lists int) {
	c.decodeFlags(r)
	switch fixed := r.u16(); {
	case fixed > rootFixed:
		r.newer("a root with %d bytes before its settings, this release knows %d", fixed, rootFixed)
	case fixed < rootFixed:
		r.fail("a root with %d bytes before its settings, not %d", fixed, rootFixed)
	}
	if log2 := r.u8(); log2 != clusterLog2 {
		r.newer("clusters of 2^%d bytes, this release knows those of 2^%d", log2, clusterLog2)
	}
	r.zero(1, "the cluster size")
	lists = int(r.u16())
	config := int(r.u16())
	c.Epoch, c.Size, c.Created = r.u64(), r.u64(), r.time()
	r.zero(4, "the time of creation")
	c.decodeNumbers(r)
	r.zero(22, "the checkpoint")
	c.decodeConfig(r, config)
	return lists
}

func (c *Catalog) decodeConfig(r *reader, size int) {
	part := &reader{b: r.take(size)}
	for len(part.b) > 0 && r.err == nil {
		id, flags := part.u16(), part.u16()
		s := Setting{ID: id, Optional: flags&settingOptional != 0, Value: string(part.take(int(part.u16())))}
		switch {
		case part.err != nil:
		case flags&^settingOptional != 0:
			part.newer("setting %d with flags %#x", id, flags)
		case !s.Optional:
			part.newer("setting %d, which must be known", id)
		}
		if part.err != nil {
			r.err, r.b = part.err, nil
			return
		}
		c.Config = append(c.Config, s)
	}
}

// decodeLists reads the lists, which are in order of their ids.
func (c *Catalog) decodeLists(r *reader, lists int, version uint16, segment func(*Catalog, place, ref) error) error {
	if lists < int(listEnd-1) {
		return fmt.Errorf("%w: a root with %d lists, not %d", format.ErrCorrupt, lists, listEnd-1)
	}
	for want := listID(1); want < listEnd; want++ {
		if err := c.decodeList(r, place{want, version}, segment); err != nil {
			return fmt.Errorf("%v: %w", want, err)
		}
	}
	if lists > int(listEnd-1) {
		return fmt.Errorf("%w: a root with %d lists; %v is unknown", format.ErrNewer, lists, listID(r.u8()))
	}
	return nil
}

func (c *Catalog) decodeList(r *reader, p place, segment func(*Catalog, place, ref) error) error {
	id, form, size := listID(r.u8()), r.u8(), r.u16()
	count, length := r.u32(), r.u32()
	if r.err != nil {
		return r.err
	}
	if id != p.list || uint64(length) > uint64(len(r.b)) {
		return fmt.Errorf("%w: list %d of %d bytes", format.ErrCorrupt, id, length)
	}
	if err := p.checkSize(int(size)); err != nil {
		return err
	}
	part := &reader{b: r.take(int(length))}
	var total uint64
	switch form {
	case formInline:
		c.decodeEntries(part, p, count)
		total = uint64(count)
	case formSegments:
		for len(part.b) > 0 {
			v := part.ref()
			if part.err != nil {
				break
			}
			if err := segment(c, p, v); err != nil {
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

// checkSize checks the entry size, in bytes, that a list or a segment has in its header.
func (p place) checkSize(size int) error {
	want := 0 // version 1 has no entry sizes
	if p.version > 1 {
		want = p.list.entrySize()
	}
	if size != want {
		return fmt.Errorf("%w: %v with entries of %d bytes, this release knows %d", format.ErrNewer, p.list, size, want)
	}
	return nil
}

// decodeEntries decodes count entries, which must be all that part holds.
func (c *Catalog) decodeEntries(part *reader, p place, count uint32) {
	if uint64(count)*uint64(p.list.entryMin()) > uint64(len(part.b)) {
		part.fail("%d entries in %d bytes", count, len(part.b))
	}
	for range count {
		if part.err != nil {
			return
		}
		c.decodeEntry(part, p)
	}
	if part.err == nil && len(part.b) != 0 {
		part.fail("%d bytes behind the last of %d entries", len(part.b), count)
	}
}

func (c *Catalog) decodeSegment(p place, want ref, data []byte) error {
	fixed := segFixed
	if p.version == 1 {
		fixed = segFixed1
	}
	if uint64(len(data)) != uint64(want.length) || len(data) < fixed+crcSize {
		return fmt.Errorf("%w: it has %d bytes, the root says %d", format.ErrCorrupt, len(data), want.length)
	}
	if got := format.CRC(data); got != want.crc {
		return fmt.Errorf("%w: CRC is %08x, the root says %08x", format.ErrCorrupt, got, want.crc)
	}
	if name := segmentName(data); name != want.name {
		return fmt.Errorf("%w: its bytes belong to %s", format.ErrCorrupt, name)
	}
	h, err := format.DecodeRewritten(data, format.KindSegment, version, 0)
	if err != nil {
		return err
	}
	if h.Owner != c.Volume || h.Number != uint64(p.list) || h.Version != p.version {
		return fmt.Errorf("%w: it holds %v of vDisk %s, version %d", format.ErrCorrupt, listID(min(h.Number, 255)), h.Owner, h.Version)
	}
	body, err := checkCRC(data)
	if err != nil {
		return err
	}
	count, length := binary.LittleEndian.Uint32(body[64:]), binary.LittleEndian.Uint32(body[68:])
	if count != want.count || uint64(length) != uint64(len(body)-fixed) {
		return fmt.Errorf("%w: %d entries in %d bytes, the root says %d entries", format.ErrCorrupt, count, length, want.count)
	}
	if p.version > 1 {
		if err := p.checkSize(int(binary.LittleEndian.Uint16(body[72:]))); err != nil {
			return err
		}
		if at := format.NotZero(body[74:segFixed]); at >= 0 {
			return fmt.Errorf("%w: a field at offset %d, which this release does not know", format.ErrNewer, 74+at)
		}
	}
	part := &reader{b: body[fixed:]}
	c.decodeEntries(part, p, count)
	return part.err
}
