package genl_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"openvstorage/blockdev/genl"
)

// littleEndian skips a test of bytes on machines of the other order.
func littleEndian(t testing.TB) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes are those of a little-endian machine")
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The bytes of a message: "nlctrl" is asked for the family "nbd".
func TestMessageBytes(t *testing.T) {
	littleEndian(t)
	m := genl.Message{Type: 16, Flags: 5, Seq: 7, Port: 9, Command: 3, Version: 1, Attrs: genl.AppendString(nil, 2, "nbd")}
	want := unhex(t, `
		1c000000 1000 0500 07000000 09000000
		03 01 0000
		0800 0200 6e626400`)
	if got := genl.Append(nil, m); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	got, rest, err := genl.Decode(append(want, 1, 2, 3))
	if err != nil || !reflect.DeepEqual(got, m) || len(rest) != 3 {
		t.Errorf("decoded %+v, rest %x, %v", got, rest, err)
	}
}

func TestAttrBytes(t *testing.T) {
	littleEndian(t)
	for _, c := range []struct {
		what string
		got  []byte
		want string
	}{
		{"1 byte", genl.AppendUint8(nil, 1, 0xab), "0500 0100 ab000000"},
		{"2 bytes", genl.AppendUint16(nil, 2, 0xabcd), "0600 0200 cdab0000"},
		{"4 bytes", genl.AppendUint32(nil, 3, 0x01020304), "0800 0300 04030201"},
		{"8 bytes", genl.AppendUint64(nil, 4, 1<<40), "0c00 0400 00000000 00010000"},
		{"text", genl.AppendString(nil, 10, "ovs:x"), "0a00 0a00 6f76733a 7800 0000"},
		{"empty text", genl.AppendString(nil, 10, ""), "0500 0a00 00000000"},
		{"nested", genl.AppendNested(nil, 7, genl.AppendUint32(nil, 1, 5)), "0c00 0780 0800 0100 05000000"},
	} {
		if want := unhex(t, c.want); !bytes.Equal(c.got, want) {
			t.Errorf("%s: got %x, want %x", c.what, c.got, want)
		}
	}
	// Read back.
	b := genl.AppendNested(genl.AppendString(genl.AppendUint8(nil, 1, 3), 2, "web"), 7, genl.AppendUint32(nil, 1, 5))
	attrs, err := genl.Attrs(b)
	if err != nil || len(attrs) != 3 || attrs[1].String() != "web" || attrs[2].Type != 7 {
		t.Fatalf("%+v, %v", attrs, err)
	}
	if v, err := attrs[0].Uint8(); v != 3 || err != nil {
		t.Error(v, err)
	}
	if _, err := attrs[0].Uint32(); !errors.Is(err, genl.ErrMalformed) {
		t.Error(err)
	}
	if _, err := attrs[0].Uint16(); !errors.Is(err, genl.ErrMalformed) {
		t.Error(err)
	}
	inner, err := genl.Attrs(attrs[2].Value)
	if err != nil || len(inner) != 1 {
		t.Fatal(inner, err)
	}
	if v, err := inner[0].Uint32(); v != 5 || err != nil {
		t.Error(v, err)
	}
	if _, err := inner[0].Uint8(); !errors.Is(err, genl.ErrMalformed) {
		t.Error(err)
	}
}

func TestAnswerBytes(t *testing.T) {
	littleEndian(t)
	question := "20000000 1000 0500 07000000 00000000"
	m, rest, err := genl.Decode(unhex(t, "24000000 0200 0001 07000000 09000000 f0ffffff"+question))
	if err != nil || m.Errno != 16 || m.Seq != 7 || len(rest) != 0 {
		t.Errorf("EBUSY: %+v, %v", m, err)
	}
	if m, _, err = genl.Decode(unhex(t, "24000000 0200 0001 07000000 09000000 00000000"+question)); err != nil || m.Errno != 0 {
		t.Errorf("done: %+v, %v", m, err)
	}
}

func TestMalformed(t *testing.T) {
	littleEndian(t)
	for what, in := range map[string]string{
		"nothing":                "",
		"less than a head":       "10000000 1000",
		"longer than it is":      "30000000 1000 0500 07000000 09000000 03010000",
		"shorter than a head":    "0f000000 1000 0500 07000000 09000000",
		"no command":             "12000000 1000 0500 07000000 09000000 0301",
		"error without a number": "12000000 0200 0500 07000000 09000000 0301",
		"a positive errno":       "14000000 0200 0500 07000000 09000000 05000000",
	} {
		if m, _, err := genl.Decode(unhex(t, in)); !errors.Is(err, genl.ErrMalformed) {
			t.Errorf("%s: %+v, %v", what, m, err)
		}
	}
	for what, in := range map[string]string{
		"half a head":         "0800",
		"longer than it is":   "0900 0100 00000000",
		"shorter than a head": "0300 0100",
	} {
		if a, err := genl.Attrs(unhex(t, in)); !errors.Is(err, genl.ErrMalformed) {
			t.Errorf("attribute %s: %+v, %v", what, a, err)
		}
	}
}

// FuzzDecode: any bytes are messages, which come out again as they went in, or
// an error.
func FuzzDecode(f *testing.F) {
	f.Add(genl.Append(nil, genl.Message{Type: 30, Seq: 1, Command: 1, Attrs: genl.AppendNested(nil, 9, genl.AppendUint8(nil, 2, 1))}))
	f.Add(append(genl.Append(nil, genl.Message{Type: 16}), make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, in []byte) {
		for b := in; len(b) > 0; {
			m, rest, err := genl.Decode(b)
			if err != nil {
				return
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			if m.Type >= 16 {
				again, _, err := genl.Decode(genl.Append(nil, m))
				if err != nil || !reflect.DeepEqual(again, m) {
					t.Fatalf("%+v became %+v, %v", m, again, err)
				}
			}
			if attrs, err := genl.Attrs(m.Attrs); err == nil {
				for _, a := range attrs {
					_ = a.String()
					_, _ = genl.Attrs(a.Value)
				}
			}
			b = rest
		}
	})
}
