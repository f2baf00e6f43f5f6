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
	for _, c := range []struct {
		name, says string
		kind       uint16 // of the record to change
		change     func(b []byte)
	}{
		{"kind", "record of kind 9", kindEntries, func(b []byte) { le.PutUint16(b[24:], 9) }},
		{"flag", "flags 0x4", kindEntries, func(b []byte) { le.PutUint16(b[26:], 4) }},
		{"reserved in the head", "zero today", kindEntries, func(b []byte) { b[31] = 1 }},
		{"reserved behind the CRC", "zero today", kindEntries, func(b []byte) { b[39] = 1 }},
		{"flags of entries", "flags 0x1", kindEntries, func(b []byte) { b[wal.HeadSize+12] = 1 }},
		{"type of entry", "type 3", kindEntries, func(b []byte) { b[wal.HeadSize+entriesHead+12] = 3 }},
		{"flags of an entry", "flags 0x1", kindEntries, func(b []byte) { b[wal.HeadSize+entriesHead+14] = 1 }},
		{"longer hard state", "hard state of 32 bytes", kindHardState, func(b []byte) { b[4] = 32 }},
		{"flags of a marker", "flags 0x2", kindMarker, func(b []byte) { b[wal.HeadSize+16] = 2 }},
		{"longer marker", "behind the snapshot marker", kindMarker, func(b []byte) { b[4] += 8 }},
	} {
		t.Run(c.name, func(t *testing.T) {
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
			_, err := Open(testOptions(d))
			if !errors.Is(err, format.ErrNewer) || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), name) {
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
		})
	}
}

// A header or a note of a newer release is refused as such.
func TestNewerHeaders(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(h *format.Header)
		marks  bool
	}{
		{"minimum reader", func(h *format.Header) { h.Version, h.MinReader = 9, 9 }, false},
		{"incompatible", func(h *format.Header) { h.Incompatible = 2 }, false},
		{"marks: minimum reader", func(h *format.Header) { h.Version, h.MinReader = 9, 9 }, true},
		{"marks: version", func(h *format.Header) { h.Version = 9 }, true},
		{"marks: incompatible", func(h *format.Header) { h.Incompatible = 2 }, true},
		{"marks: compatible", func(h *format.Header) { h.Compatible = 2 }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDisk(t)
			l := open(t, d)
			name := l.current.path
			_ = l.Close()
			at := 0
			if c.marks {
				name, at = l.opt.Marks, blockSize*int(l.current.number%2)
			}
			b := bytesOf(t, d, name)
			h, err := format.Peek(b[at:])
			if err != nil {
				t.Fatal(err)
			}
			c.change(&h)
			copy(b[at:], format.AppendHeader(nil, h))
			change(t, d, name, func(f disk.File) error { _, err := f.WriteAt(b, 0); return err })
			if _, err := Open(testOptions(d)); !errors.Is(err, format.ErrNewer) || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name) {
				t.Errorf("%v", err)
			}
		})
	}
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
