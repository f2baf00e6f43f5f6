package registry

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"openvstorage/internal/format"

	"github.com/google/uuid"
)

var update = flag.Bool("update", false, "write golden files that are absent")

func id(n byte) uuid.UUID { return uuid.UUID{0: n, 6: 0x40, 8: 0x80, 15: n} }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// encode returns the file that older releases wrote for the records, which must
// be sorted by name.
func encode(generation uint64, records []Record) []byte {
	b := format.AppendHeader(nil, format.Header{Kind: format.KindRegistry, Version: version, MinReader: version, Number: generation})
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(records)))
	for i := range records {
		b = appendRecord(b, &records[i])
	}
	binary.LittleEndian.PutUint32(b[64:], uint32(len(b)+crcSize))
	return binary.LittleEndian.AppendUint32(b, format.CRC(b))
}

func appendRecord(b []byte, r *Record) []byte {
	b = append(b, r.ID[:]...)
	b = append(b, r.Parent[:]...)
	b = binary.LittleEndian.AppendUint64(b, r.Epoch)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Created.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(r.Created.Nanosecond()))
	var flags byte
	if r.Deleting {
		flags |= flagDeleting
	}
	b = append(b, flags)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(r.Name)))
	b = append(b, byte(len(r.Owner)))
	b = append(b, r.Name...)
	return append(b, r.Owner...)
}

// A name that none gets any more is one that a vDisk may have. Package naming has
// the rule, and its table.
func TestValidateName(t *testing.T) {
	for name, ok := range map[string][2]bool{
		"vm-1/root": {true, true}, "-x": {false, true}, "a.raw/b": {false, true}, ".snapshots/a": {false, true}, "a\u202e": {false, true}, "a@b": {}, "": {},
	} {
		r := Record{ID: id(1), Name: name}
		if err := ValidateName(name); (err == nil) != ok[0] || err != nil && !errors.Is(err, ErrName) {
			t.Errorf("given: %.40q: %v", name, err)
		}
		if err := r.validate(); (err == nil) != ok[1] || err != nil && !errors.Is(err, ErrName) {
			t.Errorf("had: %.40q: %v", name, err)
		}
	}
}

func sample() []Record {
	at := time.Date(2025, 3, 4, 5, 6, 7, 89, time.UTC)
	return []Record{
		{ID: id(2), Name: "clone", Epoch: 3, Owner: "host-1", Created: at, Parent: id(1), Deleting: true},
		{ID: id(1), Name: "vm/root", Created: at},
	}
}

// The golden file holds version 1. It is never edited.
func TestGolden(t *testing.T) {
	const file = "testdata/registry-v1.hex"
	b := encode(5, sample())
	if _, err := os.Stat(file); err != nil && *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(file, annotate(b), 0o644))
	}
	text, err := os.ReadFile(file)
	must(t, err)
	var golden []byte
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		part, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
		must(t, err)
		golden = append(golden, part...)
	}
	generation, records, err := decode(golden)
	if err != nil || generation != 5 || !reflect.DeepEqual(records, sample()) {
		t.Errorf("version 1 does not open: %v", err)
	}
	if !bytes.Equal(b, golden) {
		t.Error("version 1 is written with other bytes")
	}
}

func annotate(b []byte) []byte {
	var out bytes.Buffer
	out.WriteString("# registry, version 1, of sample() in registry_test.go, generation 5\n")
	for _, f := range []struct {
		n    int
		name string
	}{
		{8, "magic"}, {16, "kind, version, minimum reader, zero, features"}, {16, "no owner"}, {8, "generation"}, {16, "incarnation, zero, header CRC"},
		{4, "length"}, {4, "records"},
		{16, "id"}, {16, "parent"}, {8, "epoch"}, {12, "created"}, {1, "flags"}, {3, "lengths of name and owner"}, {5, "name"}, {6, "owner"},
		{16, "id"}, {16, "parent"}, {8, "epoch"}, {12, "created"}, {1, "flags"}, {3, "lengths of name and owner"}, {7, "name"},
		{4, "CRC"},
	} {
		fmt.Fprintf(&out, "%-48s # %s\n", fmt.Sprintf("% x", b[:f.n]), f.name)
		b = b[f.n:]
	}
	return out.Bytes()
}

func FuzzDecode(f *testing.F) {
	good := encode(5, sample())
	f.Add(good[64 : len(good)-4])
	f.Fuzz(func(t *testing.T, body []byte) {
		b := format.AppendHeader(nil, format.Header{Kind: format.KindRegistry, Version: 1, MinReader: 1, Number: 5})
		b = append(b, body...)
		if len(b) >= 68 {
			n := len(b) + 4
			copy(b[64:], []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
		}
		crc := format.CRC(b)
		b = append(b, byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24))
		g, records, err := decode(b)
		if err == nil && !bytes.Equal(encode(g, records), b) {
			t.Fatal("does not survive a round trip")
		}
	})
}
