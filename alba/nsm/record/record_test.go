package record_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"

	"openvstorage/alba/nsm/record"
)

type sample struct {
	A uint8
	B uint16
	C uint32
	D uint64
	E bool
	F [16]byte
	G [32]byte
	H []byte
	I string
	J []string
	K []inner
	T int64
}

type inner struct{ X uint16 }

func (i *inner) Fields(c *record.Codec) { c.U16(&i.X) }

func (s *sample) Fields(c *record.Codec) {
	c.U8(&s.A)
	c.U16(&s.B)
	c.U32(&s.C)
	c.U64(&s.D)
	c.Bool(&s.E)
	c.ID(&s.F)
	c.Hash(&s.G)
	c.Bytes(&s.H, 8)
	c.String(&s.I, 8)
	record.Strings(c, &s.J, 3, 4)
	record.Records(c, &s.K, 3)
	c.Time(&s.T)
}

var full = sample{
	A: 1, B: 0x0203, C: 0x04050607, D: 0x08090a0b0c0d0e0f, E: true, F: [16]byte{16}, G: [32]byte{32},
	H: []byte{7, 8}, I: "name", J: []string{"a", "bc"}, K: []inner{{1}, {2}}, T: -1,
}

// The byte table of the package comment, in bytes.
const golden = "01" + "01" + "0302" + "07060504" + "0f0e0d0c0b0a0908" + "01" +
	"10000000000000000000000000000000" + "2000000000000000000000000000000000000000000000000000000000000000" +
	"020000000708" + "040000006e616d65" + "02000000" + "0100000061" + "020000006263" +
	"02000000" + "0100" + "0200" + "ffffffffffffffff"

func TestBytes(t *testing.T) {
	b, err := record.Encode(1, &full)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b); got != golden {
		t.Fatalf("encoded as\n%s, not\n%s", got, golden)
	}
	var back sample
	if err := record.Decode(b, 1, &back); err != nil || !reflect.DeepEqual(back, full) {
		t.Fatalf("decoded as %+v, %v", back, err)
	}
}

func TestRefuses(t *testing.T) {
	whole, _ := hex.DecodeString(golden)
	for i := range whole {
		var s sample
		if err := record.Decode(whole[:i], 1, &s); !errors.Is(err, record.ErrCorrupt) {
			t.Errorf("first %d bytes: %v", i, err)
		}
	}
	for _, c := range []struct {
		name string
		at   int
		b    byte
		want error
	}{
		{"newer", 0, 2, record.ErrNewer},
		{"version 0", 0, 0, record.ErrCorrupt},
		{"bool", 16, 2, record.ErrCorrupt},
		{"long bytes", 65, 9, record.ErrCorrupt},
		{"huge bytes", 68, 0xff, record.ErrCorrupt},
	} {
		b := bytes.Clone(whole)
		b[c.at] = c.b
		var s sample
		if err := record.Decode(b, 1, &s); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	var s sample
	if err := record.Decode(append(bytes.Clone(whole), 0), 1, &s); !errors.Is(err, record.ErrCorrupt) {
		t.Errorf("a byte more: %v", err)
	}
	for _, long := range []sample{{H: make([]byte, 9)}, {I: "too long!"}, {J: make([]string, 4)}, {J: []string{"abcde"}}, {K: make([]inner, 4)}} {
		if _, err := record.Encode(1, &long); !errors.Is(err, record.ErrTooLarge) {
			t.Errorf("%+v: %v", long, err)
		}
	}
}

// grown is a record that got a field in version 2, and an Enum.
type grown struct {
	Kind uint8
	Late string
}

func (g *grown) Fields(c *record.Codec) {
	c.Enum(&g.Kind, 1, 3, "kind")
	if c.Version() >= 2 {
		c.String(&g.Late, 8)
	}
}

func (g *grown) Newest() uint8 { return 2 }

func (g *grown) Needs() uint8 {
	if g.Late != "" {
		return 2
	}
	return 1
}

// Each type has its own versions: all of them are read, and the oldest that has
// room is written.
func TestVersions(t *testing.T) {
	for want, g := range map[string]grown{"0102": {Kind: 2}, "0203010000006c": {Kind: 3, Late: "l"}} {
		b, err := record.Encode(record.Needs(&g), &g)
		if err != nil || hex.EncodeToString(b) != want {
			t.Errorf("%+v: %x, %v", g, b, err)
		}
		var back grown
		if err := record.Decode(b, record.Newest(&back), &back); err != nil || back != g {
			t.Errorf("%s: %+v, %v", want, back, err)
		}
	}
	for in, want := range map[string]error{
		"0302": record.ErrNewer, "0002": record.ErrCorrupt, "0104": record.ErrNewer, "0100": record.ErrCorrupt, "01ff": record.ErrNewer,
		"020200000000":     record.ErrCorrupt, // version 1 has room for it
		"0203010000006c00": record.ErrCorrupt, "0102010000006c": record.ErrCorrupt, "": record.ErrCorrupt, "02": record.ErrCorrupt,
	} {
		b, _ := hex.DecodeString(in)
		var g grown
		if err := record.Decode(b, record.Newest(&g), &g); !errors.Is(err, want) {
			t.Errorf("%s: %v", in, err)
		}
	}
	if record.Needs(&full) != 1 || record.Newest(&full) != 1 {
		t.Error("a type without versions is not of version 1")
	}
}

func FuzzDecode(f *testing.F) {
	whole, _ := hex.DecodeString(golden)
	f.Add(whole)
	f.Fuzz(func(t *testing.T, b []byte) {
		var s sample
		if record.Decode(b, 1, &s) != nil {
			return
		}
		back, err := record.Encode(1, &s)
		if err != nil || !bytes.Equal(back, b) {
			t.Fatalf("%x decodes and encodes as %x, %v", b, back, err)
		}
	})
}
