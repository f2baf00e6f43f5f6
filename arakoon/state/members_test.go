package state

import (
	"bytes"
	"errors"
	"testing"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/format/golden"
	"openvstorage/internal/format/unknown"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Whoever leaves the members is remembered, in the same batch and over a restart. Whoever
// only changes its part is not gone.
func TestGone(t *testing.T) {
	fsys := crashdisk.New()
	opt := Options{FS: fsys, Dir: "/state", Cluster: testCluster, Member: 3, Begin: Position{Index: 1, Term: 1, Conf: &pb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}}}}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	changes := []*pb.ConfState{
		{Voters: []uint64{3, 4, 5}, VotersOutgoing: []uint64{1, 2, 3}, LearnersNext: []uint64{2}},
		{Voters: []uint64{3, 4, 5}, Learners: []uint64{2}},
	}
	check := func(want ...bool) {
		t.Helper()
		for i, gone := range want {
			if s.Gone(uint64(i+1)) != gone {
				t.Errorf("member %d is gone: %v", i+1, !gone)
			}
		}
	}
	for i, conf := range changes {
		check(false, false, false, false, false)
		e := &pb.Entry{Index: new(uint64(2 + i)), Term: new(uint64(1)), Type: pb.EntryConfChangeV2.Enum()}
		if _, err := s.Apply([]*pb.Entry{e}, func(*pb.Entry) (*pb.ConfState, error) { return conf, nil }); err != nil {
			t.Fatal(err)
		}
	}
	check(true, false, false, false, false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(opt); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	check(true, false, false, false, false)
	// A change that fails leaves nothing.
	bad := errors.New("bad")
	e := &pb.Entry{Index: new(uint64(4)), Term: new(uint64(1)), Type: pb.EntryConfChangeV2.Enum()}
	if _, err := s.Apply([]*pb.Entry{e}, func(*pb.Entry) (*pb.ConfState, error) { return nil, bad }); !errors.Is(err, bad) {
		t.Fatal(err)
	}
	check(true, false, false, false, false)
}

func TestGoldenGone(t *testing.T) {
	v := appendGone(0x0102030405060708)
	b := golden.Check(t, "testdata/gone-v1.hex", "value of a key x, a member that was removed", v,
		golden.Field{Size: 2, Name: "version"}, golden.Field{Size: 2, Name: "flags"}, golden.Field{Size: 8, Name: "index"})
	if index, err := decodeGone(b); err != nil || index != 0x0102030405060708 {
		t.Fatal(index, err)
	}
	for i := range b {
		if _, err := decodeGone(b[:i]); err == nil {
			t.Errorf("%d bytes are taken for whole", i)
		}
	}
	if _, err := decodeGone(with(v, 0, 0)); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	value := func(says string, b []byte) unknown.Case {
		return unknown.Case{Says: says, Read: func() error { _, err := decodeGone(b); return err }}
	}
	unknown.Walk(t, "Removed member of a group", map[string]unknown.Case{
		"a later version":          value("format 2", with(v, 0, 2)),
		"a flag":                   value("flags 0x1", with(v, 2, 1)),
		"a field behind the index": value("behind its fields", append(bytes.Clone(v), 0)),
	})
}

func FuzzGone(f *testing.F) {
	f.Add(appendGone(7))
	f.Fuzz(func(t *testing.T, b []byte) {
		if index, err := decodeGone(b); err == nil && !bytes.Equal(appendGone(index), b) {
			t.Fatal("what was read writes otherwise")
		}
	})
}
