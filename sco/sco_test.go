package sco

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"

	"github.com/google/uuid"
)

const testIncarnation = 0x1112131415161718

var testVolume = uuid.MustParse("6ba7b810-9dad-41d1-80b4-00c04fd430c8")

func sampleHeader() Header {
	return Header{Volume: testVolume, Number: 0x123456789, Incarnation: testIncarnation, Capacity: 8, Epoch: 5, FirstSeq: 41}
}

func sampleCommit() Commit {
	return Commit{Index: 3, Round: 9, FirstSeq: 41, Seq: 42, Durable: 40, Entries: []byte("entries of the log, which this package does not read")}
}

func sampleBlocks() Blocks {
	return Blocks{
		Sums:  []uint32{0xa1a2a3a4, 0xb1b2b3b4, 0, 0xd1d2d3d4},
		Addrs: []uint64{1000, 1001, NoAddress, 7},
		Seqs:  []uint64{41, 41, 0, 42},
	}
}

// sampleObject is an SCO of 4 blocks as in the backend.
func sampleObject() []byte {
	b := AppendHeader(nil, sampleHeader())
	for _, c := range []byte("abcd") {
		b = append(b, bytes.Repeat([]byte{c}, ClusterSize)...)
	}
	return AppendFooter(b, sampleHeader(), sampleBlocks(), 4, 5)
}

// seal makes the two CRCs of a header block fit again.
func seal(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[60:], format.CRC(b[:60]))
	incarnation := binary.LittleEndian.Uint64(b[48:])
	binary.LittleEndian.PutUint32(b[92:], format.SeededCRC(incarnation, b[64:92]))
	return b
}

func TestNames(t *testing.T) {
	last := ""
	for _, n := range []Number{0, 1, 9, 10, 0xabc, 1 << 20, 1 << 35, MaxNumber} {
		name := n.Name()
		got, err := ParseName(name)
		if err != nil || got != n {
			t.Errorf("%d: %s is read as %d, %v", n, name, got, err)
		}
		if name <= last {
			t.Errorf("%s does not sort behind %s", name, last)
		}
		last = name
	}
	for _, name := range []string{
		"", "sco-", "sco-00000000", "sco-0000000001", "sco-00000000G", "sco-00000000A", "SCO-000000001", "sco-+00000001",
		"sco-0x0000001", "sco_000000001", "tlog-00000001", " sco-00000001", "sco-00000001 ", "sco-0000_0001",
	} {
		if n, err := ParseName(name); err == nil || !strings.Contains(err.Error(), "not an SCO's name") {
			t.Errorf("%q is read as %d, %v", name, n, err)
		}
	}
}

func TestLocation(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	edge := func(maximum uint64) uint64 { return []uint64{0, 1, maximum, r.Uint64N(maximum + 1)}[r.IntN(4)] }
	for range 10000 {
		o, n, i := Origin(edge(uint64(MaxOrigin))), Number(edge(uint64(MaxNumber))), int(edge(MaxIndex))
		l := At(o, n, i)
		if l.Kind() != KindData || l.Origin() != o || l.Number() != n || l.Index() != i {
			t.Fatalf("At(%d, %d, %d) is %v", o, n, i, l)
		}
		if k := r.IntN(MaxIndex - i + 1); l.Add(k) != At(o, n, i+k) {
			t.Fatalf("%v and %d blocks is %v", l, k, l.Add(k))
		}
	}
	if Hole != 0 || Hole.Kind() != KindHole || Zero.Kind() != KindZero || Hole.Add(3) != Hole || Zero.Add(3) != Zero {
		t.Error("Hole and Zero")
	}
	if got := uint64(At(1, 1, 1)); got != 1<<62|1<<50|1<<14|1 {
		t.Errorf("the bits of a location have moved: %#x", got)
	}
	for l, want := range map[Location]string{Hole: "hole", Zero: "zero", At(2, 0x1f, 7): "2:sco-00000001f:7", 3 << 62: "location(0xc000000000000000)"} {
		if l.String() != want {
			t.Errorf("%q, not %q", l.String(), want)
		}
	}
}

// Room is the most that fits, for every size of file there can be.
func TestRoom(t *testing.T) {
	for capacity := 3; capacity <= MaxIndex+1; capacity++ {
		n := Room(capacity)
		if n < 1 || 1+n+FooterBlocks(n) > capacity {
			t.Fatalf("capacity %d: %d blocks do not fit", capacity, n)
		}
		if 1+n+1+FooterBlocks(n+1) <= capacity {
			t.Fatalf("capacity %d: more than %d blocks fit", capacity, n)
		}
	}
	for n := range MaxIndex + 1 {
		if room, need := FooterBlocks(n)*ClusterSize, n*perBlock+TrailerSize; room < need || room-need >= ClusterSize {
			t.Fatalf("footer of %d blocks: %d bytes in %d", n, need, room)
		}
	}
}

func TestCommitBlocks(t *testing.T) {
	for _, c := range []struct{ entries, blocks int }{{0, 1}, {1, 1}, {4032, 1}, {4033, 2}, {8128, 2}, {8129, 3}} {
		if got := CommitBlocks(c.entries); got != c.blocks {
			t.Errorf("%d bytes of entries: %d blocks, not %d", c.entries, got, c.blocks)
		}
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	for _, h := range []Header{
		sampleHeader(),
		{Capacity: 3},
		{Volume: testVolume, Number: MaxNumber, Incarnation: 1<<64 - 1, Capacity: MaxIndex + 1, Epoch: 1<<64 - 1, FirstSeq: 1<<64 - 1},
	} {
		b := AppendHeader([]byte("x"), h)[1:]
		if len(b) != HeaderSize {
			t.Fatalf("%d bytes", len(b))
		}
		if got, err := DecodeHeader(b); err != nil || got != h {
			t.Errorf("%+v became %+v, %v", h, got, err)
		}
	}
}

func TestHeaderRefused(t *testing.T) {
	put16, put32, put64 := binary.LittleEndian.PutUint16, binary.LittleEndian.PutUint32, binary.LittleEndian.PutUint64
	for name, c := range map[string]struct {
		change func([]byte)
		want   error
	}{
		"as it is":               {func([]byte) {}, nil},
		"newer writer":           {func(b []byte) { put16(b[10:], 2) }, nil},
		"compatible feature":     {func(b []byte) { put32(b[16:], 1) }, nil},
		"newer minimum reader":   {func(b []byte) { put16(b[12:], 2) }, ErrNewer},
		"incompatible feature":   {func(b []byte) { put32(b[20:], 1) }, ErrNewer},
		"clusters of 8 KiB":      {func(b []byte) { put32(b[64:], 8192) }, ErrNewer},
		"a TLog":                 {func(b []byte) { put16(b[8:], uint16(format.KindTLog)) }, ErrCorrupt},
		"no room":                {func(b []byte) { put32(b[68:], 2) }, ErrCorrupt},
		"larger than an index":   {func(b []byte) { put32(b[68:], MaxIndex+2) }, ErrCorrupt},
		"capacity all ones":      {func(b []byte) { put32(b[68:], 1<<32-1) }, ErrCorrupt},
		"number beyond 36 bits":  {func(b []byte) { put64(b[40:], uint64(MaxNumber)+1) }, ErrCorrupt},
		"largest number is fine": {func(b []byte) { put64(b[40:], uint64(MaxNumber)) }, nil},
	} {
		b := AppendHeader(nil, sampleHeader())
		c.change(b)
		if _, err := DecodeHeader(seal(b)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := DecodeHeader(AppendHeader(nil, sampleHeader())[:HeaderSize-1]); !errors.Is(err, ErrCorrupt) {
		t.Errorf("short: %v", err)
	}
}

func TestCommitRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 36, 4032, 4033, 20000} {
		c := sampleCommit()
		c.Entries = bytes.Repeat([]byte{7}, n)
		b := AppendCommit([]byte("x"), testIncarnation, c)[1:]
		if len(b) != CommitBlocks(n)*ClusterSize || !IsCommit(b) {
			t.Fatalf("%d bytes for %d of entries", len(b), n)
		}
		got, err := DecodeCommit(append(b, "behind"...), testIncarnation, c.Index)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%d bytes of entries: %+v, %v", n, got, err)
		}
	}
}

// Only the commit that was written here, in this life of the file, counts.
func TestCommitRefused(t *testing.T) {
	b := AppendCommit(nil, testIncarnation, sampleCommit())
	put32 := binary.LittleEndian.PutUint32
	for name, c := range map[string]struct {
		change      func([]byte) []byte
		incarnation uint64
		index       int
	}{
		"of another incarnation":    {bytes.Clone, testIncarnation + 1, 3},
		"of another block":          {bytes.Clone, testIncarnation, 4},
		"without magic":             {func(b []byte) []byte { b[0] = 'c'; return b }, testIncarnation, 3},
		"cut":                       {func(b []byte) []byte { return b[:ClusterSize-1] }, testIncarnation, 3},
		"empty":                     {func(b []byte) []byte { return nil }, testIncarnation, 3},
		"more entries than a block": {func(b []byte) []byte { put32(b[8:], ClusterSize-64+1); return b }, testIncarnation, 3},
		"endless entries":           {func(b []byte) []byte { put32(b[8:], 1<<32-1); return b }, testIncarnation, 3},
		"other length":              {func(b []byte) []byte { put32(b[8:], 0); return b }, testIncarnation, 3},
		"data":                      {func(b []byte) []byte { return make([]byte, ClusterSize) }, testIncarnation, 3},
	} {
		if _, err := DecodeCommit(c.change(bytes.Clone(b)), c.incarnation, c.index); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever a later release says in bytes that are zeros today, with a CRC that is
// right, is refused by name: one byte at a time.
func TestLaterFormsAreRefused(t *testing.T) {
	put := binary.LittleEndian.PutUint32
	for i := 48; i < commitHeader; i++ {
		c := sampleCommit()
		b := AppendCommit(nil, testIncarnation, c)
		b[i] = 1
		put(b[4:], format.SeededCRC(testIncarnation, b[8:commitHeader+len(c.Entries)]))
		if _, err := DecodeCommit(b, testIncarnation, c.Index); !errors.Is(err, ErrNewer) {
			t.Errorf("byte %d of a commit block: %v", i, err)
		}
	}
	object := sampleObject()
	for i := 64; i < 124; i++ {
		b := bytes.Clone(object[len(object)-TrailerSize:])
		b[i] = 0x80
		put(b[124:], format.SeededCRC(testIncarnation, b[:124]))
		got, err := DecodeTrailer(b, int64(len(object)))
		if !errors.Is(err, ErrNewer) || got.Incarnation != testIncarnation {
			t.Errorf("byte %d of a trailer: %v", i, err)
		}
	}
	for i := 88; i < 92; i++ {
		b := bytes.Clone(object[:HeaderSize])
		b[i] = 1
		put(b[92:], format.SeededCRC(testIncarnation, b[64:92]))
		if _, err := DecodeHeader(b); !errors.Is(err, ErrNewer) {
			t.Errorf("byte %d of the header: %v", i, err)
		}
	}
}

// readObject decodes all of a sealed SCO but its data.
func readObject(b []byte) (Header, Trailer, Blocks, error) {
	h, err := DecodeHeader(b)
	if err != nil {
		return h, Trailer{}, Blocks{}, err
	}
	tr, err := DecodeTrailer(b[len(b)-TrailerSize:], int64(len(b)))
	if err != nil {
		return h, tr, Blocks{}, err
	}
	f, err := tr.DecodeFooter(b[tr.FooterOffset():])
	return h, tr, f, err
}

func TestFooterRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{0, 1, 2, 198, 199, 200, 1000, Room(MaxIndex + 1)} {
		f := Blocks{Sums: make([]uint32, n), Addrs: make([]uint64, n), Seqs: make([]uint64, n)}
		data, low, high := 0, uint64(0), uint64(0)
		for i := range n {
			f.Addrs[i] = NoAddress
			if r.IntN(3) > 0 {
				f.Sums[i], f.Addrs[i], f.Seqs[i] = r.Uint32(), r.Uint64N(1<<50), uint64(i+1)
				data++
				high = max(high, f.Seqs[i])
				if low == 0 {
					low = f.Seqs[i]
				}
			}
		}
		h := sampleHeader()
		for _, first := range []int{n + 1, MaxIndex + 1 - FooterBlocks(n)} {
			b := AppendFooter(make([]byte, first*ClusterSize), h, f, n, first)
			if len(b)%ClusterSize != 0 || len(b) != (first+FooterBlocks(n))*ClusterSize {
				t.Fatalf("%d blocks: %d bytes", n, len(b))
			}
			tr, err := DecodeTrailer(b[len(b)-TrailerSize:], int64(len(b)))
			if err != nil || tr.Number != h.Number || tr.Incarnation != h.Incarnation || tr.Blocks != n || tr.First != first ||
				tr.Data != data || tr.LowSeq != low || tr.HighSeq != high || tr.Size() != int64(len(b)) || tr.FooterOffset() != int64(first)*ClusterSize {
				t.Fatalf("%d blocks at %d: %+v, %v", n, first, tr, err)
			}
			got, err := tr.DecodeFooter(b[tr.FooterOffset():])
			if err != nil || !reflect.DeepEqual(got, f) {
				t.Fatalf("%d blocks at %d: other columns, %v", n, first, err)
			}
			sums, err := tr.DecodeSums(b[tr.FooterOffset():][:4*n])
			if err != nil || !reflect.DeepEqual(sums, f.Sums) {
				t.Fatalf("%d blocks at %d: other sums, %v", n, first, err)
			}
		}
	}
}

func TestTrailerRefused(t *testing.T) {
	object := sampleObject()
	good := object[len(object)-TrailerSize:]
	put32 := binary.LittleEndian.PutUint32
	for name, c := range map[string]struct {
		change func([]byte)
		size   int64
		ok     bool
	}{
		"as it is":                {func([]byte) {}, 6 * ClusterSize, true},
		"no magic":                {func(b []byte) { b[7] = '2' }, 6 * ClusterSize, false},
		"file is longer":          {func([]byte) {}, 7 * ClusterSize, false},
		"file is shorter":         {func([]byte) {}, 5 * ClusterSize, false},
		"footer over the data":    {func(b []byte) { put32(b[28:], 4) }, 5 * ClusterSize, false},
		"footer over the header":  {func(b []byte) { put32(b[28:], 0) }, ClusterSize, false},
		"footer far out":          {func(b []byte) { put32(b[28:], MaxIndex+2) }, (MaxIndex + 3) * ClusterSize, false},
		"more blocks than can be": {func(b []byte) { put32(b[24:], MaxIndex+1); put32(b[28:], MaxIndex+2) }, int64(MaxIndex+2+FooterBlocks(MaxIndex+1)) * ClusterSize, false},
		"blocks all ones":         {func(b []byte) { put32(b[24:], 1<<32-1); put32(b[28:], 1<<32-1) }, 6 * ClusterSize, false},
	} {
		b := bytes.Clone(good)
		c.change(b)
		put32(b[124:], format.SeededCRC(testIncarnation, b[:124]))
		_, err := DecodeTrailer(b, c.size)
		if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int{0, TrailerSize - 1} {
		if _, err := DecodeTrailer(good[:n], 6*ClusterSize); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// Footer and sums of another SCO, or of an earlier life, do not pass.
func TestFooterRefused(t *testing.T) {
	b := sampleObject()
	_, tr, _, err := readObject(b)
	if err != nil {
		t.Fatal(err)
	}
	columns := b[tr.FooterOffset():]
	foreign := tr
	foreign.Incarnation++
	if _, err := foreign.DecodeFooter(columns); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "sco-123456789") {
		t.Errorf("of another incarnation: %v", err)
	}
	if _, err := tr.DecodeFooter(columns[:4*perBlock-1]); !errors.Is(err, ErrCorrupt) {
		t.Errorf("cut: %v", err)
	}
	for _, n := range []int{0, 15, 17} {
		if _, err := tr.DecodeSums(columns[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes of sums: %v", n, err)
		}
	}
}

// A flipped byte gives an error or, where it means nothing, the same value.
func TestDamage(t *testing.T) {
	b := sampleObject()
	h, tr, f, err := readObject(b)
	if err != nil || h != sampleHeader() || !reflect.DeepEqual(f, sampleBlocks()) {
		t.Fatalf("%+v %+v, %v", h, f, err)
	}
	harmless := 0
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x41
		h2, tr2, f2, err := readObject(bad)
		switch {
		case err != nil && !errors.Is(err, ErrCorrupt):
			t.Fatalf("byte %d: %v", i, err)
		case err == nil && (h2 != h || tr2 != tr || !reflect.DeepEqual(f2, f)):
			t.Fatalf("byte %d flipped gives another value", i)
		case err == nil:
			harmless++
		}
	}
	// Data has its sums; padding of header block and footer means nothing.
	if want := (HeaderSize - 96) + 4*ClusterSize + (ClusterSize - TrailerSize - 4*perBlock); harmless != want {
		t.Errorf("%d bytes may be flipped, not %d", harmless, want)
	}
	c := AppendCommit(nil, testIncarnation, sampleCommit())
	for i := range c {
		bad := bytes.Clone(c)
		bad[i] ^= 0x41
		got, err := DecodeCommit(bad, testIncarnation, 3)
		if i < commitHeader+len(sampleCommit().Entries) {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("commit, byte %d: %v", i, err)
			}
		} else if err != nil || !reflect.DeepEqual(got, sampleCommit()) {
			t.Fatalf("commit, byte %d of the padding: %+v, %v", i, got, err)
		}
	}
}

func TestSum(t *testing.T) {
	c := make([]byte, ClusterSize)
	if Sum(c) != 0x98f94189 || Sum([]byte("123456789")) != 0xe3069283 {
		t.Errorf("CRC-32C has changed: %08x", Sum(c))
	}
}

func headerFields() []golden.Field {
	return []golden.Field{
		{Size: 8, Name: "magic"}, {Size: 8, Name: "kind, version, minimum reader, zero"}, {Size: 8, Name: "features"}, {Size: 16, Name: "volume"},
		{Size: 8, Name: "number"}, {Size: 8, Name: "incarnation"}, {Size: 8, Name: "zero, header CRC"},
		{Size: 4, Name: "cluster size"}, {Size: 4, Name: "capacity"}, {Size: 8, Name: "epoch"}, {Size: 8, Name: "first seq"},
		{Size: 4, Name: "zero"}, {Size: 4, Name: "CRC of the 28 bytes before"}, {Size: HeaderSize - 96, Name: "zero"},
	}
}

// The golden files hold version 1. They are never edited: a later version
// adds files of its own.
func TestGolden(t *testing.T) {
	fields := append(headerFields(),
		golden.Field{Size: ClusterSize, Name: "block 1: cluster 1000, seq 41"}, golden.Field{Size: ClusterSize, Name: "block 2: cluster 1001, seq 41"},
		golden.Field{Size: ClusterSize, Name: "block 3: a commit block's place"}, golden.Field{Size: ClusterSize, Name: "block 4: cluster 7, seq 42"},
		golden.Field{Size: 16, Name: "footer: CRCs"}, golden.Field{Size: 32, Name: "addresses"}, golden.Field{Size: 32, Name: "seqs"},
		golden.Field{Size: ClusterSize - TrailerSize - 80, Name: "zero"},
		golden.Field{Size: 8, Name: "trailer: magic"}, golden.Field{Size: 8, Name: "number"}, golden.Field{Size: 8, Name: "incarnation"},
		golden.Field{Size: 4, Name: "blocks"}, golden.Field{Size: 4, Name: "first block of the footer"},
		golden.Field{Size: 12, Name: "CRCs of the columns"}, golden.Field{Size: 4, Name: "data clusters"},
		golden.Field{Size: 8, Name: "lowest seq"}, golden.Field{Size: 8, Name: "highest seq"}, golden.Field{Size: 60, Name: "zero"}, golden.Field{Size: 4, Name: "CRC"})
	b := golden.Check(t, "testdata/object-v1.hex", "SCO object, version 1: sampleObject() in sco_test.go", sampleObject(), fields...)
	h, tr, f, err := readObject(b)
	if err != nil || h != sampleHeader() || !reflect.DeepEqual(f, sampleBlocks()) || tr.Blocks != 4 || tr.Data != 3 || tr.LowSeq != 41 || tr.HighSeq != 42 {
		t.Errorf("version 1 of an object does not open: %+v %+v %+v, %v", h, tr, f, err)
	}
	b = golden.Check(t, "testdata/commit-v1.hex", "commit block, version 1: sampleCommit() in sco_test.go",
		AppendCommit(nil, testIncarnation, sampleCommit()),
		golden.Field{Size: 4, Name: "magic"}, golden.Field{Size: 4, Name: "CRC"}, golden.Field{Size: 4, Name: "length of the entries"},
		golden.Field{Size: 4, Name: "index"}, golden.Field{Size: 8, Name: "round"}, golden.Field{Size: 8, Name: "first seq"},
		golden.Field{Size: 8, Name: "seq"}, golden.Field{Size: 8, Name: "durable"}, golden.Field{Size: 16, Name: "zero"},
		golden.Field{Size: len(sampleCommit().Entries), Name: "entries"},
		golden.Field{Size: ClusterSize - 64 - len(sampleCommit().Entries), Name: "zero"})
	if c, err := DecodeCommit(b, testIncarnation, 3); err != nil || !reflect.DeepEqual(c, sampleCommit()) {
		t.Errorf("version 1 of a commit does not open: %+v, %v", c, err)
	}
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add(AppendHeader(nil, sampleHeader())[:96], true)
	f.Add([]byte("OVSTORE1"), false)
	f.Fuzz(func(t *testing.T, b []byte, fit bool) {
		if fit && len(b) >= 96 {
			b = seal(append(bytes.Clone(b), make([]byte, max(0, HeaderSize-len(b)))...))
		}
		h, err := DecodeHeader(b)
		if err != nil {
			checkKind(t, err)
			return
		}
		if got, err := DecodeHeader(AppendHeader(nil, h)); err != nil || got != h {
			t.Fatalf("%+v became %+v, %v", h, got, err)
		}
	})
}

func FuzzDecodeCommit(f *testing.F) {
	f.Add(AppendCommit(nil, testIncarnation, sampleCommit())[:128], true)
	f.Add([]byte("CMT1"), false)
	f.Fuzz(func(t *testing.T, b []byte, fit bool) {
		index := 0
		if fit {
			b = append(bytes.Clone(b), make([]byte, ClusterSize)...)
			copy(b, commitMagic)
			n := binary.LittleEndian.Uint32(b[8:])
			if int64(n) <= int64(len(b)-commitHeader) {
				binary.LittleEndian.PutUint32(b[4:], format.SeededCRC(testIncarnation, b[8:commitHeader+n]))
			}
			index = int(binary.LittleEndian.Uint32(b[12:]))
		}
		c, err := DecodeCommit(b, testIncarnation, index)
		if err != nil {
			checkKind(t, err)
			return
		}
		got, err := DecodeCommit(AppendCommit(nil, testIncarnation, c), testIncarnation, index)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("%+v became %+v, %v", c, got, err)
		}
	})
}

func FuzzDecodeTrailer(f *testing.F) {
	b := sampleObject()
	f.Add(b[len(b)-TrailerSize:], int64(len(b)), true)
	f.Add([]byte("SCOTAIL1"), int64(ClusterSize), false)
	f.Fuzz(func(t *testing.T, b []byte, size int64, fit bool) {
		if fit {
			b = append(bytes.Clone(b), make([]byte, TrailerSize)...)[:TrailerSize]
			copy(b, trailerMagic)
			binary.LittleEndian.PutUint32(b[124:], format.SeededCRC(binary.LittleEndian.Uint64(b[16:]), b[:124]))
		}
		tr, err := DecodeTrailer(b, size)
		if err != nil {
			checkKind(t, err)
			return
		}
		if tr.Blocks < 0 || tr.Blocks > MaxIndex || tr.FooterOffset() < ClusterSize || tr.Size() != size {
			t.Fatalf("accepted %+v in %d bytes", tr, size)
		}
	})
}

func FuzzDecodeFooter(f *testing.F) {
	b := sampleObject()
	f.Add(b[5*ClusterSize:][:80])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, columns []byte) {
		n := min(len(columns)/perBlock, MaxIndex)
		tr := Trailer{
			Number: 1, Incarnation: testIncarnation, Blocks: n, First: n + 1,
			sums:  format.SeededCRC(testIncarnation, columns[:4*n]),
			addrs: format.SeededCRC(testIncarnation, columns[4*n:12*n]),
			seqs:  format.SeededCRC(testIncarnation, columns[12*n:20*n]),
		}
		f, err := tr.DecodeFooter(columns)
		if err != nil {
			t.Fatalf("columns with CRCs that fit: %v", err)
		}
		again := AppendFooter(nil, Header{Number: 1, Incarnation: testIncarnation}, f, n, n+1)
		if !bytes.Equal(again[:20*n], columns[:20*n]) {
			t.Fatal("other columns")
		}
	})
}

func checkKind(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
		t.Fatalf("an error of no kind: %v", err)
	}
}
