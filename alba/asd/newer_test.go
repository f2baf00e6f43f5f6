package asd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"path"
	"strings"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"
	"openvstorage/internal/format/unknown"
	"openvstorage/internal/generation"
	"openvstorage/internal/wal"

	"golang.org/x/sys/unix"
)

// readAll returns a file's bytes.
func readAll(t testing.TB, fsys disk.FS, name string) []byte {
	t.Helper()
	f, err := fsys.OpenFile(name, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := f.Size()
	b := make([]byte, n)
	if err == nil && n > 0 {
		_, err = f.ReadAt(b, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// reseal sets a record's CRCs right after its bytes were changed.
func reseal(b []byte, incarnation uint64) {
	le := binary.LittleEndian
	n := le.Uint32(b[4:])
	le.PutUint32(b[32:], format.SeededCRC(incarnation, b[wal.HeadSize:][:n]))
	le.PutUint32(b, format.SeededCRC(incarnation, b[4:wal.HeadSize]))
}

// segmentChange changes the first batch of a segment into what another release
// might have written; b begins with it.
type segmentChange struct {
	name   string
	change func(b []byte, incarnation uint64)
	says   string // in the refusal; "": it is passed over
}

func segmentChanges() []segmentChange {
	le := binary.LittleEndian
	entry := func(at int, with byte) func(b []byte, incarnation uint64) {
		return func(b []byte, incarnation uint64) {
			body := b[wal.HeadSize:]
			e := body[prefixSize:]
			e[at] = with
			key := body[le.Uint32(e[4:]):][:e[8]]
			le.PutUint32(e, entryCRC(e[:entrySize], key, incarnation))
		}
	}
	head := func(change func(b []byte)) func(b []byte, incarnation uint64) {
		return func(b []byte, _ uint64) { change(b) }
	}
	return []segmentChange{
		{"a kind of record", head(func(b []byte) { le.PutUint16(b[24:], 7) }), "record of kind 7"},
		{"a flag of a record", head(func(b []byte) { le.PutUint16(b[26:], 2) }), "flags 0x2"},
		{"a field in the head of a record", head(func(b []byte) { b[28] = 1 }), "zero today"},
		{"a field behind the CRC of a record", head(func(b []byte) { b[36] = 1 }), "zero today"},
		{"an operation", entry(9, 3), "operation 3"},
		{"a field behind the operation", entry(10, 1), "zero today"},
		{"a field in the middle of an entry", entry(28, 1), "zero today"},
		{"a kind of record that may be skipped", head(func(b []byte) { le.PutUint16(b[24:], 7); le.PutUint16(b[26:], wal.FlagSkippable) }), ""},
	}
}

// openChanged has a segment changed and opens the ASD; last: no batch follows the one
// that is changed. What it refuses it must leave as it is.
func (c *segmentChange) openChanged(t *testing.T, last bool) error {
	fsys := crashdisk.New()
	a := openNew(t, small(fsys))
	apply(t, a, put("k", make([]byte, 500), 1))
	p, _ := a.contents.place([]byte("k"))
	if !last {
		apply(t, a, put("other", make([]byte, 5000), 2))
	}
	a.Close()
	if err := fsys.Remove("disk/" + indexName); err != nil { // else nobody reads the segment
		t.Fatal(err)
	}
	name := "disk/" + segmentName(p.segment)
	b := readAll(t, fsys, name)
	h, err := decodeHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	c.change(b[blockSize:], h.Incarnation)
	reseal(b[blockSize:], h.Incarnation)
	write(t, fsys, name, b)
	if a, err = Open(small(fsys)); err == nil {
		if len(a.Damage()) != 0 {
			t.Errorf("%s: %v", c.name, a.Damage())
		}
		return a.Close()
	}
	if !strings.Contains(err.Error(), name) || isDamage(err) {
		t.Errorf("%s: %v", c.name, err)
	}
	if !bytes.Equal(readAll(t, fsys, name), b) {
		t.Errorf("%s: the segment was changed", c.name)
	}
	return err
}

// What a newer release wrote into a segment is refused by name or passed over, and
// is neither damage nor cut nor deleted, wherever it lies.
func TestUnknownInSegment(t *testing.T) {
	cases := map[string]unknown.Case{}
	for _, c := range segmentChanges() {
		cases[c.name] = unknown.Case{Says: c.says, Read: func() error { return c.openChanged(t, true) }}
		if c.says != "" {
			if err := c.openChanged(t, false); !errors.Is(err, format.ErrNewer) {
				t.Errorf("%s, with a batch behind: %v", c.name, err)
			}
		}
	}
	for what, c := range headerChanges() {
		if what == "a later minimum reader" || what == "an incompatible feature" || what == "a field in the header" {
			cases[what] = unknown.Case{Read: func() error {
				b := sampleSegment()
				c(b)
				_, err := decodeHeader(b)
				return err
			}}
		}
	}
	unknown.Walk(t, "Segment of an ASD", cases)
}

// headerChanges change a common header into what another release might have written.
func headerChanges() map[string]func(b []byte) {
	header := func(change func(h *format.Header)) func(b []byte) {
		return func(b []byte) {
			h, err := format.Peek(b)
			if err != nil {
				panic(err)
			}
			change(&h)
			copy(b, format.AppendHeader(nil, h))
		}
	}
	return map[string]func(b []byte){
		"a later version, which this one may read": header(func(h *format.Header) { h.Version = 9 }),
		"a later minimum reader":                   header(func(h *format.Header) { h.Version, h.MinReader = 9, 9 }),
		"a compatible feature":                     header(func(h *format.Header) { h.Compatible = 4 }),
		"an incompatible feature":                  header(func(h *format.Header) { h.Incompatible = 4 }),
		"a field in the header": func(b []byte) {
			b[57] = 1
			binary.LittleEndian.PutUint32(b[60:], format.CRC(b[:60]))
		},
	}
}

// A skippable record between batches costs nothing: all that is around it is there.
func TestSkippableRecord(t *testing.T) {
	b := sampleSegment()
	skip := wal.Append(nil, testIncarnation, wal.Record{Seq: 41, Durable: 40, Kind: 9, Flags: wal.FlagSkippable, Body: make([]byte, 5000)})
	skip = append(skip, make([]byte, roundUp(int64(len(skip)))-int64(len(skip)))...)
	batch := bytes.Clone(b[blockSize:])
	at := uint32(1 + len(skip)/blockSize)
	prefix{Blocks: binary.LittleEndian.Uint32(batch[wal.HeadSize:]), Entries: 3, At: at}.put(batch[wal.HeadSize:], testIncarnation)
	reseal(batch, testIncarnation)
	fsys := crashdisk.New()
	write(t, fsys, "s", append(append(bytes.Clone(b[:blockSize]), skip...), batch...))
	var kinds []uint16
	entries := 0
	if _, err := ScanSegment(fsys, "s", func(r *Record) error {
		kinds, entries = append(kinds, r.Kind), entries+len(r.Entries)
		if r.Err != nil || r.Gap {
			t.Errorf("%+v", r)
		}
		return nil
	}); err != nil || len(kinds) != 2 || kinds[0] != 9 || entries != 3 {
		t.Fatal(kinds, entries, err)
	}
}

// A checkpoint with flags, an identity and a claim of a newer release are refused,
// though their minimum reader is today's: this release would write them anew.
func TestUnknownInFiles(t *testing.T) {
	body := func(change func(b []byte) []byte) func(b []byte) []byte {
		return func(b []byte) []byte {
			h, _ := format.Peek(b)
			b = change(b[:len(b)-4])
			return binary.LittleEndian.AppendUint32(b, format.SeededCRC(h.Incarnation, b[format.HeaderSize:]))
		}
	}
	for _, f := range []struct {
		name, title string
		rewritten   bool // by its reader
		own         map[string]func(b []byte) []byte
	}{
		{identityName, "Identity of an ASD", true, map[string]func(b []byte) []byte{
			"a field behind the node": body(func(b []byte) []byte { return append(b, 1, 2, 3) })}},
		{claimName, "Claim of an ASD", true, nil},
		{indexName, "Checkpoint of an ASD's index", false, map[string]func(b []byte) []byte{
			"a flag": body(func(b []byte) []byte { b[68] = 1; return b })}},
	} {
		cases := map[string]unknown.Case{}
		open := func(change func(b []byte) []byte) unknown.Case {
			return unknown.Case{Says: f.name, Read: func() error { return openFile(t, f.name, change) }}
		}
		for what, change := range headerChanges() {
			if f.rewritten || what != "a compatible feature" && what != "a later version, which this one may read" {
				cases[what] = open(func(b []byte) []byte {
					change(b)
					if f.name == claimName {
						change(b[blockSize:])
					}
					return b
				})
			}
		}
		for what, change := range f.own {
			cases[what] = open(change)
		}
		unknown.Walk(t, f.title, cases)
	}
}

// openFile opens an ASD of which a file was changed, which must stay as it is.
func openFile(t *testing.T, file string, change func(b []byte) []byte) error {
	fsys := crashdisk.New()
	a := openNew(t, small(fsys))
	apply(t, a, put("k", make([]byte, 5000), 1))
	for n := range uint64(2) {
		if err := a.Raise(ctx, generation.Mark{Number: 5 + n, Start: 6}); err != nil {
			t.Fatal(err)
		}
	}
	a.Close()
	name := path.Join("disk", file)
	b := change(readAll(t, fsys, name))
	write(t, fsys, name, b)
	a, err := Open(small(fsys))
	if err == nil {
		a.Close()
	}
	if isDamage(err) || !bytes.Equal(readAll(t, fsys, name), b) {
		t.Errorf("%s: it was changed, or is damage: %v", name, err)
	}
	return err
}

// An identity of version 1 becomes one of version 2 at the next opening, whole,
// whatever ends it; where it cannot be written the ASD is used as it is.
func TestIdentityMigrates(t *testing.T) {
	old := func(t *testing.T) *crashdisk.FS {
		fsys := crashdisk.New()
		a := openNew(t, small(fsys))
		apply(t, a, put("k", make([]byte, 5000), 1))
		if err := a.Raise(ctx, generation.Mark{Number: 5, Start: 6}); err != nil {
			t.Fatal(err)
		}
		a.Close()
		b := golden.Read(t, "testdata/identity-v1.hex")
		h, _ := format.Peek(b)
		h.Owner = testID.ID
		write(t, fsys, "disk/identity", append(format.AppendHeader(nil, h), b[format.HeaderSize:]...))
		return fsys
	}
	want := func(t *testing.T, fsys disk.FS, versions ...uint16) {
		t.Helper()
		id, version, err := readIdentity(fsys, "disk")
		if err != nil || id.ID != testID.ID || id.Node != "node-a" || id.Owner[0] != 5 {
			t.Fatal(id, version, err)
		}
		if len(versions) == 1 && (version != versions[0] || version == 2 && id.Generation != 5) {
			t.Fatal(id, version)
		}
	}
	t.Run("whole", func(t *testing.T) {
		fsys := old(t)
		want(t, fsys, 1)
		a := reopen(t, small(fsys))
		if _, ok := a.contents.place([]byte("k")); !ok {
			t.Error("a key is gone")
		}
		want(t, fsys, 2)
	})
	t.Run("no room", func(t *testing.T) {
		faulty := faultdisk.New(old(t))
		faulty.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: "disk/identity.new", Err: unix.ENOSPC})
		a := reopen(t, small(faulty))
		want(t, faulty, 1)
		apply(t, a, put("more", make([]byte, 5000), 1))
	})
	t.Run("a lost claim", func(t *testing.T) {
		fsys := old(t)
		reopen(t, small(fsys)).Close()
		if err := fsys.Remove("disk/claim"); err != nil {
			t.Fatal(err)
		}
		if a, err := Open(small(fsys)); err == nil || !strings.Contains(err.Error(), "generation 5") || !strings.Contains(err.Error(), "disk/claim") {
			if a != nil {
				a.Close()
			}
			t.Errorf("%v", err)
		}
	})
}
