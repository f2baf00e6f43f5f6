package object_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"openvstorage/alba/manifest"
	"openvstorage/alba/object"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/backend"
	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"
)

// sums makes the manifest fit fragments that were tampered with, as one could
// who may write to the disks and to the manifest: only the seal is left.
func (s stored) sums(chunk int) {
	for i, p := range s.coded[chunk].Shards {
		crcs := osd.AppendCRCs(nil, manifest.Seed(s.m.Object, uint32(chunk), uint32(i)), 0, p)
		s.coded[chunk].CRCs[i] = crcs
		s.m.Chunks[chunk].Fragments[i].CRC = osd.TableCRC(crcs)
	}
}

func refused(t *testing.T, name string, s stored, key []byte) {
	t.Helper()
	o, err := newOpener(s.m, key)
	if err != nil {
		t.Fatal(err)
	}
	c := s.m.Chunks[0]
	if _, err := o.Chunk(make([]byte, c.Plain), 0, s.coded[0].Shards); !errors.Is(err, backend.ErrCorrupt) {
		t.Errorf("%s: %v", name, err)
	}
}

// Whatever is done to sealed blocks, checksums made to fit, is refused.
func TestSealHolds(t *testing.T) {
	for name, data := range map[string][]byte{"dense": noise(8 << 13), "table": append(noise(6<<13), make([]byte, 2<<13)...)} {
		fresh := func(q object.Params) stored {
			return split(t, data, testPreset(0, true), q)
		}
		q := params(1, 0)
		refused(t, name+": another key", fresh(q), bytes.Repeat([]byte{0x43}, 32))
		const stored = 1<<13 + 16

		s := fresh(q)
		p := s.coded[0].Shards[0]
		first, second := bytes.Clone(p[:stored]), bytes.Clone(p[stored:2*stored])
		copy(p, second)
		copy(p[stored:], first)
		s.sums(0)
		refused(t, name+": swapped blocks", s, master)

		s = fresh(q)
		s.coded[0].Shards[0][100] ^= 1
		s.sums(0)
		refused(t, name+": a flipped bit", s, master)

		s = fresh(q)
		s.m.Namespace++
		refused(t, name+": another namespace", s, master)

		q.Object = oid(77)
		older := fresh(q)
		q.Object = oid(1)
		s = fresh(q)
		copy(s.coded[0].Shards[0], older.coded[0].Shards[0])
		s.sums(0)
		refused(t, name+": an older upload", s, master)

		if name == "table" {
			s = fresh(q)
			s.coded[0].Shards[0][s.m.Chunks[0].Stored-20] ^= 1
			s.sums(0)
			refused(t, "a flipped bit of the table", s, master)
		}
	}
	s := split(t, noise(9), testPreset(0, true), params(1, 0))
	for _, key := range [][]byte{nil, master[1:], append(master[:32:32], 1)} {
		if _, err := newOpener(s.m, key); !errors.Is(err, object.ErrKey) {
			t.Errorf("a key of %d bytes: %v", len(key), err)
		}
	}
}

// The same plain bytes are sealed to others in each object, chunk and block.
func TestSealsDiffer(t *testing.T) {
	data := bytes.Repeat(noise(1<<13), 64) // two chunks of 32 equal blocks
	p := testPreset(0, true)
	seen := map[string]bool{}
	for _, o := range []byte{1, 2} {
		q := params(1, 0)
		q.Object = oid(o)
		s := split(t, data, p, q)
		for _, c := range s.coded {
			for at := 0; at+1<<13+16 <= int(c.Chunk.Stored); at += 1<<13 + 16 {
				block := string(c.Shards[0][at:][:1<<13+16])
				if seen[block] {
					t.Fatal("two blocks are sealed alike")
				}
				seen[block] = true
			}
		}
	}
	if len(seen) != 128 {
		t.Errorf("%d blocks", len(seen))
	}
}

// Without a seal, the checksums tell swapped, older and damaged fragments.
func TestFragmentsHaveTheirPlace(t *testing.T) {
	data := bytes.Repeat(noise(1<<13), 64) // chunks are equal
	s := split(t, data, testPreset(0, false), params(2, 2))
	q := params(2, 2)
	q.Object = oid(99)
	older := split(t, data, testPreset(0, false), q)
	if !bytes.Equal(s.coded[0].Shards[0], s.coded[1].Shards[0]) || !bytes.Equal(s.coded[0].Shards[0], older.coded[0].Shards[0]) {
		t.Fatal("the fragments were to be equal")
	}
	r := object.Range{Chunk: 0, Fragment: 0, Off: 4096, Len: 8192}
	part := s.coded[0].Shards[0][4096 : 4096+8192]
	check := func(name string, want bool, r object.Range, part []byte, crcs []uint32) {
		t.Helper()
		if err := object.Verify(s.m, r, part, crcs); (err == nil) != want || err != nil && !errors.Is(err, backend.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	check("its own", true, r, part, s.coded[0].CRCs[0][1:3])
	check("another block", false, r, part, s.coded[0].CRCs[0][2:4])
	check("another chunk", false, r, part, s.coded[1].CRCs[0][1:3])
	check("another fragment", false, r, part, s.coded[0].CRCs[1][1:3])
	check("an older upload", false, r, part, older.coded[0].CRCs[0][1:3])
	check("too few CRCs", false, r, part, s.coded[0].CRCs[0][1:2])
	check("too few bytes", false, r, part[:4096], s.coded[0].CRCs[0][1:2])

	// In a whole read a wrong fragment counts as lost, and is named.
	data = noise(512 << 10)
	s = split(t, data, testPreset(0, false), params(2, 2))
	o := s.opener(t)
	rng := rand.New(rand.NewPCG(6, 6))
	out := make([]byte, s.m.Chunks[0].Plain)
	for range 50 {
		shards := slices.Clone(s.coded[0].Shards)
		wrong := rng.Perm(4)[:1+rng.IntN(3)]
		for _, f := range wrong {
			switch p := bytes.Clone(shards[f]); rng.IntN(3) {
			case 0:
				shards[f] = s.coded[0].Shards[(f+1)%4] // of another place
			case 1:
				shards[f] = p[:len(p)-4096]
			default:
				p[rng.IntN(len(p))] ^= 1 << rng.IntN(8)
				shards[f] = p
			}
		}
		bad, err := o.Chunk(out, 0, shards)
		slices.Sort(wrong)
		if !slices.Equal(bad, wrong) {
			t.Fatalf("%v are bad, it says %v", wrong, bad)
		}
		switch {
		case len(wrong) > 2 && !errors.Is(err, backend.ErrCorrupt):
			t.Fatalf("without %v: %v", wrong, err)
		case len(wrong) <= 2 && (err != nil || !bytes.Equal(out, data[:len(out)])):
			t.Fatalf("without %v: other bytes, %v", wrong, err)
		}
		// A repair may use a bad one: then it is refused.
		p, _, err := object.Repair(s.m, 0, 3, shards)
		if err == nil && !bytes.Equal(p, s.coded[0].Shards[3]) || err != nil && (len(wrong) == 1 && wrong[0] == 3) {
			t.Fatalf("repair from %v bad ones: %v", wrong, err)
		}
	}
}

func TestInlineDamage(t *testing.T) {
	p := testPreset(1, false)
	p.InlineMax = 64 << 10
	s := split(t, stuff(rand.New(rand.NewPCG(1, 5)), 60000), p, params(2, 1))
	o := s.opener(t)
	for i := range s.m.Inline {
		s.m.Inline[i] ^= 4
		if err := o.Inline(make([]byte, 10), 0); !errors.Is(err, backend.ErrCorrupt) {
			t.Fatalf("byte %d: %v", i, err)
		}
		s.m.Inline[i] ^= 4
	}
}

func TestMisuse(t *testing.T) {
	s := split(t, stuff(rand.New(rand.NewPCG(1, 5)), 300<<10), testPreset(1, false), params(2, 1))
	o := s.opener(t)
	_, err1 := object.Pieces(nil, s.m, 1, 300<<10)
	_, err2 := object.Pieces(nil, s.m, 1<<63, 1)
	_, err3 := object.Pieces(nil, s.m, 0, -1)
	_, err4 := object.Locate(s.m, object.Piece{Len: 1}, nil) // without its table
	_, err5 := o.Chunk(nil, 0, nil)
	_, err6 := o.Table(0, nil)
	err7 := o.Inline(make([]byte, 1), 0)
	err8 := object.Recover(make([]byte, 4096), s.m, object.Range{Len: 4096}, []object.Range{{Fragment: 0, Len: 4096}}, [][]byte{make([]byte, 4096)})
	e, err := object.NewEncoder(object.Params{Object: oid(1), Policy: policy.Default, Scheme: testPreset(0, false).Scheme})
	if err != nil {
		t.Fatal(err)
	}
	err9 := e.Chunk(new(object.Coded), 0, nil)
	err10 := e.Inline(new(manifest.Manifest), make([]byte, 64<<10+1))
	_, err11 := object.NewEncoder(object.Params{Policy: policy.Default, Scheme: testPreset(0, false).Scheme})
	for i, err := range []error{err1, err2, err3, err4, err5, err6, err7, err8, err9, err10, err11} {
		if !errors.Is(err, manifest.ErrManifest) {
			t.Errorf("%d: %v", i+1, err)
		}
	}
}

// The bytes of a chunk with blocks of zeros and raw ones, open and sealed,
// never change.
func TestGolden(t *testing.T) {
	data := slices.Concat(make([]byte, 4096), noise(4096), make([]byte, 4096), noise(100))
	for _, sealed := range []bool{false, true} {
		p := testPreset(0, sealed)
		p.Scheme.BlockLog2 = 12
		s := split(t, data, p, params(2, 1))
		name, seal := "open", 0
		if sealed {
			name, seal = "sealed", 16
		}
		c := s.coded[0]
		body := slices.Concat(c.Shards[0], c.Shards[1])
		b := golden.Check(t, "testdata/"+name+"-v1.hex", "chunk of 2+1, "+name+": TestGolden in refuse_test.go", append(body, c.Shards[2]...),
			golden.Field{Size: 4096 + seal, Name: "raw block 1"}, golden.Field{Size: 100 + seal, Name: "raw block 3"},
			golden.Field{Size: 4*4 + 4 + seal, Name: "table"}, golden.Field{Size: len(body) - int(c.Chunk.Stored), Name: "zeros"},
			golden.Field{Size: len(c.Shards[2]), Name: "parity"})
		n := len(c.Shards[0])
		for f := range c.Shards {
			copy(c.Shards[f], b[f*n:])
		}
		if !bytes.Equal(s.whole(t, s.opener(t), nil), data) {
			t.Errorf("%s: version 1 does not open", name)
		}
	}
}

// A manifest with the object in it, compressed and sealed, opens. Another
// release of s2 may pack it otherwise, so that it is not compared with today's.
func TestGoldenCompressed(t *testing.T) {
	m, err := manifest.Decode(golden.Read(t, "testdata/compressed-v1.hex"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := newOpener(m, master)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, m.Size)
	if err := o.Inline(got, 0); err != nil || !bytes.Equal(got, compressible()) {
		t.Errorf("other bytes come back, %v", err)
	}
}

// compressible is what testdata/compressed-v1.hex holds.
func compressible() []byte {
	return slices.Concat(make([]byte, 8192), noise(8192), bytes.Repeat([]byte("openvstorage "), 1000))
}

// fuzzed returns an unsealed inline object whose stored bytes are b.
func fuzzed(b []byte, plain uint32, dense bool, c preset.Compression) *manifest.Manifest {
	p := testPreset(c, false)
	p.Scheme.BlockLog2 = 12
	m := &manifest.Manifest{Name: "fuzz", Object: oid(3), Size: uint64(plain), Policy: policy.Default, Scheme: p.Scheme, Inlined: true,
		Chunks: []manifest.Chunk{{Plain: plain, Stored: uint32(len(b)), Dense: dense}}, Inline: b}
	m.CRCs = osd.AppendCRCs(nil, manifest.Seed(m.Object, 0, manifest.InlineFragment), 0, b)
	return m
}

// Any stored bytes, with checksums that fit, are opened or refused.
func FuzzOpen(f *testing.F) {
	for _, data := range [][]byte{noise(600), make([]byte, 5000), append(make([]byte, 4096), "abababababababababababababababababababababababab"...)} {
		p := testPreset(1, false)
		p.Scheme.BlockLog2 = 12
		p.InlineMax = 64 << 10
		s := split(f, data, p, params(2, 1))
		f.Add(s.m.Inline, uint32(len(data)), s.m.Chunks[0].Dense, true, uint16(5000))
	}
	f.Fuzz(func(t *testing.T, b []byte, plain uint32, dense, compressed bool, off uint16) {
		plain %= 64<<10 + 1
		c := preset.CompressionNone
		if compressed {
			c = preset.CompressionS2
		}
		m := fuzzed(b, plain, dense, c)
		if !dense && plain > 0 { // let its table pass the CRC
			if n := 4 * manifest.Blocks(plain, m.Scheme.BlockLog2); len(b) >= n+4 {
				table := b[len(b)-n-4:]
				binary.LittleEndian.PutUint32(table[n:], format.SeededCRC(manifest.Seed(m.Object, 0, 0xfffffffe), table[:n]))
				m = fuzzed(b, plain, dense, c)
			}
		}
		if m.Validate() != nil {
			return
		}
		o, err := newOpener(m, nil)
		if err != nil {
			t.Fatal(err)
		}
		whole := make([]byte, plain)
		err = o.Inline(whole, 0)
		if err != nil && !errors.Is(err, backend.ErrCorrupt) {
			t.Fatal(err)
		}
		if from := uint32(off); err == nil && from < plain {
			part := make([]byte, plain-from)
			if err := o.Inline(part, uint64(from)); err != nil || !bytes.Equal(part, whole[from:]) {
				t.Errorf("from %d on: %v", from, err)
			}
		}
	})
}
