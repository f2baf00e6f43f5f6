package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"
	"openvstorage/internal/wal"

	pb "go.etcd.io/raft/v3/raftpb"
)

const testIncarnation = 0x1112131415161718

func sampleBodies() [][]byte {
	return [][]byte{
		kindEntries - 1:   appendEntries(nil, []*pb.Entry{entry(2, 1, "abc"), {Index: new(uint64(3)), Term: new(uint64(2)), Type: pb.EntryConfChangeV2.Enum()}}),
		kindHardState - 1: appendHardState(nil, hardState(2, 7, 1)),
		kindMarker - 1:    appendMarker(nil, Marker{Index: 1, Term: 1, Conf: &pb.ConfState{Voters: []uint64{7, 8}, Learners: []uint64{9}, AutoLeave: new(true)}}),
		kindMark - 1:      nil,
	}
}

// oldHeader is the header that version 1 wrote.
func oldHeader(h headerOf) []byte {
	b := format.AppendHeader(nil, format.Header{Kind: format.KindRaftLog, Version: 1, MinReader: 1, Owner: h.Cluster, Number: h.Number, Incarnation: h.Incarnation})
	b = binary.LittleEndian.AppendUint64(b, h.Member)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, format.SeededCRC(h.Incarnation, b[format.HeaderSize:]))
	return append(b, make([]byte, blockSize-len(b))...)
}

// secondHeader is the header that version 2 wrote.
func secondHeader(h headerOf) []byte {
	b := format.AppendHeader(nil, format.Header{Kind: format.KindRaftLog, Version: 2, MinReader: 2, Owner: h.Cluster, Number: h.Number, Incarnation: h.Incarnation})
	b = binary.LittleEndian.AppendUint64(b, h.Member)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, format.SeededCRC(h.Incarnation, b[format.HeaderSize:]))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.Length))
	b = binary.LittleEndian.AppendUint32(b, format.SeededCRC(h.Incarnation, b[format.HeaderSize:]))
	return append(b, make([]byte, blockSize-len(b))...)
}

// What any release wrote opens for ever.
func TestGolden(t *testing.T) {
	header := []golden.Field{{Size: 64, Name: "common header"}, {Size: 8, Name: "member"}, {Size: 4, Name: "zero"}, {Size: 4, Name: "CRC"}}
	old := headerOf{Cluster: testCluster, Member: 7, Number: 3, Incarnation: testIncarnation, version: 1}
	checkGolden(t, "testdata/raftlog-v1.hex", old, oldHeader(old), append(header[:4:4], golden.Field{Size: 4016, Name: "padding"}))
	header = append(header, golden.Field{Size: 8, Name: "length"}, golden.Field{Size: 4, Name: "CRC"})
	before := headerOf{Cluster: testCluster, Member: 7, Number: 3, Incarnation: testIncarnation, Length: 8 * blockSize, version: 2}
	checkGolden(t, "testdata/raftlog-v2.hex", before, secondHeader(before), append(header[:len(header):len(header)], golden.Field{Size: 4004, Name: "padding"}))
	now := before
	now.Life, now.Generation, now.version = 5, 0x1234, 3
	checkGolden(t, "testdata/raftlog-v3.hex", now, appendHeader(nil, now), append(header, golden.Field{Size: 4, Name: "zero"}, golden.Field{Size: 8, Name: "life"},
		golden.Field{Size: 8, Name: "generation"}, golden.Field{Size: 4, Name: "CRC"}, golden.Field{Size: 3980, Name: "padding"}))
}

func TestGoldenMarks(t *testing.T) {
	o := Options{Cluster: testCluster, Member: 7}
	b := golden.Check(t, "testdata/marks-v1.hex", "a note of the marks file", o.appendNote(nil, note{3, testIncarnation, 41}),
		golden.Field{Size: 64, Name: "common header"}, golden.Field{Size: 8, Name: "member"}, golden.Field{Size: 8, Name: "seq"}, golden.Field{Size: 4, Name: "CRC"},
		golden.Field{Size: 4012, Name: "padding"})
	if n, err := o.decodeNote(b); err != nil || n != (note{3, testIncarnation, 41}) {
		t.Fatal(n, err)
	}
}

func checkGolden(t *testing.T, file string, want headerOf, sample []byte, fields []golden.Field) {
	t.Helper()
	bodies := sampleBodies()
	for i, body := range bodies {
		r := wal.Record{Seq: 40 + uint64(i), Durable: 39, Kind: uint16(i + 1), Body: body}
		n := len(sample)
		sample = wal.Append(sample, testIncarnation, r)
		fields = append(fields, golden.Field{Size: wal.HeadSize, Name: "record head"}, golden.Field{Size: len(sample) - n - wal.HeadSize, Name: "body"})
	}
	b := golden.Check(t, file, "a segment of a raft log, one record of each kind", sample, fields...)
	h, err := decodeHeader(b)
	if err != nil || h != want {
		t.Fatalf("header %+v, %v", h, err)
	}
	records, _, err := scan(b, h.Incarnation, 40, 0)
	if err != nil || len(records) != len(bodies) {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for i, r := range records {
		rec, err := decode(&segment{}, r)
		if err != nil || !bytes.Equal(rec.appendBody(nil), bodies[i]) {
			t.Errorf("record %d: %v", i, err)
		}
	}
}

func TestUnknownKind(t *testing.T) {
	r := found{0, wal.Record{Seq: 2, Durable: 1, Kind: 99, Body: []byte("news")}}
	if _, err := decode(&segment{}, r); !errors.Is(err, format.ErrNewer) {
		t.Errorf("an unknown kind: %v", err)
	}
	r.Flags = wal.FlagSkippable
	if rec, err := decode(&segment{}, r); err != nil || string(rec.appendBody(nil)) != "news" {
		t.Errorf("a skippable kind: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for i, b := range sampleBodies() {
		f.Add(uint16(i+1), b)
	}
	f.Fuzz(func(t *testing.T, kind uint16, b []byte) {
		rec, err := decode(&segment{}, found{Record: wal.Record{Seq: 2, Durable: 1, Kind: kind, Body: b}})
		if err == nil && kind != kindMark && !bytes.Equal(rec.appendBody(nil), b) {
			t.Fatal("what was read writes otherwise")
		}
	})
}

func FuzzScan(f *testing.F) {
	b := appendHeader(nil, headerOf{Cluster: testCluster, Member: 7, Number: 3, Incarnation: testIncarnation, Length: 8 * blockSize})
	for i, body := range sampleBodies() {
		b = wal.Append(b, testIncarnation, wal.Record{Seq: 40 + uint64(i), Durable: 39, Kind: uint16(i + 1), Body: body})
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = decodeHeader(b)
		records, end, _ := scan(b, testIncarnation, 0, 0)
		if len(records) > 0 && end > int64(len(b)) {
			t.Fatalf("ended at %d of %d", end, len(b))
		}
		_, _ = laterMark(b, testIncarnation, end)
	})
}
