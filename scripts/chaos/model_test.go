package main

import (
	"strings"
	"testing"
	"time"

	"openvstorage/arakoon"
)

// The judge finds what it is for, and nothing else.
func TestJudge(t *testing.T) {
	p := pair{1, 2}
	type op struct {
		call, end int64
		in        input
		out       output
	}
	wrote := func(v string) input { return input{kind: set, pair: p, wanted: v} }
	saw := func(v string) output { return output{ok: true, values: [2]string{v}} }
	read, done, unknown := input{kind: get, pair: p}, output{ok: true}, output{unknown: true}
	for _, c := range []struct {
		name string
		ops  []op
		good bool
	}{
		{"a read of what was written", []op{{1, 2, wrote("a"), done}, {3, 4, read, saw("a")}}, true},
		{"a stale read", []op{{1, 2, wrote("a"), done}, {3, 4, wrote("b"), done}, {5, 6, read, saw("a")}}, false},
		{"a lost write", []op{{1, 2, wrote("a"), done}, {3, 4, read, saw("")}}, false},
		{"a read beside a write", []op{{1, 2, wrote("a"), done}, {3, 6, wrote("b"), done}, {4, 5, read, saw("a")}}, true},
		{"an unknown write that happens late", []op{{1, 2, wrote("a"), unknown}, {3, 4, read, saw("")}, {5, 6, read, saw("a")}}, true},
		{"a write that failed for certain and is there", []op{{5, 6, read, saw("a")}}, false},
		{"an append that happens twice", []op{{1, 2, input{kind: add, pair: p, wanted: "a"}, unknown}, {3, 4, read, saw(",a,a")}}, false},
		{"half of a sequence", []op{
			{1, 2, input{kind: both, pair: p, wanted: "a", other: "b"}, done}, {3, 4, input{kind: getBoth, pair: p}, output{ok: true, values: [2]string{"a"}}},
		}, false},
		{"a failed sequence with an effect", []op{
			{1, 2, input{kind: both, pair: p, expected: "x", wanted: "a", other: "b"}, output{}}, {3, 4, read, saw("a")},
		}, false},
	} {
		r := newRecorder()
		for i, o := range c.ops {
			r.done(i, o.call, o.in, o.out, 0)
			if all := r.rounds[p.round]; !o.out.unknown {
				all[len(all)-1].Return = o.end
			}
		}
		if wrong := r.judge(time.Minute); (len(wrong) == 0) != c.good {
			t.Errorf("%s: %v", c.name, wrong)
		}
	}
}

// What watchers and reads of a revision may not see is found.
func TestJudgeOfRevisions(t *testing.T) {
	p := pair{1, 2}
	event := func(revision uint64, v string) arakoon.Events {
		return arakoon.Events{Revision: revision, List: []arakoon.Event{{Key: p.key(0), Value: []byte(v)}}}
	}
	for _, c := range []struct {
		name string
		do   func(r *recorder)
		want string
	}{
		{"all was seen", func(r *recorder) { r.watched(4, event(5, "a")) }, ""},
		{"a later write of the same revision", func(r *recorder) { r.watched(4, event(5, "b")) }, ""},
		{"not watched", func(r *recorder) { r.watched(6, event(7, "c")) }, ""},
		{"a gap", func(r *recorder) { r.watched(4, event(6, "b")) }, "was written"},
		{"a gap that nothing is in", func(r *recorder) { r.watched(4, arakoon.Events{Revision: 9}) }, "was written"},
		{"another revision", func(r *recorder) { r.watched(8, event(9, "a")) }, "was written"},
		{"twice", func(r *recorder) { r.watched(4, event(5, "a")); r.watched(6, event(6, "a")) }, "and at revision"},
		{"an old read", func(r *recorder) { r.atLeast(p.key(0), "a", 6) }, "was to see"},
		{"a read that is new enough", func(r *recorder) { r.atLeast(p.key(0), "a", 5) }, ""},
	} {
		r := newRecorder()
		r.done(0, 1, input{kind: set, pair: p, wanted: "a"}, output{ok: true}, 5)
		c.do(r)
		wrong := strings.Join(r.judge(time.Minute), "; ")
		if c.want == "" && wrong != "" || !strings.Contains(wrong, c.want) {
			t.Errorf("%s: %q", c.name, wrong)
		}
	}
}
