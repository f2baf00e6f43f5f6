package arakoon

import (
	"bytes"
	"slices"
	"testing"

	"openvstorage/internal/format/golden"
	"openvstorage/internal/format/unknown"

	pb "go.etcd.io/raft/v3/raftpb"
)

func TestGoldenBase(t *testing.T) {
	sample := appendBase(nil, &pb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{0x0102030405060708}})
	b := golden.Check(t, "testdata/base-v1.hex", "context of a change of the members: the members before it", sample,
		golden.Field{Size: 2, Name: "version"}, golden.Field{Size: 2, Name: "flags"}, golden.Field{Size: 28, Name: "voters"}, golden.Field{Size: 12, Name: "learners"})
	c, err := decodeBase(b)
	if err != nil || !slices.Equal(c.GetVoters(), []uint64{1, 2, 3}) || !slices.Equal(c.GetLearners(), []uint64{0x0102030405060708}) {
		t.Fatal(c, err)
	}
	for i := range b {
		if _, err := decodeBase(b[:i]); err == nil {
			t.Errorf("%d bytes are taken for whole", i)
		}
	}
	changed := func(at int, to byte) []byte { b := bytes.Clone(sample); b[at] = to; return b }
	value := func(says string, b []byte) unknown.Case {
		return unknown.Case{Says: says, Read: func() error { _, err := decodeBase(b); return err }}
	}
	unknown.Walk(t, "Members before a change", map[string]unknown.Case{
		"a later version":             value("format 2", changed(0, 2)),
		"a flag":                      value("flags 0x1", changed(2, 1)),
		"a field behind the learners": value("bytes behind", append(bytes.Clone(sample), 0)),
	})
}

func FuzzBase(f *testing.F) {
	f.Add(appendBase(nil, &pb.ConfState{Voters: []uint64{1}}))
	f.Add(appendBase(nil, &pb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := decodeBase(b); err == nil && !bytes.Equal(appendBase(nil, c), b) {
			t.Fatal("what was read writes otherwise")
		}
	})
}
