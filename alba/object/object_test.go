package object_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"openvstorage/alba/ec"
	"openvstorage/alba/manifest"
	"openvstorage/alba/object"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/backend"
)

var master = bytes.Repeat([]byte{0x42}, object.MasterKeySize)

func oid(n byte) (o manifest.ObjectID) {
	for i := range o {
		o[i] = n + byte(i)*3
	}
	return o
}

// testPreset has small chunks and blocks, so that little data has many.
func testPreset(c preset.Compression, sealed bool) preset.Preset {
	p := preset.Default(3)
	p.Scheme.Compression, p.Scheme.BlockLog2 = c, 13
	p.ChunkSize, p.InlineMax = 256<<10, 0
	if sealed {
		p.Scheme.Cipher, p.Scheme.Key = preset.CipherAES256GCM, 1
	}
	return p
}

func params(k, m int) object.Params {
	return object.Params{Namespace: 5, Object: oid(1), Policy: policy.Policy{K: uint8(k), M: uint8(m), C: uint8(k), X: 64}, Master: master}
}

// stuff returns bytes with runs of zeros, of what compresses and what does not.
func stuff(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for at := 0; at < n; {
		run := min(n-at, 1+rng.IntN(30000))
		switch rng.IntN(3) {
		case 1:
			for i := range run {
				b[at+i] = byte(i / 7)
			}
		case 2:
			for i := range run {
				b[at+i] = byte(rng.Uint32())
			}
		}
		at += run
	}
	return b
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// encode encodes a whole object under a preset, whose scheme and limits hold. It
// returns the manifest, without name, version, time, epoch and OSDs, and the chunks;
// an object that stays in its manifest has none.
func encode(data []byte, p preset.Preset, params object.Params) (*manifest.Manifest, []object.Coded, error) {
	params.Scheme = p.Scheme
	e, err := object.NewEncoder(params)
	if err != nil {
		return nil, nil, err
	}
	m := &manifest.Manifest{
		Namespace: params.Namespace, Object: params.Object, Size: uint64(len(data)), Policy: params.Policy, Scheme: params.Scheme,
	}
	if len(data) <= int(p.InlineMax) {
		return m, nil, e.Inline(m, data)
	}
	coded := make([]object.Coded, (len(data)+int(p.ChunkSize)-1)/int(p.ChunkSize))
	m.Chunks = make([]manifest.Chunk, len(coded))
	for i := range coded {
		part := data[i*int(p.ChunkSize):]
		if err := e.Chunk(&coded[i], i, part[:min(len(part), int(p.ChunkSize))]); err != nil {
			return nil, nil, err
		}
		m.Chunks[i] = coded[i].Chunk
	}
	return m, coded, nil
}

// newOpener returns an opener of the object of a manifest.
func newOpener(m *manifest.Manifest, master []byte) (*object.Opener, error) {
	o := new(object.Opener)
	return o, o.Reset(m, master)
}

// substitutes are the ranges to read in place of r, whose fragment cannot be read:
// the same bytes of k other fragments, data before parity.
func substitutes(t testing.TB, m *manifest.Manifest, r object.Range, usable func(fragment int) bool) (from []object.Range) {
	t.Helper()
	k, n := int(m.Policy.K), 0
	for i := 0; i < m.Policy.Width() && n < k; i++ {
		if i != r.Fragment && usable(i) {
			other := r
			other.Fragment = i
			from = append(from, other)
			n++
		}
	}
	if n < k {
		t.Fatalf("chunk %d of object %v: %d fragments besides %d, %d are needed", r.Chunk, m.Object, n, r.Fragment, k)
	}
	return from
}

// stored is an object with its fragments.
type stored struct {
	m     *manifest.Manifest
	coded []object.Coded
	data  []byte
}

func split(t testing.TB, data []byte, p preset.Preset, q object.Params) stored {
	t.Helper()
	if p.Scheme.Cipher == preset.CipherNone {
		q.Master = nil
	}
	m, coded, err := encode(data, p, q)
	if err != nil {
		t.Fatal(err)
	}
	m.Name = "object"
	for i := range m.Chunks {
		for f := range m.Chunks[i].Fragments {
			m.Chunks[i].Fragments[f].OSD = uint64(f + 1)
		}
	}
	// What is read is what a manifest says that was stored and read back.
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = manifest.Decode(b); err != nil {
		t.Fatal(err)
	}
	return stored{m, coded, data}
}

func (s stored) opener(t testing.TB) *object.Opener {
	t.Helper()
	key := master
	if s.m.Scheme.Cipher == preset.CipherNone {
		key = nil
	}
	o, err := newOpener(s.m, key)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// fetch reads a span as a client does: each range verified, one of a lost
// fragment made from others. It returns the bytes that were fetched too.
func (s stored) fetch(t testing.TB, span object.Span, lost []int) (buf []byte, fetched int) {
	t.Helper()
	read := func(r object.Range) []byte {
		c := s.coded[r.Chunk]
		data := c.Shards[r.Fragment][r.Off : r.Off+r.Len]
		if err := object.Verify(s.m, r, data, c.CRCs[r.Fragment][r.Off/4096:(r.Off+r.Len)/4096]); err != nil {
			t.Fatal(err)
		}
		fetched += len(data)
		return data
	}
	for _, r := range object.Ranges(nil, s.m, span) {
		if !slices.Contains(lost, r.Fragment) {
			buf = append(buf, read(r)...)
			continue
		}
		from := substitutes(t, s.m, r, func(f int) bool { return !slices.Contains(lost, f) })
		var parts [][]byte
		for _, o := range from {
			parts = append(parts, read(o))
		}
		part := make([]byte, r.Len)
		if err := object.Recover(part, s.m, r, from, parts); err != nil {
			t.Fatal(err)
		}
		buf = append(buf, part...)
	}
	if len(buf) != span.BufferLen() {
		t.Fatalf("%d bytes for a span of %d", len(buf), span.BufferLen())
	}
	return buf, fetched
}

// read reads a range of the object by its fragments.
func (s stored) read(t testing.TB, o *object.Opener, off uint64, n int, lost []int) []byte {
	t.Helper()
	out := make([]byte, n)
	if s.m.Inlined {
		if err := o.Inline(out, off); err != nil {
			t.Fatal(err)
		}
		return out
	}
	pieces, err := object.Pieces(nil, s.m, off, n)
	if err != nil {
		t.Fatal(err)
	}
	rest := out
	for _, p := range pieces {
		var table *object.Table
		if span, ok := object.TableSpan(s.m, p.Chunk); ok {
			buf, _ := s.fetch(t, span, lost)
			if table, err = o.Table(p.Chunk, buf); err != nil {
				t.Fatal(err)
			}
		}
		span, err := object.Locate(s.m, p, table)
		if err != nil {
			t.Fatal(err)
		}
		buf, _ := s.fetch(t, span, lost)
		if err := o.Open(rest[:p.Len], span, table, buf); err != nil {
			t.Fatal(err)
		}
		rest = rest[p.Len:]
	}
	if len(rest) != 0 {
		t.Fatalf("%d bytes are in no piece", len(rest))
	}
	return out
}

// whole reads the object by chunks.
func (s stored) whole(t testing.TB, o *object.Opener, lost []int) []byte {
	t.Helper()
	out := make([]byte, s.m.Size)
	if s.m.Inlined {
		if err := o.Inline(out, 0); err != nil {
			t.Fatal(err)
		}
		return out
	}
	at := 0
	for i, c := range s.m.Chunks {
		shards := slices.Clone(s.coded[i].Shards)
		for _, f := range lost {
			shards[f] = nil
		}
		if bad, err := o.Chunk(out[at:at+int(c.Plain)], i, shards); err != nil || len(bad) > 0 {
			t.Fatalf("chunk %d without %v: %v, %v", i, lost, bad, err)
		}
		at += int(c.Plain)
	}
	return out
}

var schemes = []struct {
	name        string
	compression preset.Compression
	sealed      bool
}{{"none", 0, false}, {"s2", 1, false}, {"aes", 0, true}, {"s2+aes", 1, true}}

func TestRoundTrip(t *testing.T) {
	for _, sc := range schemes {
		t.Run(sc.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			for _, n := range []int{0, 1, 4095, 4096, 4097, 8191, 8193, 32767, 32768, 32769, 65536, 262143, 262144, 262145, 700001} {
				for kind, data := range [][]byte{stuff(rng, n), make([]byte, n), noise(n)} {
					for _, inline := range []uint32{0, 64 << 10} {
						p := testPreset(sc.compression, sc.sealed)
						p.InlineMax = inline
						k := 1 + rng.IntN(6)
						m := rng.IntN(4)
						s := split(t, data, p, params(k, m))
						if s.m.Inlined != (n <= int(inline)) {
							t.Fatalf("%d bytes are inline: %v", n, s.m.Inlined)
						}
						o := s.opener(t)
						lost := rng.Perm(k + m)[:rng.IntN(m+1)]
						if !bytes.Equal(s.whole(t, o, lost), data) {
							t.Fatalf("%d bytes of kind %d, %d+%d without %v: others come back", n, kind, k, m, lost)
						}
						for range 6 {
							off := rng.IntN(n + 1)
							size := rng.IntN(min(n-off, 60000) + 1)
							if !bytes.Equal(s.read(t, o, uint64(off), size, lost), data[off:off+size]) {
								t.Fatalf("%d bytes at %d of %d of kind %d, %d+%d without %v: others come back", size, off, n, kind, k, m, lost)
							}
						}
					}
				}
			}
		})
	}
}

// A block is kept compressed if that saves an eighth of it.
func TestCompressionPays(t *testing.T) {
	p := testPreset(preset.CompressionS2, false)
	p.InlineMax = 0
	block := p.Scheme.BlockSize()
	for _, sc := range []struct {
		zeros int // of the block: about what compression saves
		packs bool
	}{{block / 10, false}, {block / 7, true}} {
		data := noise(block)
		clear(data[block-sc.zeros:])
		s := split(t, data, p, params(1, 0))
		if got := !s.m.Chunks[0].Dense; got != sc.packs {
			t.Errorf("with %d zeros in %d bytes, it is compressed: %v", sc.zeros, block, got)
		}
		if !bytes.Equal(s.whole(t, s.opener(t), nil), data) {
			t.Errorf("with %d zeros in %d bytes, others come back", sc.zeros, block)
		}
	}
}

// The default preset, over a chunk's end, with every loss that 2+1 bears.
func TestDefaultPreset(t *testing.T) {
	p := preset.Default(3)
	data := stuff(rand.New(rand.NewPCG(8, 8)), 16<<20+12345)
	s := split(t, data, p, params(2, 1))
	o := s.opener(t)
	for lost := range 3 {
		if !bytes.Equal(s.whole(t, o, []int{lost}), data) {
			t.Fatalf("without %d: others come back", lost)
		}
		if off := uint64(16<<20 - 5000); !bytes.Equal(s.read(t, o, off, 10000, []int{lost}), data[off:off+10000]) {
			t.Fatalf("without %d: a read over two chunks", lost)
		}
	}
}

// All losses up to m, for each width; m+1 is refused, and names what it needs.
func TestEveryLoss(t *testing.T) {
	data := stuff(rand.New(rand.NewPCG(4, 4)), 60000)
	for _, w := range [][2]int{{1, 0}, {1, 2}, {2, 1}, {4, 2}, {5, 3}} {
		s := split(t, data, testPreset(1, true), params(w[0], w[1]))
		o := s.opener(t)
		for set := range 1 << (w[0] + w[1]) {
			var lost []int
			for i := range w[0] + w[1] {
				if set>>i&1 != 0 {
					lost = append(lost, i)
				}
			}
			if len(lost) <= w[1] {
				if !bytes.Equal(s.whole(t, o, lost), data) {
					t.Fatalf("%v without %v: others come back", w, lost)
				}
				continue
			}
			shards := slices.Clone(s.coded[0].Shards)
			for _, f := range lost {
				shards[f] = nil
			}
			if _, err := o.Chunk(make([]byte, len(data)), 0, shards); !errors.Is(err, ec.ErrTooFew) || errors.Is(err, backend.ErrCorrupt) {
				t.Fatalf("%v without %v: %v", w, lost, err)
			}
		}
	}
}

// What a small read costs: only the block, only the bytes where they lie open.
func TestReadsLittle(t *testing.T) {
	data := noise(256 << 10)
	for _, c := range []struct {
		name   string
		sealed bool
		most   int
	}{{"open", false, 4096}, {"sealed", true, 3 * 4096}} {
		s := split(t, data, testPreset(0, c.sealed), params(4, 2))
		if _, ok := object.TableSpan(s.m, 0); ok {
			t.Errorf("%s: noise has a table", c.name)
		}
		for off := uint32(0); off < 256<<10; off += 4096 {
			span, err := object.Locate(s.m, object.Piece{Off: off, Len: 4096}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, n := s.fetch(t, span, nil); n > c.most {
				t.Errorf("%s: 4 KiB at %d cost %d", c.name, off, n)
			}
		}
	}
	s := split(t, make([]byte, 256<<10), testPreset(0, false), params(4, 2))
	if got := s.m.StoredSize(); got != 6*4096 {
		t.Errorf("zeros take %d bytes", got)
	}
	span, _ := object.TableSpan(s.m, 0)
	buf, _ := s.fetch(t, span, nil)
	table, err := s.opener(t).Table(0, buf)
	if err != nil {
		t.Fatal(err)
	}
	if span, err := object.Locate(s.m, object.Piece{Len: 4096}, table); err != nil || span.BufferLen() != 0 || table.Size() == 0 {
		t.Errorf("zeros are read: %+v, %v", span, err)
	}
}

func TestShards(t *testing.T) {
	s := split(t, noise(100000), testPreset(0, false), params(4, 2))
	for i, p := range s.coded[0].Shards {
		if len(p) != 28672 || uintptr(unsafe.Pointer(&p[0]))%4096 != 0 || len(s.coded[0].CRCs[i]) != 7 {
			t.Errorf("shard %d has %d bytes and %d CRCs", i, len(p), len(s.coded[0].CRCs[i]))
		}
	}
	for f := range 6 {
		shards := slices.Clone(s.coded[0].Shards)
		shards[f], shards[(f+1)%6] = nil, nil
		p, crcs, err := object.Repair(s.m, 0, f, shards)
		if err != nil || !bytes.Equal(p, s.coded[0].Shards[f]) || !slices.Equal(crcs, s.coded[0].CRCs[f]) {
			t.Errorf("fragment %d made again: %v", f, err)
		}
	}
}

// Memory that was used for a chunk does not show in the next.
func TestReuse(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	q := params(3, 2)
	q.Scheme = testPreset(1, true).Scheme
	e, err := object.NewEncoder(q)
	if err != nil {
		t.Fatal(err)
	}
	var reused object.Coded
	for i := range 40 {
		data := stuff(rng, 1+rng.IntN(200000))
		var fresh object.Coded
		other, _ := object.NewEncoder(q)
		if err := errors.Join(e.Chunk(&reused, i, data), other.Chunk(&fresh, i, data)); err != nil {
			t.Fatal(err)
		}
		for f := range fresh.Shards {
			if !bytes.Equal(fresh.Shards[f], reused.Shards[f]) || fresh.Chunk.Fragments[f] != reused.Chunk.Fragments[f] {
				t.Fatalf("chunk %d, fragment %d differs", i, f)
			}
		}
	}
	if err := e.Chunk(&reused, 39, []byte{1}); !errors.Is(err, manifest.ErrManifest) {
		t.Errorf("a chunk was encoded twice: %v", err)
	}
}

func TestNoAllocationPerBlock(t *testing.T) {
	for _, sc := range schemes {
		q := params(4, 2)
		q.Scheme = testPreset(sc.compression, sc.sealed).Scheme
		e, err := object.NewEncoder(q)
		if err != nil {
			t.Fatal(err)
		}
		data := stuff(rand.New(rand.NewPCG(2, 2)), 256<<10) // 32 blocks
		var c object.Coded
		i := 0
		n := testing.AllocsPerRun(20, func() {
			if err := e.Chunk(&c, i, data); err != nil {
				t.Fatal(err)
			}
			i++
		})
		if n > 20 {
			t.Errorf("%s: %v allocations for a chunk of 32 blocks and 6 fragments", sc.name, n)
		}
	}
}

func BenchmarkSplit(b *testing.B) {
	elf := stuff(rand.New(rand.NewPCG(1, 1)), 16<<20)
	for _, sc := range schemes {
		for name, data := range map[string][]byte{"mixed": elf, "noise": noise(16 << 20)} {
			b.Run(fmt.Sprintf("%s/%s", sc.name, name), func(b *testing.B) {
				q := params(4, 2)
				q.Scheme = testPreset(sc.compression, sc.sealed).Scheme
				q.Scheme.BlockLog2 = 15
				var e object.Encoder
				var c object.Coded
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				for b.Loop() {
					if err := errors.Join(e.Reset(q), e.Chunk(&c, 0, data)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
