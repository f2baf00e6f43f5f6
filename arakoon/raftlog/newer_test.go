package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/format"
	"openvstorage/internal/format/unknown"
	"openvstorage/internal/wal"

	pb "go.etcd.io/raft/v3/raftpb"
)

// reseal sets a record's CRCs right after its bytes were changed.
func reseal(b []byte, incarnation uint64) {
	le := binary.LittleEndian
	n := le.Uint32(b[4:])
	le.PutUint32(b[32:], format.SeededCRC(incarnation, b[wal.HeadSize:][:n]))
	le.PutUint32(b, format.SeededCRC(incarnation, b[4:wal.HeadSize]))
}

func bytesOf(t *testing.T, fsys disk.FS, name string) []byte {
	t.Helper()
	f, err := fsys.OpenFile(name, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, _ := f.Size()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// What a newer release wrote into a log refuses it by name, or is passed over and
// kept; it is never damage, nor the end of the log, though no mark covers it.
func TestNewer(t *testing.T) {
	le := binary.LittleEndian
	cases := map[string]unknown.Case{}
	for _, c := range []struct {
		name, says string
		kind       uint16 // of the record to change
		change     func(b []byte)
	}{
		{"a kind of record", "record of kind 9", kindEntries, func(b []byte) { le.PutUint16(b[24:], 9) }},
		{"a kind of record that may be skipped", "", kindHardState, func(b []byte) { le.PutUint16(b[24:], 9); b[26] = wal.FlagSkippable }},
		{"a flag of a record", "flags 0x4", kindEntries, func(b []byte) { le.PutUint16(b[26:], 4) }},
		{"a field in the head of a record", "zero today", kindEntries, func(b []byte) { b[31] = 1 }},
		{"a field behind the CRC of a record", "zero today", kindEntries, func(b []byte) { b[39] = 1 }},
		{"a flag of entries", "flags 0x1", kindEntries, func(b []byte) { b[wal.HeadSize+12] = 1 }},
		{"a type of entry", "type 3", kindEntries, func(b []byte) { b[wal.HeadSize+entriesHead+12] = 3 }},
		{"a flag of an entry", "flags 0x1", kindEntries, func(b []byte) { b[wal.HeadSize+entriesHead+14] = 1 }},
		{"a longer hard state", "hard state of 32 bytes", kindHardState, func(b []byte) { b[4] = 32 }},
		{"a flag of a snapshot marker", "flags 0x4", kindMarker, func(b []byte) { b[wal.HeadSize+16] = 4 }},
		{"a longer snapshot marker", "behind the snapshot marker", kindMarker, func(b []byte) { b[4] += 8 }},
	} {
		cases[c.name] = unknown.Case{Says: c.says, Read: func() error {
			d := newDisk(t)
			l := open(t, d)
			if err := l.Append(Round{Entries: []*pb.Entry{entry(2, 1, "abc")}, HardState: hardState(1, 7, 1)}); err != nil {
				t.Fatal(err)
			}
			name, incarnation := l.current.path, l.current.incarnation
			_ = l.Close()
			b := bytesOf(t, d, name)
			records, _, _ := scan(b, incarnation, 0, 0)
			at := int64(-1)
			for _, r := range records {
				if r.Kind == c.kind {
					at = r.off
				}
			}
			c.change(b[at:])
			reseal(b[at:], incarnation)
			change(t, d, name, func(f disk.File) error { _, err := f.WriteAt(b, 0); return err })
			l, err := Open(testOptions(d))
			if err == nil {
				return l.Close()
			}
			if errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name) {
				t.Errorf("%v", err)
			}
			if !bytes.Equal(bytesOf(t, d, name), b) {
				t.Error("it was changed")
			}
			told := error(nil)
			_, _ = Inspect(d, name, func(r Record) error { told = errors.Join(told, r.Err); return nil })
			if !errors.Is(told, format.ErrNewer) {
				t.Errorf("inspection: %v", told)
			}
			return err
		}}
	}
	for what, change := range headers {
		if what != "a compatible feature" && what != "a later version, which this one may read" {
			cases[what] = unknown.Case{Read: func() error { return openHeader(t, false, change) }}
		}
	}
	cases["a field behind the length"] = unknown.Case{Read: func() error {
		b := appendHeader(nil, headerOf{Cluster: testCluster, Member: 7, Number: 3, Incarnation: testIncarnation, Length: 8 * blockSize})
		b[92] = 1
		le.PutUint32(b[112:], format.SeededCRC(testIncarnation, b[format.HeaderSize:112]))
		_, err := decodeHeader(b)
		return err
	}}
	unknown.Walk(t, "Segment of a raft log", cases)
}

// headers change a common header into what another release might have written.
var headers = map[string]func(h *format.Header){
	"a later version, which this one may read": func(h *format.Header) { h.Version = 9 },
	"a later minimum reader":                   func(h *format.Header) { h.Version, h.MinReader = 9, 9 },
	"a compatible feature":                     func(h *format.Header) { h.Compatible = 2 },
	"an incompatible feature":                  func(h *format.Header) { h.Incompatible = 2 },
}

// A note of a newer release is refused, though this one may read it: it writes it anew.
func TestUnknownInMarks(t *testing.T) {
	cases := map[string]unknown.Case{}
	for what, change := range headers {
		cases[what] = unknown.Case{Says: ".marks", Read: func() error { return openHeader(t, true, change) }}
	}
	unknown.Walk(t, "Marks of a raft log", cases)
}

// openHeader opens a log of which a header was changed.
func openHeader(t *testing.T, marks bool, change func(h *format.Header)) error {
	d := newDisk(t)
	l := open(t, d)
	name := l.current.path
	_ = l.Close()
	at := 0
	if marks {
		name, at = l.opt.Marks, blockSize*int(l.current.number%2)
	}
	b := bytesOf(t, d, name)
	h, err := format.Peek(b[at:])
	if err != nil {
		t.Fatal(err)
	}
	change(&h)
	copy(b[at:], format.AppendHeader(nil, h))
	changeFile(t, d, name, b)
	l, err = Open(testOptions(d))
	if err == nil {
		return l.Close()
	}
	if errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name) {
		t.Errorf("%v", err)
	}
	return err
}

func changeFile(t *testing.T, d disk.FS, name string, b []byte) {
	t.Helper()
	change(t, d, name, func(f disk.File) error { _, err := f.WriteAt(b, 0); return err })
}

// Life and generation only rise, over segments and openings, and a log of a later
// life than the group's is refused.
func TestLife(t *testing.T) {
	d := crashdisk.New()
	opened := func(life, generation uint64) error {
		opt := testOptions(d)
		opt.Life, opt.Generation = life, generation
		l, err := Open(opt)
		if err != nil {
			return err
		}
		name := l.current.path
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := Inspect(d, name, func(Record) error { return nil })
		if err != nil || s.Life != max(life, 2) || s.Generation != 9 {
			t.Errorf("life %d, generation %d, %v", s.Life, s.Generation, err)
		}
		return nil
	}
	if err := d.MkdirAll("/arakoon", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, told := range [][2]uint64{{2, 9}, {0, 0}, {2, 4}, {3, 9}} {
		if err := opened(told[0], told[1]); err != nil {
			t.Fatal(told, err)
		}
	}
	if err := opened(2, 9); !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), "life 3") {
		t.Error(err)
	}
}
