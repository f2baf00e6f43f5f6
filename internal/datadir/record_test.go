package datadir

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"testing"

	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"
	"openvstorage/internal/format/unknown"
	"openvstorage/internal/generation"

	"github.com/google/uuid"
)

// fields names the bytes of a copy of the sample in the format of a version.
func fields(version uint16, joined bool) (f []golden.Field) {
	add := func(size int, name string) { f = append(f, golden.Field{Size: size, Name: name}) }
	for range copies {
		add(8, "magic")
		add(16, "kind, version, minimum reader, zero, features")
		add(16, "id of the directory")
		add(8, "number")
		add(8, "incarnation")
		add(8, "zero, header CRC")
		add(8, "created")
		if version < 3 {
			add(crcAt-generationAt, "zero")
			add(4, "CRC")
			continue
		}
		add(8, "generation")
		add(8, "settled")
		add(8, "suspended")
		add(2, "groups")
		add(2, "starts")
		add(4, "zero")
		for i := range GroupsMax {
			add(groupSize, fmt.Sprintf("group %d", i))
		}
		for i := range generation.HistoryMax {
			add(generation.Size, fmt.Sprintf("start %d", i))
		}
		if version < 4 {
			add(crcAt-lifeAt, "zero")
		} else {
			add(8, "life")
			if joined {
				add(16, "cluster")
				add(crcAt-roomAt, "zero")
			} else {
				add(crcAt-clusterAt, "zero")
			}
		}
		add(4, "CRC")
	}
	return f
}

// Every version opens, and the newest is written as it was. The files never change.
func TestGolden(t *testing.T) {
	for version := uint16(1); version <= Version; version++ {
		want, file := sample.of(version), oldFile(sample, version)
		if version == Version {
			want, file = sample, Append(nil, sample)
		}
		b := golden.Check(t, fmt.Sprintf("testdata/record-v%d.hex", version), fmt.Sprintf("record of a data directory, version %d", version), file, fields(version, false)...)
		got, old, err := Decode(b)
		if err != nil || old != (version < Version) || !reflect.DeepEqual(got, want) {
			t.Errorf("version %d: %+v, old %v, %v", version, got, old, err)
		}
	}
}

// The record of a host that has joined a cluster. The file never changes.
func TestGoldenJoined(t *testing.T) {
	want := sample
	want.Cluster = uuid.MustParse("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")
	b := golden.Check(t, "testdata/record-v4-joined.hex", "record of the data directory of a host that has joined a cluster, version 4", Append(nil, want), fields(Version, true)...)
	if got, old, err := Decode(b); err != nil || old || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, old %v, %v", got, old, err)
	}
}

// What a later release may put into the record, one thing at a time.
func TestUnknown(t *testing.T) {
	of := func(b []byte, says string, at int, v byte) unknown.Case {
		b = edited(b, func(b []byte) { b[at] = v })
		return unknown.Case{Says: says, Read: func() error { _, _, err := Decode(b); return err }}
	}
	good := Append(nil, sample)
	unknown.Walk(t, "Data directory", map[string]unknown.Case{
		"a later version, which this one may read": of(good, fmt.Sprintf("rewrites up to %d", Version), 10, Version+1),
		"a later minimum reader":                   of(good, fmt.Sprintf("format %d", Version+1), 12, Version+1),
		"a compatible feature":                     of(good, "compatible features 0x2", 16, 2),
		"an incompatible feature":                  of(good, "features 0x2", 20, 2),
		"a field in the header":                    of(good, "offset 15", 15, 1),
		"a field behind the counts":                of(good, "offset 101", 101, 1),
		"a field behind a group":                   of(good, "offset 1127", 1127, 1),
		"a field behind the name of a group":       of(good, "offset 110", 110, 1),
		"a field behind the history":               of(good, "offset 4000", 4000, 1),
		"a field in the room":                      of(good, "offset 4091", crcAt-1, 1),
		"a field, in version 3":                    of(oldFile(sample, 3), "offset 4008", lifeAt, 1),
		"a field, in version 2":                    of(oldFile(sample, 2), "offset 72", generationAt, 1),
		"a field, in version 1":                    of(oldFile(sample, 1), "offset 4000", 4000, 1),
	})
}

// A copy whose header says that it is newer decides, even if the rest of it is damaged.
func TestNewerCopyDecides(t *testing.T) {
	b := Append(nil, sample)
	binary.LittleEndian.PutUint16(b[10:], Version+1)
	binary.LittleEndian.PutUint32(b[60:], format.CRC(b[:60]))
	if _, _, err := Decode(b); err == nil {
		t.Error("the other copy is used")
	}
}
