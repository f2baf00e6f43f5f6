package state

import (
	"fmt"
	"testing"

	"openvstorage/internal/disk/crashdisk"

	pb "go.etcd.io/raft/v3/raftpb"
)

// asks returns a sequence that writes a key and then asks for a value n times.
func asks(n int) *Sequence {
	seq := new(Sequence).Set([]byte("written"), []byte("v"))
	for range n {
		seq.TestAndSet([]byte("large"), []byte("another"), nil)
	}
	return seq
}

// From LevelBounded on a command whose results have too many bytes fails, whole, and the same
// on each member. Below it the results are what they always were, and a trial tells of them.
func TestResultsHaveABound(t *testing.T) {
	fits := ResultsMax / (ResultHead + ValueMax)
	s := open(t, crashdisk.New())
	apply(t, s, Command{Body: body(t, new(Sequence).Set([]byte("large"), make([]byte, ValueMax)))})
	for _, seq := range []*Sequence{asks(fits), asks(fits + 1)} {
		parsed, err := Parse(body(t, seq))
		if err != nil {
			t.Fatal(err)
		}
		over := seq.Len()-1 > fits
		if seq.MayAnswerMuch() != over || parsed.MayAnswerMuch() != over {
			t.Errorf("%d values: built it says %v, read %v", seq.Len()-1, seq.MayAnswerMuch(), parsed.MayAnswerMuch())
		}
		if err := s.TryResults(body(t, seq)); (err != nil) != over {
			t.Errorf("a trial of %d values says %v", seq.Len()-1, err)
		}
	}
	if _, found, _ := s.Get([]byte("written")); found {
		t.Error("a trial has written")
	}
	many := Command{Body: body(t, asks(fits+1))}
	if out := apply(t, s, many); out.Err != nil || len(out.Results) != fits+2 {
		t.Fatalf("at level %d: %v", s.Level(), out.Err)
	}
	apply(t, s, Command{Body: body(t, new(Sequence).Delete([]byte("written")))})
	apply(t, s, Command{Body: body(t, Raise(LevelBounded, false))})
	if out := apply(t, s, many); out.Err == nil || out.Err.Code != CodeTooLarge || out.Err.Step != fits+1 {
		t.Fatalf("%d results, %v", len(out.Results), out.Err)
	}
	if _, found, _ := s.Get([]byte("written")); found {
		t.Error("the command failed, and has written")
	}
	if out := apply(t, s, Command{Body: body(t, asks(fits))}); out.Err != nil {
		t.Error(out.Err)
	}
}

// What functions return counts too, and what is returned beside values.
func TestResultsOfFunctionsCount(t *testing.T) {
	s := open(t, crashdisk.New())
	apply(t, s, Command{Body: body(t, Raise(LevelBounded, false))})
	calls, fits := new(Sequence), ResultsMax/(ResultHead+ResultMax)
	for range fits + 1 {
		calls.Call("big", 1, nil)
	}
	if out := apply(t, s, Command{Body: body(t, calls)}); out.Err == nil || out.Err.Code != CodeTooLarge || out.Err.Step != fits {
		t.Error(fmt.Sprint(out.Err))
	}
}

// Whoever answers one origin gets the results of that, and none of another's; what is applied
// is the same.
func TestResultsOfOthersAreNotKept(t *testing.T) {
	s := open(t, crashdisk.New())
	entry := func(origin uint64) *pb.Entry {
		e := entryOf(s.Applied().Index + 1)
		e.Data = AppendBatch(nil, Batch{Origin: origin, Number: 1, Commands: []Command{{Body: body(t, new(Sequence).Replace([]byte("k"), fmt.Append(nil, origin)))}}})
		return e
	}
	for _, origin := range []uint64{7, 8, 7} {
		applied, err := s.ApplyOf(7, []*pb.Entry{entry(origin)}, nil)
		if err != nil || len(applied) != 1 || applied[0].Origin != origin || (applied[0].Outcomes[0].Results != nil) != (origin == 7) {
			t.Errorf("origin %d: %+v, %v", origin, applied, err)
		}
		if v, _, _ := s.Get([]byte("k")); string(v) != fmt.Sprint(origin) {
			t.Errorf("origin %d: %q", origin, v)
		}
	}
}
