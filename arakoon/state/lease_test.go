package state

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"openvstorage/internal/disk/crashdisk"

	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
)

var (
	alice = uuid.MustParse("f47ac10b-58cc-4372-a567-0e02b2c3d479")
	bob   = uuid.MustParse("6ba7b811-9dad-41d1-80b4-00c04fd430c8")
)

// does applies a sequence and checks the code that it fails with, 0 for none.
func does(t testing.TB, s *State, seq *Sequence, code uint32) Outcome {
	t.Helper()
	o := apply(t, s, Command{Body: body(t, seq)})
	got := uint32(0)
	if o.Err != nil {
		got = o.Err.Code
	}
	if got != code {
		t.Fatalf("code %d, not %d: %v", got, code, o.Err)
	}
	return o
}

// A lease has one owner; its fence rises with each grant, and an assertion of an old one
// fails, also after a restart.
func TestLease(t *testing.T) {
	d := crashdisk.New()
	s := open(t, d)
	does(t, s, Raise(2, true), 0)
	first := does(t, s, new(Sequence).Acquire("n", alice, time.Second), 0)
	fence := first.Results[0].Count
	if fence != first.Index || first.Results[0].Found {
		t.Fatal(first)
	}
	does(t, s, new(Sequence).Acquire("n", bob, time.Second), CodeLeaseHeld)
	if o := does(t, s, new(Sequence).Acquire("n", alice, 2*time.Second), 0); o.Results[0].Count != fence || !o.Results[0].Found {
		t.Fatal("an owner that asks again gets another fence", o)
	}
	renewed := does(t, s, new(Sequence).Renew("n", fence, 0), 0).Index
	if l, ok := s.Lease("n"); !ok || l != (Lease{"n", alice, fence, renewed, 2 * time.Second}) {
		t.Fatal(l, ok)
	}
	write := func(fence uint64) *Sequence {
		return new(Sequence).Set([]byte("k"), fmt.Append(nil, fence)).AssertLease("n", fence)
	}
	does(t, s, write(fence), 0)
	// An expiry that counted from an older renewal is void.
	old := Lease{Name: "n", Fence: fence, Renewed: first.Index}
	if o := does(t, s, Expire(old), 0); o.Results[0].Found {
		t.Fatal("a lease that was renewed has expired")
	}
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	s = open(t, d.Kill())
	now, ok := s.Lease("n")
	if !ok || now.Renewed != renewed {
		t.Fatal("lost by a restart", now)
	}
	if o := does(t, s, Expire(now, Lease{Name: "none"}), 0); !o.Results[0].Found || o.Results[1].Found {
		t.Fatal(o)
	}
	does(t, s, write(fence), CodeLeaseLost)
	does(t, s, new(Sequence).Renew("n", fence, 0), CodeLeaseLost)
	second := does(t, s, new(Sequence).Acquire("n", bob, time.Second), 0).Results[0].Count
	if second <= fence {
		t.Fatal("fences do not rise", fence, second)
	}
	if o := does(t, s, new(Sequence).Release("n", fence), 0); o.Results[0].Found {
		t.Fatal("released under an old fence")
	}
	does(t, s, write(fence), CodeLeaseLost)
	if o := does(t, s, new(Sequence).Release("n", second), 0); !o.Results[0].Found || s.meta.leases != 0 {
		t.Fatal(o, s.meta.leases)
	}
	if v, _, _ := s.Get([]byte("k")); string(v) != fmt.Sprint(fence) {
		t.Fatalf("%q", v)
	}
}

// A grant and its end never share an entry, or two owners would have one fence.
func TestFenceIsOneGrants(t *testing.T) {
	s := open(t, crashdisk.New())
	does(t, s, Raise(2, true), 0)
	index := s.Applied().Index + 1
	a, err := s.Apply([]*pb.Entry{entryOf(index,
		Command{Body: body(t, new(Sequence).Acquire("n", alice, time.Second))},
		Command{Body: body(t, new(Sequence).Release("n", index))},
		Command{Body: body(t, Expire(Lease{Name: "n", Fence: index, Renewed: index}))},
		Command{Body: body(t, new(Sequence).Acquire("n", bob, time.Second))},
	)}, nil)
	if err != nil || a[0].Outcomes[3].Err == nil || a[0].Outcomes[3].Err.Code != CodeLeaseHeld {
		t.Fatal(a, err)
	}
}

// A failed sequence changes neither leases nor their number nor the level.
func TestFailedSequenceLeavesLeases(t *testing.T) {
	s := open(t, crashdisk.New())
	fails := func(seq *Sequence) { t.Helper(); does(t, s, seq.Delete([]byte("none")), CodeNotFound) }
	fails(Raise(2, true))
	if s.Level() != 1 {
		t.Fatal(s.Level())
	}
	does(t, s, Raise(2, true), 0)
	fails(new(Sequence).Acquire("n", alice, time.Second))
	if _, ok := s.Lease("n"); ok || s.meta.leases != 0 {
		t.Fatal("it is held", s.meta.leases)
	}
	does(t, s, new(Sequence).Acquire("n", alice, time.Second), 0)
	fails(new(Sequence).Release("n", s.Applied().Index))
	if _, ok := s.Lease("n"); !ok || s.meta.leases != 1 {
		t.Fatal("it is not held", s.meta.leases)
	}
}

func TestLeasesAreBounded(t *testing.T) {
	s := open(t, crashdisk.New())
	does(t, s, Raise(2, true), 0)
	var all []Command
	for i := range LeasesMax + 1 {
		all = append(all, Command{Body: body(t, new(Sequence).Acquire(fmt.Sprint(i), alice, time.Second))})
	}
	a, err := s.Apply([]*pb.Entry{entryOf(s.Applied().Index+1, all...)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range a[0].Outcomes {
		if (o.Err != nil) != (i == LeasesMax) || o.Err != nil && o.Err.Code != CodeTooManyLeases {
			t.Fatal(i, o.Err)
		}
	}
	if n := len(s.Leases()); n != LeasesMax {
		t.Fatal(n)
	}
}

// The level rises by the step alone; "alone" holds in a group of one; a level that this
// release does not know stops the member; until the level rises the release before can
// read the meta.
func TestLevel(t *testing.T) {
	d := crashdisk.New()
	s := open(t, d)
	version := func() byte { v, _, _ := get(s.db, metaKey); return v[0] }
	does(t, s, new(Sequence).Set([]byte("k"), nil), 0)
	if s.Level() != 1 || version() != 2 {
		t.Fatal(s.Level(), version())
	}
	join := func(id uint64) ConfChange {
		return func(*pb.Entry) (*pb.ConfState, error) {
			return &pb.ConfState{Voters: []uint64{3}, Learners: []uint64{id}}, nil
		}
	}
	e := entryOf(s.Applied().Index + 1)
	e.Type = pb.EntryConfChange.Enum()
	if _, err := s.Apply([]*pb.Entry{e}, join(4)); err != nil {
		t.Fatal(err)
	}
	does(t, s, Raise(2, true), CodeLevel)
	does(t, s, Raise(2, false), 0)
	does(t, s, Raise(1, false), 0)
	if s.Level() != 2 || version() != 3 {
		t.Fatal(s.Level(), version())
	}
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if s = open(t, d.Kill()); s.Level() != 2 {
		t.Fatal("forgotten")
	}
	_, err := s.Apply([]*pb.Entry{entryOf(s.Applied().Index+1, Command{Body: body(t, Raise(LevelNewest+1, false))})}, nil)
	if !errors.Is(err, ErrNewer) || !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
}

// What a sequence needs of the group is what its steps and functions need.
func TestSequenceLevel(t *testing.T) {
	r, err := NewRegistry(Function{Name: "new", Version: 1, Level: 2, Run: func(Tx, []byte) ([]byte, error) { return nil, nil }})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		seq  *Sequence
		want uint32
	}{
		{everyStep(), 1}, {Raise(2, true), 1}, {new(Sequence).Confirm([]byte("k"), nil), 2}, {new(Sequence).AssertLease("n", 1), 2},
		{Mark(), 2}, {new(Sequence).Call("new", 1, nil), 2},
	} {
		if got := c.seq.Level(r); got != c.want {
			t.Errorf("%d, not %d", got, c.want)
		}
	}
}
