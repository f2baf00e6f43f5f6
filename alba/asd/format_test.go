package asd

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"
	"openvstorage/internal/generation"

	"github.com/google/uuid"
)

const testIncarnation = 0x1122334455667788

// sampleSegment is a segment with a batch of two puts and a delete.
func sampleSegment() []byte {
	s := &segment{number: 7, incarnation: testIncarnation}
	b := &batch{seq: 41}
	b.reset()
	large := bytes.Repeat([]byte{0xab}, blockSize+10)
	add := func(key string, v osd.Value) {
		b.add(entry{Key: []byte(key), Size: uint32(len(v.Data)), Seed: v.Seed, Epoch: v.Epoch}, v)
	}
	add("large", value(large, 5))
	add("tiny", value([]byte("hello"), 6))
	b.add(entry{Key: []byte("gone"), Delete: true, Since: 3}, osd.Value{})
	b.layOut(s, blockSize, 40)
	out := appendHeader(nil, headerOf{testID.ID, 7, testIncarnation})
	out = append(out, b.head...)
	out = append(out, large...)
	return append(out, make([]byte, roundUp(int64(len(out)))-int64(len(out)))...)
}

func header() []golden.Field {
	f := func(n int, name string) golden.Field { return golden.Field{Size: n, Name: name} }
	return []golden.Field{f(8, "magic"), f(2, "kind"), f(2, "version"), f(2, "minimum reader"), f(2, "zero"), f(4, "compatible"), f(4, "incompatible"),
		f(16, "ASD"), f(8, "number"), f(8, "incarnation"), f(4, "zero"), f(4, "CRC")}
}

func TestGoldenSegment(t *testing.T) {
	f := func(n int, name string) golden.Field { return golden.Field{Size: n, Name: name} }
	fields := append(header(), f(blockSize-64, "zero"),
		f(4, "CRC of the head"), f(4, "length of the body"), f(8, "seq"), f(8, "durable"), f(2, "kind"), f(2, "flags"), f(4, "zero"), f(4, "CRC of the body"), f(4, "zero"),
		f(4, "blocks"), f(4, "entries"), f(4, "at"), f(4, "CRC"))
	for range 3 {
		fields = append(fields, f(4, "CRC of the entry"), f(4, "key at"), f(1, "length of the key"), f(1, "operation"), f(2, "zero"),
			f(4, "size"), f(4, "value at"), f(4, "CRCs at"), f(4, "CRC of the CRCs"), f(4, "zero"), f(8, "seed, or since"), f(8, "epoch"))
	}
	fields = append(fields, f(5, "key"), f(4, "key"), f(4, "key"), f(3, "zero"), f(8, "CRCs of the large value"), f(4, "CRC of the packed value"), f(5, "packed value"),
		f(7, "zero"), f(blockSize-40-16-3*48-16-8-16, "zero"), f(blockSize+10, "large value"), f(blockSize-10, "zero"))
	b := golden.Check(t, "testdata/segment-v1.hex", "segment with one batch: a large value, a packed one, a delete", sampleSegment(), fields...)

	fsys := crashdisk.New()
	write(t, fsys, "s", b)
	n := 0
	h, err := ScanSegment(fsys, "s", func(r *Record) error {
		n++
		keys := []string{"large", "tiny", "gone"}
		for i, e := range r.Entries {
			if string(e.Key) != keys[i] || r.Check(i) != nil {
				t.Errorf("%d: %+v, %v", i, e, r.Check(i))
			}
		}
		if r.Seq != 41 || r.Durable != 40 || r.Err != nil || len(r.Entries) != 3 {
			t.Errorf("%+v", r)
		}
		return nil
	})
	if err != nil || n != 1 || h.Number != 7 || h.Incarnation != testIncarnation {
		t.Fatal(h, n, err)
	}
}

func write(t testing.TB, fsys disk.FS, name string, b []byte) {
	t.Helper()
	f, err := fsys.OpenFile(name, disk.Write|disk.Create|disk.Truncate, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
}

func sampleIndex(t testing.TB) []byte {
	fsys := crashdisk.New()
	var c contents
	c.index.put([]byte("a"), place{7, 4096, 300, 5000, 1, 2})
	c.index.put([]byte("bc"), place{8, 12288, 400, 5, 3, 4})
	f, err := fsys.OpenFile("i", disk.Write|disk.Create, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	w := &indexWriter{file: f}
	if err := encodeIndex(w, testID.ID, testIncarnation, 99, []savedSegment{{7, 50, 70, 8192, 6}, {8, 0, 80, 16384, 0}}, &c); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, w.at)
	f.ReadAt(b, 0)
	return b
}

func TestGoldenIndex(t *testing.T) {
	f := func(n int, name string) golden.Field { return golden.Field{Size: n, Name: name} }
	fields := append(header(), f(4, "segments"), f(4, "zero"))
	for range 2 {
		fields = append(fields, f(4, "number"), f(4, "bytes of deletes"), f(8, "incarnation"), f(8, "end"), f(8, "since"))
	}
	for i := range 2 {
		fields = append(fields, f(1, "length of the key"), f(4, "segment"), f(4, "value at"), f(4, "CRCs at"), f(4, "size"), f(8, "seed"), f(8, "epoch"), f(1+i, "key"))
	}
	fields = append(fields, f(1, "zero"), f(8, "keys"), f(4, "CRC"))
	b := golden.Check(t, "testdata/index-v1.hex", "checkpoint of an index", sampleIndex(t), fields...)
	c, x, err := decodeIndex(bytes.NewReader(b), testID.ID)
	if err != nil || c.seq != 99 || !slices.Equal(c.segments, []savedSegment{{7, 50, 70, 8192, 6}, {8, 0, 80, 16384, 0}}) {
		t.Fatal(c, err)
	}
	if p, ok := x.get([]byte("bc")); !ok || p != (place{8, 12288, 400, 5, 3, 4}) || x.keys != 2 {
		t.Fatal(p, ok)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 4
		if _, _, err := decodeIndex(bytes.NewReader(bad), testID.ID); err == nil {
			t.Fatalf("byte %d does not matter", i)
		}
		if _, _, err := decodeIndex(bytes.NewReader(b[:i]), testID.ID); !errors.Is(err, errIndex) {
			t.Fatalf("%d bytes: %v", i, err)
		}
	}
}

func TestGoldenIdentity(t *testing.T) {
	f := func(n int, name string) golden.Field { return golden.Field{Size: n, Name: name} }
	id := Identity{ID: testID.ID, Owner: uuid.UUID{5, 6}, Node: "node-a"}
	if got, version, err := decodeIdentity(golden.Read(t, "testdata/identity-v1.hex")); err != nil || got != id || version != 1 {
		t.Fatal(got, version, err)
	}
	id.Life, id.Generation = 3, 0x1234
	fields := append(header(), f(16, "owner"), f(8, "life"), f(8, "generation"), f(2, "length of the node"), f(6, "node"), f(4, "CRC"))
	b := golden.Check(t, "testdata/identity-v2.hex", "identity of a claimed ASD", appendIdentity(nil, id, testIncarnation), fields...)
	if got, version, err := decodeIdentity(b); err != nil || got != id || version != 2 {
		t.Fatal(got, version, err)
	}
}

func TestGoldenClaim(t *testing.T) {
	f := func(n int, name string) golden.Field { return golden.Field{Size: n, Name: name} }
	m := generation.Mark{Number: 0x1234, Start: 0x5678}
	fields := append(header(), f(8, "generation"), f(8, "start"), f(4, "CRC"), f(blockSize-84, "zero"))
	b := golden.Check(t, "testdata/claim-v1.hex", "a block of a claim", appendClaim(nil, testID.ID, 9, m), fields...)
	if id, turn, got, err := decodeClaim(b); err != nil || id != testID.ID || turn != 9 || got != m {
		t.Fatal(id, turn, got, err)
	}
}

// What a newer release wrote is refused by name and left as it is.
func TestNewer(t *testing.T) {
	fsys := crashdisk.New()
	a := openNew(t, small(fsys))
	apply(t, a, put("k", make([]byte, 5000), 1))
	p, _ := a.contents.place([]byte("k"))
	a.Close()
	for _, name := range []string{identityName, indexName, segmentName(p.segment)} {
		image := fsys.Kill()
		f, err := image.OpenFile("disk/"+name, disk.Write, 0)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, format.HeaderSize)
		f.ReadAt(b, 0)
		h, err := format.Peek(b)
		if err != nil {
			t.Fatal(err)
		}
		h.Version, h.MinReader = 99, 99
		f.WriteAt(format.AppendHeader(nil, h), 0)
		opt := small(image)
		if _, err := Open(opt); !errors.Is(err, format.ErrNewer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add(sampleSegment()[blockSize:])
	f.Fuzz(func(t *testing.T, b []byte) {
		fsys := crashdisk.New()
		write(t, fsys, "s", append(appendHeader(nil, headerOf{testID.ID, 7, testIncarnation}), b...))
		ScanSegment(fsys, "s", func(r *Record) error {
			for i := range r.Entries {
				_ = r.Check(i)
			}
			return nil
		})
	})
}

// The decoders behind the CRCs, without them.
func FuzzDecodeBody(f *testing.F) {
	b := sampleSegment()[blockSize+40:]
	f.Add(b[:250], int64(3*blockSize))
	f.Fuzz(func(t *testing.T, body []byte, size int64) {
		if len(body) < prefixSize || size < 0 || size > segmentMax {
			return
		}
		_, _ = decodePrefix(body, testIncarnation, blockSize, len(body))
		for i := range (len(body) - prefixSize) / entrySize {
			e, err := decodeEntry(body, i, size, testIncarnation)
			if err == nil && !e.Delete && int64(e.Data)+int64(e.Size) > size {
				t.Fatalf("%+v", e)
			}
		}
	})
}

func FuzzDecodeIndex(f *testing.F) {
	f.Add(sampleIndex(f))
	f.Fuzz(func(t *testing.T, b []byte) { decodeIndex(bytes.NewReader(b), testID.ID) })
}

func FuzzDecodeIdentity(f *testing.F) {
	f.Add(appendIdentity(nil, testID, testIncarnation))
	f.Add(golden.Read(f, "testdata/identity-v1.hex"))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, version, err := decodeIdentity(b)
		if err == nil && version == identityVersion && len(appendIdentity(nil, id, 0)) != len(b) {
			t.Fatal("what was read writes otherwise")
		}
	})
}
