package format_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"

	"github.com/google/uuid"
)

func sample() format.Header {
	return format.Header{
		Kind: format.KindTLog, Version: 3, MinReader: 2, Compatible: 0x80000001, Incompatible: 4,
		Owner:  uuid.MustParse("6ba7b810-9dad-41d1-80b4-00c04fd430c8"),
		Number: 0x0102030405060708, Incarnation: 0x1112131415161718,
	}
}

func TestRoundTrip(t *testing.T) {
	for _, h := range []format.Header{{}, sample(), {Kind: 0xffff, Version: 0xffff, Number: 1<<64 - 1, Incarnation: 1<<64 - 1}} {
		b := format.AppendHeader([]byte("before"), h)[6:]
		if len(b) != format.HeaderSize {
			t.Fatalf("%d bytes", len(b))
		}
		got, err := format.Peek(append(b, "behind"...))
		if err != nil || got != h {
			t.Errorf("%+v became %+v, %v", h, got, err)
		}
	}
}

func TestGolden(t *testing.T) {
	b := golden.Check(t, "testdata/header-v1.hex", "common header, version 1: sample() in format_test.go", format.AppendHeader(nil, sample()),
		golden.Field{Size: 8, Name: "magic"}, golden.Field{Size: 2, Name: "kind"}, golden.Field{Size: 2, Name: "version"},
		golden.Field{Size: 2, Name: "minimum reader"}, golden.Field{Size: 2, Name: "zero"},
		golden.Field{Size: 4, Name: "compatible features"}, golden.Field{Size: 4, Name: "incompatible features"},
		golden.Field{Size: 16, Name: "owner"}, golden.Field{Size: 8, Name: "number"}, golden.Field{Size: 8, Name: "incarnation"},
		golden.Field{Size: 4, Name: "zero"}, golden.Field{Size: 4, Name: "CRC"})
	if h, err := format.DecodeHeader(b, format.KindTLog, 2, 4); err != nil || h != sample() {
		t.Errorf("version 1 does not open: %+v, %v", h, err)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(*format.Header)
		version  uint16
		features uint32
		want     error
		says     string
	}{
		{"as it is", func(*format.Header) {}, 2, 4, nil, ""},
		{"newer writer that we can read", func(h *format.Header) { h.Version = 9 }, 2, 4, nil, ""},
		{"unknown compatible feature", func(h *format.Header) { h.Compatible = ^uint32(0) }, 2, 4, nil, ""},
		{"newer minimum reader", func(*format.Header) {}, 1, 4, format.ErrNewer, "TLog format 2, this release reads up to 1"},
		{"unknown incompatible feature", func(h *format.Header) { h.Incompatible = 0x14 }, 2, 4, format.ErrNewer, "TLog with features 0x10"},
		{"foreign kind", func(h *format.Header) { h.Kind = format.KindSCO }, 2, 4, format.ErrCorrupt, "it is a SCO, not a TLog"},
		{"unknown kind", func(h *format.Header) { h.Kind = 77 }, 2, 4, format.ErrCorrupt, "it is a kind 77, not a TLog"},
	} {
		h := sample()
		c.change(&h)
		_, err := format.DecodeHeader(format.AppendHeader(nil, h), format.KindTLog, c.version, c.features)
		if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// No header with a flipped bit or a missing end is accepted.
func TestDamage(t *testing.T) {
	b := format.AppendHeader(nil, sample())
	for i := range b {
		for bit := range 8 {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << bit
			if _, err := format.Peek(bad); !errors.Is(err, format.ErrCorrupt) {
				t.Errorf("bit %d of byte %d flipped: %v", bit, i, err)
			}
		}
		if _, err := format.Peek(b[:i]); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

func TestKindNames(t *testing.T) {
	seen := map[string]bool{}
	for k := format.KindSCO; k <= format.KindBackup; k++ {
		name := k.String()
		if name == "" || strings.HasPrefix(name, "kind ") || seen[name] {
			t.Errorf("kind %d is %q", k, name)
		}
		seen[name] = true
	}
	if format.Kind(0).String() != "kind 0" || format.Kind(200).String() != "kind 200" {
		t.Error("unknown kinds")
	}
}

// The CRC of another incarnation does not fit, whatever bytes it covers, nor if it
// covers none.
func TestSeededCRC(t *testing.T) {
	for _, p := range [][]byte{nil, {0}, make([]byte, 4096), []byte("some bytes")} {
		seen := map[uint32]uint64{}
		for i := range uint64(2000) {
			incarnation := i * 0x9e3779b97f4a7c15
			crc := format.SeededCRC(incarnation, p)
			if old, ok := seen[crc]; ok {
				t.Errorf("incarnations %#x and %#x give %08x", old, incarnation, crc)
			}
			seen[crc] = incarnation
			var seed [8]byte
			binary.LittleEndian.PutUint64(seed[:], incarnation)
			if want := format.CRC(append(seed[:], p...)); crc != want {
				t.Errorf("%08x, not %08x", crc, want)
			}
		}
	}
	if got := format.CRC([]byte("123456789")); got != 0xe3069283 {
		t.Errorf("CRC-32C check value is %08x", got)
	}
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add(format.AppendHeader(nil, sample()), uint16(3), uint32(4))
	f.Add(format.AppendHeader(nil, format.Header{}), uint16(0), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, version uint16, features uint32) {
		if len(b) >= format.HeaderSize { // let most of them pass the CRC
			binary.LittleEndian.PutUint32(b[60:], format.CRC(b[:60]))
			copy(b, format.Magic)
		}
		h, err := format.DecodeHeader(b, format.KindTLog, version, features)
		if err != nil {
			if !errors.Is(err, format.ErrCorrupt) && !errors.Is(err, format.ErrNewer) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if h.MinReader > version || h.Incompatible&^features != 0 || h.Kind != format.KindTLog {
			t.Fatalf("accepted %+v", h)
		}
		again, err := format.Peek(format.AppendHeader(nil, h))
		if err != nil || again != h {
			t.Fatalf("%+v became %+v, %v", h, again, err)
		}
	})
}

// A file that its reader rewrites is refused if the reader would lose anything of it.
func TestRewritten(t *testing.T) {
	known := sample()
	known.Version, known.Compatible = 2, 0
	if h, err := format.DecodeRewritten(format.AppendHeader(nil, known), format.KindTLog, 2, 4); err != nil || h != known {
		t.Fatalf("%+v, %v", h, err)
	}
	for name, c := range map[string]struct {
		change func(h *format.Header)
		at     int // of a byte that is not zero, 0: none
		want   error
	}{
		"newer writer that we can read": {func(h *format.Header) { h.Version = 3 }, 0, format.ErrNewer},
		"minimum reader":                {func(h *format.Header) { h.MinReader = 3 }, 0, format.ErrNewer},
		"compatible feature":            {func(h *format.Header) { h.Compatible = 1 << 31 }, 0, format.ErrNewer},
		"incompatible feature":          {func(h *format.Header) { h.Incompatible |= 8 }, 0, format.ErrNewer},
		"first zeros":                   {func(*format.Header) {}, 14, format.ErrNewer},
		"last zeros":                    {func(*format.Header) {}, 59, format.ErrNewer},
		"no version":                    {func(h *format.Header) { h.Version, h.MinReader = 0, 0 }, 0, format.ErrCorrupt},
		"another kind":                  {func(h *format.Header) { h.Kind = format.KindSCO }, 0, format.ErrCorrupt},
	} {
		h := known
		c.change(&h)
		b := format.AppendHeader(nil, h)
		if c.at > 0 {
			b[c.at] = 1
			binary.LittleEndian.PutUint32(b[60:], format.CRC(b[:60]))
		}
		if _, err := format.DecodeRewritten(b, format.KindTLog, 2, 4); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", name, err, c.want)
		}
	}
}
