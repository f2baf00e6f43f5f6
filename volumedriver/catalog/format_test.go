package catalog

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"testing"

	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"
	"openvstorage/internal/format/unknown"
)

// first is what version 1 keeps of the sample.
func first(c *Catalog) *Catalog {
	c = c.Clone()
	c.Config = nil
	for i := range c.Children {
		c.Children[i].Unstored = false
	}
	for i := range c.Snapshots {
		c.Snapshots[i].Meta = ""
	}
	return c
}

// appendEntry1 is how version 1 wrote an entry.
func (c *Catalog) appendEntry1(b []byte, l listID, i int) []byte {
	at := len(b)
	b = c.appendEntry(b, l, i)
	switch l {
	case listOrigins, listChildren:
		b = b[:at+32]
	case listSnapshots:
		b = append(b[:at], b[at+2:len(b)-2]...) // neither its length nor that of the metadata
	}
	return b
}

func entries1(c *Catalog, l listID) (entries []byte) {
	for i := range c.listLen(l) {
		entries = c.appendEntry1(entries, l, i)
	}
	return entries
}

func segment1(c *Catalog, l listID, count int, entries []byte) Segment {
	b := format.AppendHeader(nil, format.Header{Kind: format.KindSegment, Version: 1, MinReader: 1, Owner: c.Volume, Number: uint64(l)})
	b = binary.LittleEndian.AppendUint32(b, uint32(count))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entries)))
	b = seal(append(b, entries...))
	return Segment{segmentName(b), b}
}

// encode1 is how version 1 wrote a catalog that first returns. One list, if any, is in
// a segment.
func encode1(c *Catalog, away listID) (root []byte, segments store) {
	segments = store{}
	b := format.AppendHeader(nil, format.Header{Kind: format.KindCatalog, Version: 1, MinReader: 1, Owner: c.Volume, Number: c.Generation})
	var flags uint32
	if c.Deleting {
		flags = flagDeleting
	}
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = appendU64(b, c.Epoch, c.Size)
	b = appendTime(b, c.Created)
	b = appendU64(b, uint64(c.NextSCO), c.NextTLog, c.NextObject, c.StoredSeq)
	k := &c.Checkpoint
	b = appendU64(b, k.Seq, k.TLog, k.NextPage, k.Generation)
	b = append(b, k.Parent[:]...)
	b = appendU64(appendRoot(appendRoot(b, k.Root), k.Live), k.Recount)
	b = binary.LittleEndian.AppendUint16(b, 7)
	for l := listID(1); l < listEnd; l++ {
		part, form := entries1(c, l), byte(formInline)
		if l == away {
			s := segment1(c, l, c.listLen(l), part)
			segments[s.Name] = s.Data
			part, form = appendRef(nil, s, c.listLen(l)), formSegments
		}
		b = append(b, byte(l), form, 0, 0)
		b = binary.LittleEndian.AppendUint32(b, uint32(c.listLen(l)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	binary.LittleEndian.PutUint32(b[64:], uint32(len(b)+crcSize))
	return seal(b), segments
}

// What version 1 wrote opens, with any list in a segment, and is written as version 2,
// which keeps all of it.
func TestVersion1(t *testing.T) {
	want := first(sample())
	for away := listID(0); away < listEnd; away++ {
		root, segments := encode1(want, away)
		c, err := Decode(root, segments.fetch)
		if err != nil || !reflect.DeepEqual(c, want) {
			t.Errorf("%v in a segment: %v", away, err)
			continue
		}
		root, segments = encode(t, c)
		again, err := Decode(root, segments.fetch)
		if err != nil || !reflect.DeepEqual(again, want) {
			t.Errorf("%v, written anew: %v", away, err)
		}
	}
	// Segments of the two versions are not mixed.
	root, _ := encode1(want, listEpochs)
	_, segments := encode(t, want)
	s := want.segment(listEpochs, 2, want.appendEntry(want.appendEntry(nil, listEpochs, 0), listEpochs, 1))
	segments[s.Name] = s.Data
	copy(root[rootFixed1+listHeader:], appendRef(nil, s, 2))
	root = seal(root[:len(root)-crcSize])
	if _, err := Decode(root, segments.fetch); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a segment of version 2 below a root of version 1: %v", err)
	}
}

// The golden files are never edited: a later version adds files of its own.
func TestGolden(t *testing.T) {
	want := sample()
	root, _ := encode(t, want)
	b := golden.Check(t, "testdata/root-v2.hex", "catalog root, version 2", root, rootFields(want)...)
	if c, err := Decode(b, nil); err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("version 2 of the root does not open: %v", err)
	}
	for l := listID(1); l < listEnd; l++ {
		var entries []byte
		for i := range want.listLen(l) {
			entries = want.appendEntry(entries, l, i)
		}
		name := strings.ReplaceAll(l.String(), " ", "-")
		s := want.segment(l, want.listLen(l), entries)
		b := golden.Check(t, "testdata/segment-"+strings.ToLower(name)+"-v2.hex", "catalog segment of "+l.String()+", version 2", s.Data, segmentFields(want, l)...)
		c := &Catalog{Volume: want.Volume}
		err := c.decodeSegment(place{l, 2}, refTo(b, want.listLen(l)), b)
		if err != nil || c.listLen(l) != want.listLen(l) {
			t.Errorf("version 2 of a segment of %v does not open: %v", l, err)
		}
	}
	// Version 1 had samples that version 2 has more of.
	old := first(want)
	old.Children = old.Children[:1]
	if c, err := Decode(golden.Read(t, "testdata/root-v1.hex"), nil); err != nil || !reflect.DeepEqual(c, old) {
		t.Errorf("version 1 of the root does not open: %v", err)
	}
	b = golden.Read(t, "testdata/segment-v1.hex")
	c := &Catalog{Volume: id(9)}
	if err := c.decodeSegment(place{listEpochs, 1}, refTo(b, 2), b); err != nil || !slices.Equal(c.Epochs, want.Epochs) {
		t.Errorf("version 1 of a segment does not open: %v", err)
	}
	if root, _ := encode1(old, 0); !bytes.Equal(root, golden.Read(t, "testdata/root-v1.hex")) {
		t.Error("the test writes version 1 with other bytes")
	}
}

func refTo(b []byte, count int) ref {
	return ref{name: segmentName(b), length: uint32(len(b)), crc: format.CRC(b), count: uint32(count)}
}

// fields names the bytes of an object: sizes and names in turn.
func fields(list ...any) (all []golden.Field) {
	for i := 0; i < len(list); i += 2 {
		all = append(all, golden.Field{Size: list[i].(int), Name: list[i+1].(string)})
	}
	return all
}

func rootFields(c *Catalog) []golden.Field {
	f := fields(8, "magic", 8, "kind, version, minimum reader, zero", 8, "features", 16, "volume", 8, "generation", 8, "incarnation", 8, "zero, header CRC",
		4, "length", 4, "flags", 2, "length of what is fixed", 1, "log2 of the cluster size", 1, "zero", 2, "lists", 2, "bytes of settings",
		8, "epoch", 8, "size", 12, "created", 4, "zero", 8, "next SCO", 8, "next TLog", 8, "next object", 8, "stored seq",
		8, "checkpoint: seq", 8, "TLog", 8, "next page", 8, "generation", 16, "parent", 17, "root", 17, "live", 8, "recount", 22, "zero")
	for _, s := range c.Config {
		f = append(f, fields(settingFixed+len(s.Value), "setting: id, flags, length, value")...)
	}
	for l := listID(1); l < listEnd; l++ {
		f = append(f, golden.Field{Size: listHeader, Name: l.String() + ": id, form, bytes of an entry, entries, bytes"})
		f = append(f, entryFields(c, l)...)
	}
	return append(f, golden.Field{Size: crcSize, Name: "CRC"})
}

func segmentFields(c *Catalog, l listID) []golden.Field {
	f := fields(8, "magic", 16, "kind, version, minimum reader, zero, features", 16, "volume", 8, "list id", 16, "incarnation, zero, header CRC",
		4, "entries", 4, "bytes of entries", 2, "bytes of an entry", 6, "zero")
	return append(append(f, entryFields(c, l)...), golden.Field{Size: crcSize, Name: "CRC"})
}

func entryFields(c *Catalog, l listID) (f []golden.Field) {
	for i := range c.listLen(l) {
		f = append(f, golden.Field{Size: len(c.appendEntry(nil, l, i)), Name: "  entry"})
	}
	return f
}

// seal appends the CRC of an object.
func seal(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, format.CRC(b)) }

// edit changes bytes of a root and makes its CRCs right again.
func edit(root []byte, change func(b []byte) []byte) []byte {
	b := change(bytes.Clone(root[:len(root)-crcSize]))
	binary.LittleEndian.PutUint32(b[60:], format.CRC(b[:60]))
	binary.LittleEndian.PutUint32(b[64:], uint32(len(b)+crcSize))
	return seal(b)
}

// set is an edit of one byte.
func set(at int, v byte) func([]byte) []byte {
	return func(b []byte) []byte { b[at] = v; return b }
}

// listAt is where the header of a list of the sample is, behind the settings.
func listAt(c *Catalog, l listID) int {
	at := rootFixed
	for _, s := range c.Config {
		at += settingFixed + len(s.Value)
	}
	for i := listID(1); i < l; i++ {
		at += listHeader
		for k := range c.listLen(i) {
			at += len(c.appendEntry(nil, i, k))
		}
	}
	return at
}

// What a later release may put into a catalog, one thing at a time.
func TestUnknown(t *testing.T) {
	c := sample()
	root, _ := encode(t, c)
	old, _ := encode1(first(c), 0)
	of := func(root []byte, says string, change func([]byte) []byte) unknown.Case {
		return unknown.Case{Says: says, Read: func() error { _, err := Decode(edit(root, change), nil); return err }}
	}
	entry := func(l listID) int { return listAt(c, l) + listHeader }
	header := func(says string, at int, v byte) unknown.Case { return of(root, says, set(at, v)) }
	unknown.Walk(t, "Catalog", map[string]unknown.Case{
		"a later version, which this one may read": header("rewrites up to 2", 10, 3),
		"a later minimum reader":                   header("format 3", 12, 3),
		"a compatible feature":                     header("compatible features 0x8", 16, 8),
		"an incompatible feature":                  header("features 0x1", 20, 1),
		"a field in the header":                    header("offset 57", 57, 1),
		"a flag":                                   header("flags 0x2", 68, 3),
		"a longer fixed part": of(root, "258 bytes before its settings", func(b []byte) []byte {
			b[72] = 2
			return slices.Insert(b, rootFixed, 1, 0)
		}),
		"another cluster size":            header("clusters of 2^16 bytes", 74, 16),
		"a field in the room":             header("a field behind the checkpoint", 240, 1),
		"a field behind the cluster size": header("a field behind the cluster size", 75, 1),
		"a field behind the time":         header("a field behind the time of creation", 108, 1),
		"a setting that must be known":    header("setting 3, which must be known", rootFixed+2, 0),
		"a flag of a setting":             header("setting 3 with flags 0x3", rootFixed+2, 3),
		"a setting that is optional":      header("", rootFixed, 4),
		"a list": of(root, "list 8 is unknown", func(b []byte) []byte {
			b[76] = 8
			return append(b, 8, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		}),
		"a form of a list":                        header("a list of form 2", listAt(c, listTLogs)+1, 2),
		"a longer entry":                          header("children with entries of 44 bytes", listAt(c, listChildren)+2, 44),
		"a tombstone of an origin":                header("origin 0 with flags 0x1", entry(listOrigins)+34, 1),
		"an origin of a table that was compacted": header("origin 1 has number 5", entry(listOrigins)+36+32, 5),
		"a field of an origin":                    header("a field behind the flags", entry(listOrigins)+35, 1),
		"a flag of a child":                       header("with flags 0x2", entry(listChildren)+32, 2),
		"a child whose snapshot is not stored":    header("", entry(listChildren)+32, 1),
		"a flag of a snapshot":                    header("with flags 0x80", entry(listSnapshots)+70, 0x82),
		"a field of a snapshot":                   of(root, "a field of 2 bytes behind its metadata", longerSnapshot(c, 2)),
		"metadata of a snapshot":                  of(root, "", set(entry(listSnapshots)+snapFixed-2+6+4, 'x')),
		"a flag, in version 1":                    of(old, "flags 0x4", set(68, 5)),
		"a compatible feature, in version 1":      of(old, "compatible features", set(16, 1)),
		"a form of a list, in version 1":          of(old, "a list of form 7", set(rootFixed1+1, 7)),
		"a length of an entry, in version 1":      of(old, "entries of 16 bytes", set(rootFixed1+2, 16)),
		"a field of a reference to a segment":     segmentCase(c, func(b []byte) []byte { return b }, 31),
		"a later version of a segment":            segmentCase(c, set(10, 3), 0),
		"a compatible feature of a segment":       segmentCase(c, set(16, 1), 0),
		"an incompatible feature of a segment":    segmentCase(c, set(20, 1), 0),
		"a longer entry of a segment":             segmentCase(c, set(72, 24), 0),
		"a field in the room of a segment":        segmentCase(c, set(79, 1), 0),
		"a field in the header of a segment":      segmentCase(c, set(14, 1), 0),
		"a later minimum reader of a segment":     segmentCase(c, func(b []byte) []byte { b[10], b[12] = 3, 3; return b }, 0),
		"a flag of a snapshot, in version 1":      of(old, "with flags 0x40", snapshotFlag1(c)),
	})
}

// longerSnapshot gives the first snapshot a field behind its metadata.
func longerSnapshot(c *Catalog, n int) func([]byte) []byte {
	return func(b []byte) []byte {
		at := listAt(c, listSnapshots)
		size := len(c.appendEntry(nil, listSnapshots, 0))
		binary.LittleEndian.PutUint32(b[at+8:], binary.LittleEndian.Uint32(b[at+8:])+uint32(n))
		binary.LittleEndian.PutUint16(b[at+listHeader:], uint16(size+n))
		return slices.Insert(b, at+listHeader+size, make([]byte, n)...)
	}
}

func snapshotFlag1(c *Catalog) func([]byte) []byte {
	return func(b []byte) []byte {
		at := rootFixed1
		for l := listID(1); l < listSnapshots; l++ {
			at += listHeader + len(entries1(c, l))
		}
		b[at+listHeader+68] |= 0x40
		return b
	}
}

// segmentCase reads a root whose epochs are in a segment that was changed, or byte
// refAt of the reference to it.
func segmentCase(c *Catalog, change func([]byte) []byte, refAt int) unknown.Case {
	return unknown.Case{Read: func() error {
		var entries []byte
		for i := range c.Epochs {
			entries = c.appendEntry(entries, listEpochs, i)
		}
		data := c.segment(listEpochs, len(c.Epochs), entries).Data
		data = change(data[:len(data)-crcSize])
		binary.LittleEndian.PutUint32(data[60:], format.CRC(data[:60]))
		data = seal(data)
		s := Segment{segmentName(data), data}
		root, _, _ := Encode(c)
		root = edit(root, func(b []byte) []byte {
			at := listAt(c, listEpochs)
			refs := appendRef(nil, s, len(c.Epochs))
			if refAt > 0 {
				refs[refAt] = 1
			}
			b[at+1] = formSegments
			binary.LittleEndian.PutUint32(b[at+8:], uint32(len(refs)))
			return slices.Replace(b, at+listHeader, at+listHeader+len(entries), refs...)
		})
		_, err := Decode(root, store{s.Name: s.Data}.fetch)
		return err
	}}
}

// What this release does not use is kept over a change by it.
func TestKept(t *testing.T) {
	c := sample()
	root, segments := encode(t, c)
	read, err := Decode(root, segments.fetch)
	if err != nil {
		t.Fatal(err)
	}
	next := read.Clone()
	next.Generation++
	root, segments = encode(t, next)
	if read, err = Decode(root, segments.fetch); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(read.Config, c.Config) || !slices.Equal(read.Children, c.Children) || read.Snapshots[0].Meta != c.Snapshots[0].Meta {
		t.Errorf("%+v, %+v, %q", read.Config, read.Children, read.Snapshots[0].Meta)
	}
}

// The longest of all.
func TestLongest(t *testing.T) {
	c := sample()
	c.Config = manySettings(3)
	for i := range c.Snapshots {
		c.Snapshots[i].Name, c.Snapshots[i].Meta = strings.Repeat(string(rune('a'+i)), nameMax), strings.Repeat("m", MetaMax)
	}
	grow := c.Clone()
	for i := range 100 {
		s := c.Snapshots[0]
		s.ID, s.Name = id(byte(100+i)), strings.Repeat("n", nameMax-2)+string(rune('a'+i%26))+string(rune('a'+i/26))
		grow.Snapshots = append(grow.Snapshots, s)
	}
	for _, c := range []*Catalog{c, grow} {
		root, segments := encode(t, c)
		for _, data := range segments {
			if len(data) > SegmentMax {
				t.Errorf("a segment of %d bytes, %d are the most", len(data), SegmentMax)
			}
		}
		if got, err := Decode(root, segments.fetch); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%d snapshots: %v", len(c.Snapshots), err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	root, _, _ := Encode(sample())
	f.Add(root[68:len(root)-4], []byte{}, uint8(2))
	big, segs, _ := grow(sample(), 10).encode(1300)
	f.Add(big[68:len(big)-4], segs[0].Data, uint8(2))
	for _, away := range []listID{0, listSnapshots} {
		root, segments := encode1(first(sample()), away)
		var data []byte
		for _, data = range segments {
		}
		f.Add(root[68:len(root)-4], data, uint8(1))
	}
	f.Fuzz(func(t *testing.T, body, segment []byte, v uint8) {
		v = min(max(v, 1), version)
		b := format.AppendHeader(nil, format.Header{Kind: format.KindCatalog, Version: uint16(v), MinReader: uint16(v), Owner: id(9), Number: 41})
		n := len(body) + 72
		b = append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
		b = seal(append(b, body...))
		c, err := Decode(b, func(string) ([]byte, error) { return segment, nil })
		if err != nil {
			return
		}
		root, s, err := Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		m := store{}
		for _, v := range s {
			m[v.Name] = v.Data
		}
		again, err := Decode(root, m.fetch)
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("does not survive a round trip: %v", err)
		}
	})
}

// FuzzSegment reads segments whose outer checks all hold.
func FuzzSegment(f *testing.F) {
	for l := listID(1); l < listEnd; l++ {
		c := sample()
		var entries []byte
		for i := range c.listLen(l) {
			entries = c.appendEntry(entries, l, i)
		}
		f.Add(entries, uint8(l-1), uint32(c.listLen(l)), uint8(2))
		f.Add(entries1(first(c), l), uint8(l-1), uint32(c.listLen(l)), uint8(1))
	}
	f.Fuzz(func(t *testing.T, entries []byte, list uint8, count uint32, v uint8) {
		p := place{listID(list%7 + 1), uint16(min(max(v, 1), version))}
		c := &Catalog{Volume: id(9)}
		s := c.segment(p.list, int(count), entries)
		if p.version == 1 {
			s = segment1(c, p.list, int(count), entries)
		}
		if c.decodeSegment(p, refTo(s.Data, int(count)), s.Data) == nil && c.listLen(p.list) != int(count) {
			t.Fatalf("%d of %d entries", c.listLen(p.list), count)
		}
	})
}
