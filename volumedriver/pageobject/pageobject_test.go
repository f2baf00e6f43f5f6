package pageobject

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"

	"github.com/google/uuid"
)

const testIncarnation = 0x1112131415161718

var testVolume = uuid.MustParse("6ba7b810-9dad-41d1-80b4-00c04fd430c8")

type page struct {
	number uint64
	data   string
}

func samplePages() []page {
	return []page{{3, "page three"}, {4, ""}, {1 << 40, "the page with a large number"}}
}

func build(pages []page) []byte {
	var b Builder
	for _, p := range pages {
		b.Add(p.number, []byte(p.data))
	}
	return b.Object(testVolume, 7, testIncarnation)
}

// read takes an object apart as its users do: header, index, pages.
func read(b []byte) (Header, []page, error) {
	h, err := DecodeHeader(b, testVolume)
	if err != nil {
		return h, nil, err
	}
	if len(b)-HeaderSize < h.IndexSize() {
		return h, nil, fmt.Errorf("%w: cut", format.ErrCorrupt)
	}
	entries, err := h.DecodeIndex(b[HeaderSize:][:h.IndexSize()])
	if err != nil {
		return h, nil, err
	}
	var pages []page
	for _, e := range entries {
		if e.Offset+int64(e.Length) > int64(len(b)) {
			return h, nil, fmt.Errorf("%w: page %d ends at %d of %d bytes", format.ErrCorrupt, e.Page, e.Offset+int64(e.Length), len(b))
		}
		pages = append(pages, page{e.Page, string(b[e.Offset:][:e.Length])})
	}
	return h, pages, nil
}

func TestRoundTrip(t *testing.T) {
	many := make([]page, 1000)
	for i := range many {
		many[i] = page{uint64(i * i), strings.Repeat("x", i%70)}
	}
	for _, pages := range [][]page{nil, {{0, ""}}, samplePages(), many} {
		var b Builder
		for _, p := range pages {
			b.Add(p.number, []byte(p.data))
		}
		object := b.Object(testVolume, 7, testIncarnation)
		if b.Len() != len(pages) || b.Size() != len(object) {
			t.Errorf("%d pages in %d bytes, told %d in %d", len(pages), len(object), b.Len(), b.Size())
		}
		h, got, err := read(object)
		if err != nil || h.Number != 7 || h.Incarnation != testIncarnation || h.Pages != len(pages) || !slices.Equal(got, pages) {
			t.Errorf("%d pages: %+v, %d pages, %v", len(pages), h, len(got), err)
		}
		if again := b.Object(testVolume, 7, testIncarnation); !bytes.Equal(again, object) {
			t.Error("a second call gives other bytes")
		}
	}
}

func TestPagesAreCopied(t *testing.T) {
	var b Builder
	p := []byte("page")
	b.Add(1, p)
	copy(p, "lost")
	if _, pages, err := read(b.Object(testVolume, 7, 1)); err != nil || pages[0].data != "page" {
		t.Errorf("%v, %v", pages, err)
	}
}

func TestNumbersMustAscend(t *testing.T) {
	for _, second := range []uint64{0, 4, 5} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("page %d after page 5", second)
				}
			}()
			var b Builder
			b.Add(5, nil)
			b.Add(second, nil)
		}()
	}
}

func TestFind(t *testing.T) {
	h, _, _ := read(build(samplePages()))
	entries, err := h.DecodeIndex(build(samplePages())[HeaderSize:][:h.IndexSize()])
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint64{0, 2, 3, 4, 5, 1<<40 - 1, 1 << 40, 1<<40 + 1, 1<<64 - 1} {
		want := slices.IndexFunc(samplePages(), func(p page) bool { return p.number == n })
		e, ok := Find(entries, n)
		if ok != (want >= 0) || ok && e != entries[want] {
			t.Errorf("page %d: %+v, %v", n, e, ok)
		}
	}
	if _, ok := Find(nil, 0); ok {
		t.Error("a page in nothing")
	}
}

func TestName(t *testing.T) {
	if got := Name(0xabc); got != "pages-000000000abc" {
		t.Error(got)
	}
}

func seal(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[60:], format.CRC(b[:60]))
	binary.LittleEndian.PutUint32(b[124:], format.SeededCRC(binary.LittleEndian.Uint64(b[48:]), b[64:124]))
	return b
}

func TestRefused(t *testing.T) {
	put16, put32 := binary.LittleEndian.PutUint16, binary.LittleEndian.PutUint32
	for name, c := range map[string]struct {
		change func([]byte)
		want   error
	}{
		"as it is":              {func([]byte) {}, nil},
		"newer writer":          {func(b []byte) { put16(b[10:], 2) }, nil},
		"compatible feature":    {func(b []byte) { put32(b[16:], 1) }, nil},
		"newer minimum reader":  {func(b []byte) { put16(b[12:], 2) }, format.ErrNewer},
		"incompatible feature":  {func(b []byte) { put32(b[20:], 1) }, format.ErrNewer},
		"a TLog":                {func(b []byte) { put16(b[8:], uint16(format.KindTLog)) }, format.ErrCorrupt},
		"of another vDisk":      {func(b []byte) { b[24]++ }, format.ErrCorrupt},
		"too many pages":        {func(b []byte) { put32(b[64:], SizeMax+1) }, format.ErrCorrupt},
		"endless pages":         {func(b []byte) { put32(b[64:], 1<<32-1) }, format.ErrCorrupt},
		"a page too few":        {func(b []byte) { put32(b[64:], 2) }, format.ErrCorrupt},
		"a page too many":       {func(b []byte) { put32(b[64:], 4) }, format.ErrCorrupt},
		"another index":         {func(b []byte) { b[HeaderSize]++ }, format.ErrCorrupt},
		"index of another life": {func(b []byte) { binary.LittleEndian.PutUint64(b[48:], testIncarnation+1) }, format.ErrCorrupt},
	} {
		b := build(samplePages())
		c.change(b)
		if _, _, err := read(seal(b)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A flipped byte of header or index is found here. One of a page is found by
// the page's own CRC: all others stay what they were.
func TestDamage(t *testing.T) {
	b := build(samplePages())
	_, want, err := read(b)
	if err != nil {
		t.Fatal(err)
	}
	body := HeaderSize + 3*indexEntry
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x41
		_, got, err := read(bad)
		if i < body {
			if !errors.Is(err, format.ErrCorrupt) {
				t.Errorf("byte %d: %v", i, err)
			}
			continue
		}
		differ := 0
		for k := range want {
			if got[k] != want[k] {
				differ++
			}
		}
		if err != nil || differ != 1 {
			t.Errorf("byte %d: %d pages differ, %v", i, differ, err)
		}
	}
	for n := range body {
		if _, _, err := read(b[:n]); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

// The golden file holds version 1. It is never edited: a later version adds a
// file of its own.
func TestGolden(t *testing.T) {
	fields := []golden.Field{
		{Size: 8, Name: "magic"}, {Size: 8, Name: "kind, version, minimum reader, zero"}, {Size: 8, Name: "features"}, {Size: 16, Name: "volume"},
		{Size: 8, Name: "number"}, {Size: 8, Name: "incarnation"}, {Size: 8, Name: "zero, header CRC"},
		{Size: 4, Name: "pages"}, {Size: 4, Name: "CRC of the index"}, {Size: 52, Name: "zero"}, {Size: 4, Name: "CRC of the 60 bytes before"},
	}
	for range samplePages() {
		fields = append(fields, golden.Field{Size: 8, Name: "index: page"}, golden.Field{Size: 4, Name: "offset"}, golden.Field{Size: 4, Name: "length"})
	}
	for _, p := range samplePages() {
		fields = append(fields, golden.Field{Size: len(p.data), Name: fmt.Sprintf("page %d", p.number)})
	}
	b := golden.Check(t, "testdata/pages-v1.hex", "map pages, version 1: samplePages() in pageobject_test.go", build(samplePages()), fields...)
	if h, pages, err := read(b); err != nil || h.Number != 7 || !slices.Equal(pages, samplePages()) {
		t.Errorf("version 1 does not open: %+v, %v, %v", h, pages, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(build(samplePages()), true)
	f.Add(build(nil), true)
	f.Add([]byte("OVSTORE1"), false)
	f.Fuzz(func(t *testing.T, b []byte, fit bool) {
		if fit && len(b) >= HeaderSize {
			b = bytes.Clone(b)
			copy(b[24:], testVolume[:])
			size := min(uint64(binary.LittleEndian.Uint32(b[64:]))*indexEntry, uint64(len(b)-HeaderSize))
			binary.LittleEndian.PutUint32(b[68:], format.SeededCRC(binary.LittleEndian.Uint64(b[48:]), b[HeaderSize:][:size]))
			b = seal(b)
		}
		h, pages, err := read(b)
		if err != nil {
			if !errors.Is(err, format.ErrCorrupt) && !errors.Is(err, format.ErrNewer) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if len(pages) != h.Pages {
			t.Fatalf("%d of %d pages", len(pages), h.Pages)
		}
	})
}
