package state

import (
	"bytes"
	"reflect"
	"testing"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/format/golden"

	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
)

func everyStep() *Sequence {
	k, v := []byte("k"), []byte("v")
	return new(Sequence).Set(k, v).Delete(k).DeletePrefix(k).Assert(k, v).Assert(k, nil).AssertExists(k).
		AssertRange(k, []byte("k1"), []byte("k2")).TestAndSet(k, nil, v).Replace(k, v).Call("name", 2, v)
}

func sampleBatch(t testing.TB) Batch {
	id := uuid.MustParse("f47ac10b-58cc-4372-a567-0e02b2c3d479")
	return Batch{Origin: 0x1112131415161718, Number: 9, Commands: []Command{
		{Open: true, Session: id, Time: 1, Body: []byte{}},
		{Session: id, Request: 1, Time: 1741064767000000089, Body: body(t, everyStep())},
	}}
}

// What the first release wrote is read for ever.
func TestGoldenEntry(t *testing.T) {
	want := sampleBatch(t)
	sample := AppendBatch(nil, want)
	b := golden.Check(t, "testdata/entry-v1.hex", "an entry of the raft log with one command of each kind", sample,
		golden.Field{Size: 24, Name: "entry head"}, golden.Field{Size: 40, Name: "open session"}, golden.Field{Size: 40, Name: "sequence"},
		golden.Field{Size: len(sample) - 104, Name: "its steps"})
	if got, err := DecodeBatch(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestGoldenValues(t *testing.T) {
	m := meta{cluster: testCluster, member: 3, time: 5, at: Position{Index: 7, Term: 2, Conf: &pb.ConfState{Voters: []uint64{3}, Learners: []uint64{4}, AutoLeave: new(true)}}}
	one := session{request: 4, index: 7, position: 1}
	done := Outcome{Index: 7, Results: []Result{{Value: []byte("v"), Found: true}, {Count: 3, Value: []byte{}}}}
	failed := Outcome{Index: 7, Err: &Error{Code: CodeAssert, Step: 2, Key: []byte("k"), Message: "no"}}
	a, b, c := appendMeta(nil, m), appendSession(nil, one, lastDone, done), appendSession(nil, one, lastFailed, failed)
	const first = 88 // bytes of the meta that version 1 wrote
	old, err := decodeMeta(golden.Read(t, "testdata/values-v1.hex")[:first])
	if err != nil || old.cluster != m.cluster || old.member != 3 || old.time != 5 || old.at.Index != 7 || !old.at.Conf.GetAutoLeave() || len(old.at.Conf.Learners) != 1 {
		t.Fatal(old, err)
	}
	m.life, m.generation = 6, 0x1234
	a = appendMeta(nil, m)
	got := golden.Check(t, "testdata/values-v2.hex", "values of the keys m and s", append(append(bytes.Clone(a), b...), c...),
		golden.Field{Size: len(a), Name: "meta"}, golden.Field{Size: len(b), Name: "session: results"}, golden.Field{Size: len(c), Name: "session: error"})
	if back, err := decodeMeta(got[:len(a)]); err != nil || !bytes.Equal(appendMeta(nil, back), a) {
		t.Fatal(back, err)
	}
	if s, kind, o, err := decodeSession(got[len(a) : len(a)+len(b)]); err != nil || s != one || kind != lastDone || !reflect.DeepEqual(o, done) {
		t.Fatal(s, kind, o, err)
	}
	if s, kind, o, err := decodeSession(got[len(a)+len(b):]); err != nil || s != one || kind != lastFailed || !reflect.DeepEqual(o, failed) {
		t.Fatal(s, kind, o, err)
	}
}

func FuzzBatch(f *testing.F) {
	f.Add(AppendBatch(nil, sampleBatch(f)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if batch, err := DecodeBatch(b); err == nil && !bytes.Equal(AppendBatch(nil, batch), b) {
			t.Fatal("what was read writes otherwise")
		}
	})
}

func FuzzValues(f *testing.F) {
	f.Add(appendMeta(nil, meta{at: Position{Conf: &pb.ConfState{Voters: []uint64{3}}}}))
	f.Add(appendSession(nil, session{request: 4}, lastDone, Outcome{Results: []Result{{Value: []byte("v")}}}))
	f.Add(appendSession(nil, session{request: 4}, lastFailed, Outcome{Err: &Error{Code: 1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMeta(b); err == nil && b[0] == metaVersion && !bytes.Equal(appendMeta(nil, m), b) {
			t.Fatal("the meta that was read writes otherwise")
		}
		if s, kind, o, err := decodeSession(b); err == nil && !bytes.Equal(appendSession(nil, s, kind, o), b) {
			t.Fatal("the session that was read writes otherwise")
		}
	})
}

// Any bytes may stand where steps should: a result, or the member stops.
func FuzzSteps(f *testing.F) {
	s, err := Open(Options{FS: crashdisk.New(), Dir: "/state", Cluster: testCluster, Member: 3, Functions: testFunctions(f),
		Begin: Position{Conf: &pb.ConfState{}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	f.Add(body(f, everyStep()))
	f.Fuzz(func(t *testing.T, b []byte) {
		batch := newWrites(s)
		defer batch.close()
		if out, err := s.run(batch, b, 1, &meta{time: 1}); err == nil && out.Err != nil && out.Results != nil {
			t.Fatal("results and an error")
		}
	})
}
