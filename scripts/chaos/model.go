package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"openvstorage/arakoon"
	"openvstorage/scripts/group"

	"github.com/anishathalye/porcupine"
)

// What is asked of a pair of keys. Pairs are judged one by one, and sequences have two keys.
const (
	get        = iota
	getBoth    // at one moment
	set        // the key
	testAndSet // the key: expected, wanted
	both       // a sequence: set the other to other, assert that the key is expected, set it to wanted
	add        // the user function: appends a token
	kinds
)

var kindNames = [kinds]string{"get", "get both", "set", "test and set", "both", "append"}

// pair names two keys. New ones are taken every few seconds, so that none has a history that
// cannot be judged.
type pair struct{ round, number int }

// pairs is how many there are in a round.
const pairs = 6

func (p pair) key(side int) []byte { return fmt.Appendf(nil, "c/%05d/%d/%d", p.round, p.number, side) }

// input is what a client asks for. A value is never empty: "" says that there is none.
type input struct {
	kind, side              int
	pair                    pair
	expected, wanted, other string
}

// output is what it was told. An unknown outcome may be any, at any time from then on.
type output struct {
	unknown, ok bool
	values      [2]string
}

func (i input) String() string {
	return fmt.Sprintf("%s %s %q -> %q, other %q", kindNames[i.kind], i.pair.key(i.side), i.expected, i.wanted, i.other)
}

// content is what a pair has.
type content [2]string

// step is the specification: what an input makes of a pair, and whether the output is right.
func (i input) step(was content, o output) (bool, content) {
	now, right := was, output{ok: true}
	switch i.kind {
	case get:
		right.values[0] = was[i.side]
	case getBoth:
		right.values = was
	case set:
		now[i.side] = i.wanted
	case testAndSet:
		if right.values[0] = was[i.side]; was[i.side] == i.expected {
			now[i.side] = i.wanted
		}
	case both:
		if right.ok = was[i.side] == i.expected; right.ok {
			now[i.side], now[1-i.side] = i.wanted, i.other
		}
	case add:
		now[i.side] = group.Extended(was[i.side], i.wanted)
		right.values[0] = now[i.side]
	}
	return o.unknown || o == right, now
}

// optional is a value as the interface has it: nil if there is none.
func optional(v string) []byte {
	if v == "" {
		return nil
	}
	return []byte(v)
}

// sequence is what an input that writes asks for.
func (i input) sequence() *arakoon.Sequence {
	k, s := i.pair.key(i.side), new(arakoon.Sequence)
	switch i.kind {
	case set:
		s.Set(k, []byte(i.wanted))
	case testAndSet:
		s.TestAndSet(k, optional(i.expected), []byte(i.wanted))
	case both:
		s.Set(i.pair.key(1-i.side), []byte(i.other)).Assert(k, optional(i.expected)).Set(k, []byte(i.wanted))
	case add:
		s.Call(group.Append.Name, group.Append.Version, fmt.Appendf(nil, "%s %s", k, i.wanted))
	}
	return s
}

// recorder is the history that clients see, by one monotonic clock.
type recorder struct {
	began time.Time

	mu     sync.Mutex
	rounds map[int][]porcupine.Operation
	wrong  []string
	count  [kinds]int
	unsure int            // outcomes that nobody knows
	refuse map[string]int // requests that were answered with an error of the interface

	writes map[string]written // by value; values are used once
	events map[string]uint64  // the revision at which a watcher saw a value
	shown  map[written]bool   // that a watcher saw a key change at a revision
	seen   []span             // what watchers were told without a gap
}

// written is where and when. Several writes may have one revision: a watcher is told what
// all of them have made of the key.
type written struct {
	key      string
	revision uint64
}

// span is the revisions from first to last.
type span struct{ first, last uint64 }

func newRecorder() *recorder {
	return &recorder{
		began: time.Now(), rounds: map[int][]porcupine.Operation{}, refuse: map[string]int{},
		writes: map[string]written{}, events: map[string]uint64{}, shown: map[written]bool{},
	}
}

func (r *recorder) now() int64 { return int64(time.Since(r.began)) }

// violation notes what must never be.
func (r *recorder) violation(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
}

// done records an operation that began at call. One of an unknown outcome has no end.
func (r *recorder) done(client int, call int64, in input, out output, revision uint64) {
	end := r.now()
	if out.unknown {
		end = math.MaxInt64
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count[in.kind]++
	if out.unknown {
		r.unsure++
	}
	r.rounds[in.pair.round] = append(r.rounds[in.pair.round], porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: end})
	if revision == 0 || !out.ok {
		return
	}
	here, there := written{string(in.pair.key(in.side)), revision}, written{string(in.pair.key(1 - in.side)), revision}
	switch in.kind {
	case set:
		r.writes[in.wanted] = here
	case both:
		r.writes[in.wanted], r.writes[in.other] = here, there
	case add:
		r.writes[out.values[0]] = here
	}
}

// refused notes a request that was answered with an error.
func (r *recorder) refused(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse[what]++
}

// atLeast judges a read that was to see a revision.
func (r *recorder) atLeast(key []byte, value string, revision uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if wrote, ok := r.writes[value]; (ok && wrote.revision < revision) || value == "" {
		r.wrong = append(r.wrong, fmt.Sprintf("a read of %s that was to see revision %d saw %q, which revision %d wrote", key, revision, value, wrote.revision))
	}
}

// watched notes what a watcher was told.
func (r *recorder) watched(from uint64, e arakoon.Events) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range e.List {
		if at, ok := r.events[string(one.Value)]; ok && at != e.Revision {
			r.wrong = append(r.wrong, fmt.Sprintf("a watcher saw %q at revision %d and at revision %d", one.Value, at, e.Revision))
		}
		r.events[string(one.Value)] = e.Revision
		r.shown[written{string(one.Key), e.Revision}] = true
	}
	if n := len(r.seen); n > 0 && r.seen[n-1].last+1 == from {
		r.seen[n-1].last = e.Revision
		return
	}
	r.seen = append(r.seen, span{from, e.Revision})
}

// judge says all that was wrong. It is for when all clients have ended.
func (r *recorder) judge(patience time.Duration) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	wrong := slices.Clone(r.wrong)
	missed := 0
	for value, w := range r.writes {
		covered := slices.ContainsFunc(r.seen, func(s span) bool { return s.first <= w.revision && w.revision <= s.last })
		at, ok := r.events[value]
		if ok && at != w.revision || covered && !r.shown[w] {
			if missed++; missed <= 5 {
				wrong = append(wrong, fmt.Sprintf("%q was written to %s at revision %d, which a watcher was told of, but it saw the value at revision %d (0: never)", value, w.key, w.revision, at))
			}
		}
	}
	model := porcupine.Model{
		Init:  func() any { return content{} },
		Step:  func(state, in, out any) (bool, any) { return in.(input).step(state.(content), out.(output)) },
		Equal: func(a, b any) bool { return a == b },
	}
	deadline := time.Now().Add(patience)
	for _, all := range r.rounds {
		parts := map[pair][]porcupine.Operation{}
		for _, o := range all {
			p := o.Input.(input).pair
			parts[p] = append(parts[p], o)
		}
		for p, part := range parts {
			left := time.Until(deadline)
			if left <= 0 {
				return append(wrong, "not all could be judged in time")
			}
			switch porcupine.CheckOperationsTimeout(model, part, left) {
			case porcupine.Illegal:
				wrong = append(wrong, fmt.Sprintf("what happened to %v is not linearizable:\n%s", p, told(part)))
			case porcupine.Unknown:
				return append(wrong, fmt.Sprintf("what happened to %v could not be judged in time: %d operations", p, len(part)))
			}
		}
	}
	return wrong
}

func told(part []porcupine.Operation) string {
	var lines []string
	for _, o := range part {
		lines = append(lines, fmt.Sprintf("%12d %20d  client %d  %v: %+v", o.Call, o.Return, o.ClientId, o.Input, o.Output))
	}
	return strings.Join(lines, "\n")
}
