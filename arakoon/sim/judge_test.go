package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
)

// The judge finds what it is for, and nothing else.
func TestJudge(t *testing.T) {
	a, b := some("a"), some("b")
	wrote := func(v value) input { return input{kind: set, wanted: v} }
	saw := func(v value) output { return output{ok: true, values: [2]value{v}} }
	read, done, unknown := input{kind: get}, output{ok: true}, output{unknown: true}
	type op struct {
		call, end int64
		in        input
		out       output
	}
	for _, c := range []struct {
		name string
		ops  []op
		good bool
	}{
		{"a read of what was written", []op{{1, 2, wrote(a), done}, {3, 4, read, saw(a)}}, true},
		{"a stale read", []op{{1, 2, wrote(a), done}, {3, 4, wrote(b), done}, {5, 6, read, saw(a)}}, false},
		{"a lost write", []op{{1, 2, wrote(a), done}, {3, 4, read, saw(value{})}}, false},
		{"a read beside a write", []op{{1, 2, wrote(a), done}, {3, 6, wrote(b), done}, {4, 5, read, saw(a)}}, true},
		{"back to the old value", []op{{1, 2, wrote(a), done}, {3, 9, wrote(b), done}, {4, 5, read, saw(b)}, {6, 7, read, saw(a)}}, false},
		{"an unknown write that happens late", []op{{1, 2, wrote(a), unknown}, {3, 4, read, saw(value{})}, {5, 6, read, saw(a)}}, true},
		{"an unknown write that never happens", []op{{1, 2, wrote(a), unknown}, {3, 4, read, saw(value{})}}, true},
		{"an unknown write that happens twice", []op{
			{1, 2, input{kind: add, wanted: a}, unknown}, {3, 4, read, saw(some(",a"))}, {5, 6, read, saw(some(",a,a"))},
		}, false},
		{"a test of an older value", []op{{1, 2, wrote(a), done}, {3, 4, input{kind: testAndSet, expected: b, wanted: b}, saw(b)}}, false},
		{"a failed sequence with an effect", []op{
			{1, 2, wrote(a), done}, {3, 4, input{kind: both, expected: b, wanted: b, other: b}, output{}}, {5, 6, read, saw(b)},
		}, false},
		{"half of a sequence", []op{
			{1, 2, wrote(a), done}, {3, 4, input{kind: moveOver, other: b}, saw(a)}, {5, 6, input{kind: getBoth}, output{ok: true, values: [2]value{a, b}}},
		}, false},
		{"a delete of nothing", []op{{1, 2, input{kind: remove}, output{}}, {3, 4, input{kind: remove}, done}}, false},
	} {
		r := newRecorder()
		for i, o := range c.ops {
			r.now = o.end - 1
			r.done(i, o.call, o.in, o.out)
		}
		if decided, err := r.judge(time.Minute); !decided || (err == nil) != c.good {
			t.Errorf("%s: %v %v", c.name, decided, err)
		}
	}
	r := newRecorder()
	r.wrote(7, wrote(a), done)
	r.atLeast(key(0, 0), a, 7)
	if _, err := r.judge(time.Minute); err != nil {
		t.Error(err)
	}
	if r.atLeast(key(0, 0), a, 8); true {
		if _, err := r.judge(time.Minute); err == nil {
			t.Error("a read that was to see index 8 saw what index 7 wrote")
		}
	}
}

// The watch finds what it is for.
func TestWatch(t *testing.T) {
	from := func(kind pb.MessageType, from, to, term, index uint64, reject bool) *pb.Message {
		return &pb.Message{Type: kind.Enum(), From: &from, To: &to, Term: &term, Index: &index, Reject: &reject}
	}
	for _, c := range []struct {
		want string
		list []*pb.Message
	}{
		{"", []*pb.Message{from(pb.MsgVoteResp, 1, 2, 5, 0, false), from(pb.MsgVoteResp, 1, 2, 5, 0, false), from(pb.MsgVoteResp, 1, 3, 6, 0, false), from(pb.MsgVoteResp, 1, 2, 6, 0, true)}},
		{"votes for 2 and for 3", []*pb.Message{from(pb.MsgVoteResp, 1, 2, 5, 0, false), from(pb.MsgVoteResp, 1, 3, 5, 0, false)}},
		{"votes for 1 and for 3", []*pb.Message{from(pb.MsgApp, 1, 2, 5, 0, false), from(pb.MsgVoteResp, 1, 3, 5, 0, false)}},
		{"two leaders", []*pb.Message{from(pb.MsgApp, 1, 2, 5, 0, false), from(pb.MsgHeartbeat, 2, 3, 5, 0, false)}},
	} {
		w := newWatch()
		for _, m := range c.list {
			w.sent(m)
		}
		if err := w.err(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.want, err)
		}
	}
	w := newWatch()
	if w.has(1, 5, "a"); w.err() != nil {
		t.Error(w.err())
	}
	if w.has(2, 5, "b"); w.err() == nil {
		t.Error("two members differ at index 5")
	}
}

// A failing plan loses all faults that it fails without.
func TestShrink(t *testing.T) {
	p := plan{}
	for i := range 11 {
		p.faults = append(p.faults, fault{number: i})
	}
	has := func(p plan, n int) bool {
		return slices.ContainsFunc(p.faults, func(f fault) bool { return f.number == n })
	}
	for _, needed := range [][]int{{}, {0}, {10}, {3, 4}, {0, 5, 10}} {
		left := smallest(p, func(p plan) bool {
			return !slices.ContainsFunc(needed, func(n int) bool { return !has(p, n) })
		})
		if len(left.faults) != len(needed) {
			t.Errorf("%v are needed, %v are left", needed, left.faults)
		}
	}
}

// A seed gives one plan.
func TestPlan(t *testing.T) {
	names := map[string]bool{}
	for seed := range uint64(500) {
		p := newPlan(seed)
		if q := newPlan(seed); fmt.Sprint(p) != fmt.Sprint(q) {
			t.Fatalf("seed %d gives\n%v\nand\n%v", seed, p, q)
		}
		for _, f := range p.faults {
			names[f.name] = true
		}
	}
	for _, f := range trials {
		if !names[f.name] {
			t.Errorf("no plan of 500 has the fault %q", f.name)
		}
	}
}
