package manifest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"
	"openvstorage/internal/format/unknown"
)

func id(n byte) (o manifest.ObjectID) {
	for i := range o {
		o[i] = n + byte(i)
	}
	return o
}

// coded returns an erasure-coded manifest of two chunks, with a dense one.
func coded() *manifest.Manifest {
	m := &manifest.Manifest{
		Namespace: 0x0102030405060708, Name: "sco-1", Object: id(0xa0), Size: 1<<20 + 5, Version: 3, Revision: 2, Time: 1700000000123456789, Epoch: 9,
		Policy: policy.Policy{K: 2, M: 1, C: 2, X: 3},
		Scheme: preset.Scheme{Code: 1, Compression: preset.CompressionS2, Cipher: preset.CipherAES256GCM, Checksum: preset.ChecksumCRC32C, BlockLog2: 15, Key: 77},
		Chunks: []manifest.Chunk{
			{Plain: 1 << 20, Stored: 500000},
			{Plain: 5, Stored: 21, Dense: true},
		},
	}
	for i := range m.Chunks {
		c := &m.Chunks[i]
		c.Shard = manifest.ShardLength(c.Stored, 2)
		for f := range 3 {
			c.Fragments = append(c.Fragments, manifest.Fragment{OSD: uint64(10*i + f), Version: uint32(f), Length: c.Shard, CRC: 0xc0de0000 + uint32(f)})
		}
	}
	return m
}

func inline() *manifest.Manifest {
	m := coded()
	m.Inlined = true
	m.Size = 5000
	m.Scheme.Cipher, m.Scheme.Key = preset.CipherNone, 0
	m.Chunks = []manifest.Chunk{{Plain: 5000, Stored: 5000, Dense: true}}
	m.Inline = bytes.Repeat([]byte{'i'}, 5000)
	m.CRCs = osd.AppendCRCs(nil, manifest.Seed(m.Object, 0, manifest.InlineFragment), 0, m.Inline)
	return m
}

func empty() *manifest.Manifest {
	m := inline()
	m.Size, m.Chunks, m.Inline, m.CRCs = 0, nil, nil, nil
	return m
}

func encode(t testing.TB, m *manifest.Manifest) []byte {
	t.Helper()
	b, err := m.Append([]byte("before"))
	if err != nil {
		t.Fatal(err)
	}
	if b = b[6:]; len(b) != m.EncodedSize() {
		t.Fatalf("%d bytes, not %d", len(b), m.EncodedSize())
	}
	return b
}

func head() []golden.Field {
	f := func(n int, name string) golden.Field { return golden.Field{Size: n, Name: name} }
	return []golden.Field{f(1, "format"), f(1, "layout"), f(4, "k, m, c, x"), f(1, "code"), f(1, "compression"), f(1, "cipher"), f(1, "checksum"),
		f(1, "block log2"), f(1, "zero"), f(4, "revision"), f(8, "key"), f(8, "namespace"), f(16, "object id"), f(8, "size"), f(8, "version"),
		f(8, "time"), f(8, "gc epoch"), f(1, "length of the name"), f(1, "zero"), f(2, "chunks"), f(4, "inline bytes"), f(5, "name")}
}

func chunkFields(fragments int) (all []golden.Field) {
	for _, name := range []string{"plain", "stored", "shard"} {
		all = append(all, golden.Field{Size: 4, Name: name})
	}
	all = append(all, golden.Field{Size: 1, Name: "flags"}, golden.Field{Size: 1, Name: "fragments"}, golden.Field{Size: 2, Name: "zero"})
	for range fragments {
		all = append(all, golden.Field{Size: 8, Name: "OSD"}, golden.Field{Size: 4, Name: "version"}, golden.Field{Size: 4, Name: "length"}, golden.Field{Size: 4, Name: "CRC"})
	}
	return all
}

func TestGolden(t *testing.T) {
	crc := golden.Field{Size: 4, Name: "CRC"}
	for _, c := range []struct {
		name   string
		m      *manifest.Manifest
		fields []golden.Field
	}{
		{"coded", coded(), slices.Concat(head(), chunkFields(3), chunkFields(3), []golden.Field{crc})},
		{"inline", inline(), slices.Concat(head(), chunkFields(0), []golden.Field{{Size: 5000, Name: "stored bytes"}, {Size: 8, Name: "their CRCs"}, crc})},
	} {
		b := golden.Check(t, "testdata/"+c.name+"-v1.hex", "manifest, format 1: "+c.name+"() in manifest_test.go", encode(t, c.m), c.fields...)
		if m, err := manifest.Decode(b); err != nil || !reflect.DeepEqual(m, c.m) {
			t.Errorf("%s: format 1 does not open: %+v, %v", c.name, m, err)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for _, m := range []*manifest.Manifest{coded(), inline(), empty()} {
		b := encode(t, m)
		got, err := manifest.Decode(b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Fatalf("%+v became %+v, %v", m, got, err)
		}
		for i := range b {
			b[i] = 0xff // Decode keeps nothing of it
		}
		if !reflect.DeepEqual(got, m) {
			t.Error("the manifest shares memory with its bytes")
		}
	}
}

func TestCounts(t *testing.T) {
	m := coded()
	if m.Present() != 2 || m.StoredSize() != 3*uint64(m.Chunks[0].Shard)+3*4096 || m.ChunkSize() != 1<<20 {
		t.Error(m.Present(), m.StoredSize(), m.ChunkSize())
	}
	if m := inline(); m.Present() != 3 || m.StoredSize() != 5000 {
		t.Error(m.Present(), m.StoredSize())
	}
	if k := m.Key(1, 2); k != (manifest.Key{Namespace: m.Namespace, Object: m.Object, Chunk: 1, Fragment: 2, Version: 2}) {
		t.Error(k)
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*manifest.Manifest){
		"name":              func(m *manifest.Manifest) { m.Name = "" },
		"long name":         func(m *manifest.Manifest) { m.Name = strings.Repeat("a", 201) },
		"object id":         func(m *manifest.Manifest) { m.Object = manifest.ObjectID{} },
		"policy":            func(m *manifest.Manifest) { m.Policy.C = 9 },
		"scheme":            func(m *manifest.Manifest) { m.Scheme.Compression = 2 },
		"size":              func(m *manifest.Manifest) { m.Size++ },
		"empty chunk":       func(m *manifest.Manifest) { m.Chunks[1].Plain = 0 },
		"growing chunk":     func(m *manifest.Manifest) { m.Chunks[0].Plain = 3; m.Size = 8 },
		"odd chunk":         func(m *manifest.Manifest) { m.Chunks[0].Plain--; m.Size-- },
		"stored too short":  func(m *manifest.Manifest) { m.Chunks[0].Stored = 10 },
		"stored too long":   func(m *manifest.Manifest) { m.Chunks[0].Stored = 2 << 20 },
		"dense":             func(m *manifest.Manifest) { m.Chunks[1].Stored++ },
		"shard":             func(m *manifest.Manifest) { m.Chunks[1].Shard += 4096 },
		"fragment length":   func(m *manifest.Manifest) { m.Chunks[1].Fragments[1].Length = 1 },
		"fragment count":    func(m *manifest.Manifest) { m.Chunks[1].Fragments = m.Chunks[1].Fragments[:2] },
		"one OSD twice":     func(m *manifest.Manifest) { m.Chunks[1].Fragments[1].OSD = 10 },
		"too many chunks":   func(m *manifest.Manifest) { m.Chunks = make([]manifest.Chunk, 1025) },
		"inline and coded":  func(m *manifest.Manifest) { m.Inline = []byte{1} },
		"inline, fragments": func(m *manifest.Manifest) { m.Inlined = true },
		"no bytes, coded":   func(m *manifest.Manifest) { m.Size, m.Chunks = 0, nil },
		"too long": func(m *manifest.Manifest) {
			m.Policy = policy.Policy{K: 50, M: 14, C: 50, X: 1}
			m.Chunks = make([]manifest.Chunk, 1000)
			for i := range m.Chunks {
				m.Chunks[i].Fragments = make([]manifest.Fragment, 64)
			}
		},
	} {
		m := coded()
		change(m)
		if err := m.Validate(); err == nil {
			t.Errorf("%s passed", name)
		}
		if _, err := m.Append(nil); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	for name, change := range map[string]func(*manifest.Manifest){
		"too long": func(m *manifest.Manifest) { m.Size, m.Chunks[0].Plain, m.Chunks[0].Stored = 65537, 65537, 65537 },
		"bytes":    func(m *manifest.Manifest) { m.Inline = m.Inline[1:] },
		"CRCs":     func(m *manifest.Manifest) { m.CRCs = m.CRCs[1:] },
		"chunks":   func(m *manifest.Manifest) { m.Chunks = append(m.Chunks, m.Chunks[0]); m.Size *= 2 },
	} {
		m := inline()
		if change(m); m.Validate() == nil {
			t.Errorf("inline: %s passed", name)
		}
	}
}

// No flipped bit and no cut is taken for a manifest.
func TestDamage(t *testing.T) {
	b := encode(t, coded())
	for i := range b {
		for bit := range 8 {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << bit
			if _, err := manifest.Decode(bad); !errors.Is(err, format.ErrCorrupt) && !errors.Is(err, format.ErrNewer) {
				t.Errorf("bit %d of byte %d: %v", bit, i, err)
			}
		}
		if _, err := manifest.Decode(b[:i]); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	if _, err := manifest.Decode(append(b, 0)); !errors.Is(err, format.ErrCorrupt) {
		t.Error(err)
	}
}

// With a CRC that fits, what is not canonical is still refused.
func TestCanonical(t *testing.T) {
	cases := map[string]unknown.Case{}
	rows := map[string]string{
		"newer format": "a later version", "layout": "a layout", "code": "a code", "compression": "a compression", "cipher": "a cipher", "checksum": "a checksum",
		"zero": "a field behind the block size", "second zero": "a field behind the name's length", "flags": "a flag of a chunk",
		"zero of a chunk": "a field of a chunk", "second zero of a chunk": "a second field of a chunk",
	}
	for name, c := range map[string]struct {
		at    int
		value byte
		want  error
	}{
		"newer format": {0, 2, format.ErrNewer}, "layout": {1, 2, format.ErrNewer}, "code": {6, 2, format.ErrNewer},
		"compression": {7, 2, format.ErrNewer}, "cipher": {8, 2, format.ErrNewer}, "checksum": {9, 2, format.ErrNewer},
		"zero": {11, 1, format.ErrNewer}, "second zero": {81, 1, format.ErrNewer}, "chunks": {83, 0xff, format.ErrCorrupt},
		"inline": {84, 1, format.ErrCorrupt}, "flags": {88 + 5 + 12, 2, format.ErrNewer}, "fragments": {88 + 5 + 13, 2, format.ErrCorrupt},
		"zero of a chunk": {88 + 5 + 14, 1, format.ErrNewer}, "second zero of a chunk": {88 + 5 + 15, 1, format.ErrNewer}, "k": {2, 200, format.ErrCorrupt}, "name": {88, 'A', format.ErrCorrupt},
	} {
		b := encode(t, coded())
		b[c.at] = c.value
		fix(b)
		_, err := manifest.Decode(b)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if c.want == format.ErrNewer {
			cases[rows[name]] = unknown.Case{Read: func() error { return err }}
		}
	}
	unknown.Walk(t, "Manifest of an object", cases)
}

func fix(b []byte) {
	binary.LittleEndian.PutUint32(b[len(b)-4:], format.CRC(b[:len(b)-4]))
}

func TestKeysSort(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var keys []manifest.Key
	for range 300 {
		keys = append(keys, manifest.Key{
			Namespace: rng.Uint64N(3) << 40, Object: id(byte(rng.IntN(3))), Chunk: rng.Uint32N(3) << 9, Fragment: uint8(rng.IntN(3)), Version: rng.Uint32N(3) << 20,
		})
	}
	less := func(a, b manifest.Key) int {
		for _, n := range []int{
			cmp(a.Namespace, b.Namespace), bytes.Compare(a.Object[:], b.Object[:]), cmp(uint64(a.Chunk), uint64(b.Chunk)),
			cmp(uint64(a.Fragment), uint64(b.Fragment)), cmp(uint64(a.Version), uint64(b.Version)),
		} {
			if n != 0 {
				return n
			}
		}
		return 0
	}
	for _, a := range keys {
		b := a.Append(nil)
		if got, err := manifest.ParseKey(b); err != nil || got != a || len(b) != manifest.KeySize {
			t.Fatalf("%v became %v, %v", a, got, err)
		}
		for _, o := range keys {
			if got := bytes.Compare(b, o.Append(nil)); got != less(a, o) {
				t.Fatalf("%v and %v sort %d", a, o, got)
			}
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 34), keys[0].Append(nil)[:33], append(keys[0].Append(nil), 0)} {
		if _, err := manifest.ParseKey(b); !errors.Is(err, manifest.ErrKey) {
			t.Errorf("% x: %v", b, err)
		}
	}
}

func cmp(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Values that are stored, and that no two places share.
func TestSeeds(t *testing.T) {
	if got := manifest.Seed(id(1), 2, 3); got != 0x37845b24f38ff1f0 {
		t.Errorf("seed %#x", got)
	}
	if got := osd.BlockCRC(1, 2, []byte("block")); got != 0xe31228a8 {
		t.Errorf("block CRC %#x", got)
	}
	if got, want := osd.BlockCRC(0x0807060504030201, 0x0c0b0a09, []byte{13}), format.CRC([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}); got != want {
		t.Errorf("block CRC %#x, not %#x", got, want)
	}
	if got := osd.TableCRC([]uint32{1, 2}); got != format.CRC([]byte{1, 0, 0, 0, 2, 0, 0, 0}) {
		t.Errorf("table CRC %#x", got)
	}
	long := make([]uint32, 1000)
	var b []byte
	for i := range long {
		long[i] = uint32(i * i)
		b = binary.LittleEndian.AppendUint32(b, long[i])
	}
	if osd.TableCRC(long) != format.CRC(b) {
		t.Error("a long table")
	}
	seen := map[uint64]bool{}
	for o := range byte(10) {
		for c := range uint32(10) {
			for _, f := range []uint32{0, 1, 2, 63, manifest.InlineFragment} {
				s := manifest.Seed(id(o), c, f)
				if seen[s] {
					t.Errorf("object %d, chunk %d, fragment %d has the seed of another", o, c, f)
				}
				seen[s] = true
			}
		}
	}
	data := make([]byte, 4096)
	if osd.BlockCRC(1, 0, data) == osd.BlockCRC(1, 1, data) || osd.BlockCRC(1, 0, data) == osd.BlockCRC(2, 0, data) {
		t.Error("another place has the same CRC")
	}
	crcs := make([]uint32, 0, 8)
	data = make([]byte, 8*4096)
	if n := testing.AllocsPerRun(10, func() { crcs = osd.AppendCRCs(crcs[:0], 7, 0, data) }); n > 0 {
		t.Errorf("%v allocations for 8 blocks", n)
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range []*manifest.Manifest{coded(), inline(), empty()} {
		f.Add(encode(f, m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 4 { // let most of them pass the CRC
			fix(b)
		}
		m, err := manifest.Decode(b)
		if err != nil {
			return
		}
		if again, err := m.Append(nil); err != nil || !bytes.Equal(again, b) {
			t.Errorf("% x became % x, %v", b, again, err)
		}
	})
}

// The key of a recovery record is that of the fragment under its own letter; it is no
// fragment's key, and no fragment's key is one.
func TestRecoveryKey(t *testing.T) {
	of := coded().Key(1, 2)
	b := of.AppendRecovery([]byte("x"))[1:]
	if got, err := manifest.ParseRecoveryKey(b); err != nil || got != of || got.Inline() || !bytes.Equal(b[1:], of.Append(nil)[1:]) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := manifest.ParseKey(b); !errors.Is(err, manifest.ErrKey) {
		t.Errorf("a fragment's: %v", err)
	}
	for _, bad := range [][]byte{nil, of.Append(nil), b[:len(b)-1], append(bytes.Clone(b), 0)} {
		if _, err := manifest.ParseRecoveryKey(bad); !errors.Is(err, manifest.ErrKey) {
			t.Errorf("%x: %v", bad, err)
		}
	}
	if k := manifest.InlineKey(7, "a"); !k.Inline() || k == manifest.InlineKey(7, "b") || k.Namespace != 7 {
		t.Errorf("inline: %v", k)
	}
}

// What can be encoded can be kept by an NSM: they have one set of bounds.
func TestBounds(t *testing.T) {
	if manifest.EncodedMax != nsm.MaxManifest || manifest.MaxChunks != nsm.MaxChunks || manifest.MaxFragments != nsm.MaxFragments {
		t.Error("the codec and the NSM have other bounds")
	}
	// The widest that is taken fits, inline bytes and the longest name included.
	if most := 88 + nsm.MaxName + manifest.MaxChunks*16 + manifest.MaxFragments*20 + manifest.InlineLimit + manifest.InlineLimit/4096*4 + 4; most > manifest.EncodedMax {
		t.Errorf("%d bytes can be wanted, %d are allowed", most, manifest.EncodedMax)
	}
	m := coded()
	m.Policy = policy.Policy{K: 50, M: 14, C: 50, X: 1}
	m.Chunks = make([]manifest.Chunk, manifest.MaxFragments/64+1)
	if err := m.Validate(); !errors.Is(err, manifest.ErrManifest) || !strings.Contains(err.Error(), "4160 fragments; at most 4096") {
		t.Error(err)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(manifest.Key{Namespace: 1, Chunk: 2}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := manifest.ParseKey(b); err == nil && !bytes.Equal(k.Append(nil), b) {
			t.Errorf("% x is %v", b, k)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	m := coded()
	m.Policy = policy.Policy{K: 4, M: 2, C: 5, X: 3}
	m.Size = 4 << 20
	m.Chunks = nil
	for range 4 {
		c := manifest.Chunk{Plain: 1 << 20, Stored: 500000, Shard: manifest.ShardLength(500000, 4)}
		for f := range 6 {
			c.Fragments = append(c.Fragments, manifest.Fragment{OSD: uint64(f + 1), Length: c.Shard})
		}
		m.Chunks = append(m.Chunks, c)
	}
	enc := encode(b, m)
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := manifest.Decode(enc); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 4096)
		for b.Loop() {
			if _, err := m.Append(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}
