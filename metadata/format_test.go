package metadata

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"openvstorage/internal/format"
	"openvstorage/sco"

	"github.com/google/uuid"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/v1.hex if it is absent")

var testOwner = uuid.UUID{0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// golden holds one run of each stride, zeros between, and one word.
func golden() (PageHeader, [fanout]uint64) {
	var w [fanout]uint64
	for i := range 100 {
		w[3+i] = uint64(sco.At(2, 77, 5+i))
	}
	fill(w[200:300], uint64(sco.Zero))
	w[511] = uint64(RefTo(1, 9))
	return PageHeader{Kind: TreeMap, Level: 0, Birth: 4, Seq: 1234567}, w
}

func TestPageGolden(t *testing.T) {
	h, w := golden()
	got := AppendPage(nil, testOwner, 42, h, &w)
	if _, err := os.Stat("testdata/v1.hex"); *rewrite && err != nil {
		if err := os.WriteFile("testdata/v1.hex", []byte(hex.Dump(got)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/v1.hex")
	if err != nil {
		t.Fatal(err)
	}
	if hex.Dump(got) != string(want) {
		t.Fatalf("encoded page changed:\n%s", hex.Dump(got))
	}
	var back [fanout]uint64
	gh, err := DecodePage(undump(t, string(want)), testOwner, 42, &back)
	if err != nil || gh != h || back != w {
		t.Fatalf("decoded %+v, %v", gh, err)
	}
}

func undump(t *testing.T, s string) []byte {
	var out []byte
	for line := range strings.Lines(s) {
		if len(line) < 60 {
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(line[10:58], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b...)
	}
	return out
}

func TestPageOfAnotherIsRefused(t *testing.T) {
	h, w := golden()
	b := AppendPage(nil, testOwner, 42, h, &w)
	other := testOwner
	other[3]++
	for name, err := range map[string]error{
		"number": CheckPage(b, testOwner, 43),
		"owner":  CheckPage(b, other, 42),
		"short":  CheckPage(b[:70], testOwner, 42),
		"cut":    CheckPage(b[:len(b)-1], testOwner, 42),
		"empty":  CheckPage(nil, testOwner, 42),
	} {
		if !errors.Is(err, ErrPageCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 0x10
		if CheckPage(c, testOwner, 42) == nil {
			t.Errorf("flipped bit in byte %d passes", i)
		}
	}
	newer := format.AppendHeader(nil, format.Header{Kind: format.KindPage, Version: 2, MinReader: 2, Owner: testOwner, Number: 42})
	if err := CheckPage(append(newer, make([]byte, 30)...), testOwner, 42); !errors.Is(err, format.ErrNewer) {
		t.Errorf("newer page: %v", err)
	}
}

func TestPageSizeIsBounded(t *testing.T) {
	var w [fanout]uint64
	for i := range w {
		w[i] = uint64(sco.At(0, sco.Number(i*7%509+1), i*31%1000+1))
	}
	b := AppendPage(nil, testOwner, 1, PageHeader{Birth: 1}, &w)
	if len(b) != MaxPageSize {
		t.Errorf("%d bytes, not %d", len(b), MaxPageSize)
	}
	var back [fanout]uint64
	if _, err := DecodePage(b, testOwner, 1, &back); err != nil || back != w {
		t.Errorf("%v", err)
	}
}

func FuzzPageRoundTrip(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint64(1), uint64(2), uint8(0))
	f.Add(bytes.Repeat([]byte{0, 0, 1, 0x80}, 300), uint64(9), uint64(2), uint8(3))
	f.Fuzz(func(t *testing.T, ops []byte, number, birth uint64, level uint8) {
		// Each four bytes are a run: where, how long, which word, which stride.
		var w [fanout]uint64
		for ; len(ops) >= 4; ops = ops[4:] {
			i := int(ops[0])<<1 | int(ops[3]&1)
			word := uint64(ops[3]>>6)<<62 | uint64(ops[2])
			if word>>62 == badWordKind {
				word = 0
			}
			for n := int(ops[1]); n > 0 && i < fanout; n-- {
				w[i] = word
				word += uint64(ops[3] >> 1 & 1)
				i++
			}
		}
		h := PageHeader{Kind: TreeLive, Level: level % maxLevels, Birth: birth, Seq: number ^ birth}
		b := AppendPage([]byte("x"), testOwner, number, h, &w)[1:]
		var back [fanout]uint64
		got, err := DecodePage(b, testOwner, number, &back)
		if err != nil || got != h || back != w {
			t.Fatalf("%+v became %+v, %v", h, got, err)
		}
		if CheckPage(b, testOwner, number+1) == nil {
			t.Fatal("passes for another page")
		}
	})
}

// FuzzPageDecode gives the decoder bodies whose checksums are right.
func FuzzPageDecode(f *testing.F) {
	h, w := golden()
	f.Add(AppendPage(nil, testOwner, 42, h, &w)[format.HeaderSize:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		b := format.AppendHeader(nil, format.Header{Kind: format.KindPage, Version: 1, MinReader: 1, Owner: testOwner, Number: 42, Incarnation: 4})
		b = append(b, body...)
		b = binary.LittleEndian.AppendUint32(b, format.SeededCRC(4, b))
		var words, again [fanout]uint64
		got, err := DecodePage(b, testOwner, 42, &words)
		if err != nil {
			if !errors.Is(err, ErrPageCorrupt) {
				t.Fatal(err)
			}
			return
		}
		c := AppendPage(nil, testOwner, 42, got, &words)
		if _, err := DecodePage(c, testOwner, 42, &again); err != nil || again != words {
			t.Fatalf("decoded page does not come back: %v", err)
		}
	})
}

func TestPageSet(t *testing.T) {
	var s PageSet
	in := map[uint64]bool{}
	for _, n := range []uint64{0, 1, 63, 64, 4095, 4096, 4097, 9000, 1 << 40} {
		s.Add(n)
		s.Add(n)
		in[n] = true
	}
	if s.Len() != uint64(len(in)) {
		t.Errorf("Len %d", s.Len())
	}
	edges := []uint64{0, 1, 2, 62, 63, 64, 65, 4094, 4096, 4098, 8999, 9001, 20000}
	for _, a := range edges {
		for _, b := range edges {
			want := uint64(0)
			for n := range in {
				if a <= n && n < b {
					want++
				}
			}
			if got := s.Count(a, b); got != want {
				t.Errorf("Count(%d, %d) = %d, not %d", a, b, got, want)
			}
		}
	}
	if !s.Has(9000) || s.Has(9001) || s.Count(1<<40-5, 1<<40+1) != 1 {
		t.Error("Has")
	}
}
