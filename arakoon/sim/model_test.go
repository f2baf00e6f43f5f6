package sim

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"openvstorage/arakoon"

	"github.com/anishathalye/porcupine"
)

// Keys come in pairs, so that sequences have two of them, and porcupine can judge each
// pair by itself.
const pairs = 10

func key(pair, side int) []byte { return fmt.Appendf(nil, "%02d/%d", pair, side) }

// value is a key's, or that there is none.
type value struct {
	there bool
	text  string
}

func some(text string) value { return value{true, text} }

func valueOf(b []byte) value {
	if b == nil {
		return value{}
	}
	return some(string(b))
}

// bytes is the value as the interface of a node has it: nil if there is none.
func (v value) bytes() []byte {
	if !v.there {
		return nil
	}
	return append([]byte{}, v.text...)
}

func (v value) String() string {
	if !v.there {
		return "-"
	}
	return v.text
}

type kind int

const (
	get        kind = iota
	getBoth         // one moment
	set             // key
	remove          // key; an error if it is absent
	testAndSet      // key: expected, wanted
	both            // a sequence: set the other to other, assert key is expected, set it to wanted
	moveOver        // a sequence: assert that key exists, take it out, set the other to other
	add             // a user function: appends a token to the key's value
)

var kindNames = [...]string{"get", "get both", "set", "delete", "test and set", "both", "move", "append"}

// input is what a client asks for.
type input struct {
	kind             kind
	pair, side       int
	expected, wanted value
	other            value
	newer            bool // of add: by the function that only the newer release has
}

// output is what it was told. An unknown outcome may be any, at any time from then on.
type output struct {
	unknown bool
	ok      bool     // the sequence was done
	values  [2]value // that were read, or the old or new one
}

func (i input) String() string {
	s := fmt.Sprintf("%s %02d/%d", kindNames[i.kind], i.pair, i.side)
	switch i.kind {
	case set, add:
		s += " " + i.wanted.String()
	case testAndSet:
		s += fmt.Sprintf(" %v -> %v", i.expected, i.wanted)
	case both, moveOver:
		s += fmt.Sprintf(" %v -> %v, other %v", i.expected, i.wanted, i.other)
	}
	return s
}

func (o output) String() string {
	if o.unknown {
		return "unknown"
	}
	return fmt.Sprintf("%v %v", o.ok, o.values)
}

// content is what a pair has.
type content [2]value

// step is the whole specification of a pair: what an input makes of it, and whether the
// output is the right one.
func (i input) step(was content, o output) (bool, content) {
	now := was
	here, there := i.side, 1-i.side
	right := output{ok: true}
	switch i.kind {
	case get:
		right.values[0] = was[here]
	case getBoth:
		right.values = was
	case set:
		now[here] = i.wanted
	case remove:
		right.ok = was[here].there
		now[here] = value{}
	case testAndSet:
		right.values[0] = was[here]
		if was[here] == i.expected {
			now[here] = i.wanted
		}
	case both:
		if right.ok = was[here] == i.expected; right.ok {
			now[here], now[there] = i.wanted, i.other
		}
	case moveOver:
		if right.ok = was[here].there; right.ok {
			now[here], now[there] = value{}, i.other
			right.values[0] = was[here]
		}
	case add:
		now[here] = some(extended(was[here].text, i.wanted.text))
		right.values[0] = now[here]
	}
	return o.unknown || o == right, now
}

// longest is how long a value may get by add; then it begins anew.
const longest = 100

func extended(was, token string) string {
	if len(was) > longest {
		was = ""
	}
	return was + "," + token
}

// extend is the user function of add. Its argument is the key's length, the key, and the token.
var extend = arakoon.Function{Name: "extend", Version: 1, Run: func(tx arakoon.Tx, arg []byte) ([]byte, error) {
	name, token, ok := bytes.Cut(arg, []byte(" "))
	if !ok {
		return nil, fmt.Errorf("argument %q", arg)
	}
	was, _ := tx.Get(name)
	now := []byte(extended(string(was), string(token)))
	tx.Set(name, now)
	return now, nil
}}

// sequence is what a node is asked to do for an input that writes.
func (i input) sequence() *arakoon.Sequence {
	k, other := key(i.pair, i.side), key(i.pair, 1-i.side)
	s := new(arakoon.Sequence)
	switch i.kind {
	case set:
		s.Set(k, i.wanted.bytes())
	case remove:
		s.Delete(k)
	case testAndSet:
		s.TestAndSet(k, i.expected.bytes(), i.wanted.bytes())
	case both:
		s.Set(other, i.other.bytes()).Assert(k, i.expected.bytes()).Set(k, i.wanted.bytes())
	case moveOver:
		s.AssertExists(k).Replace(k, nil).Set(other, i.other.bytes())
	case add:
		f := extend
		if i.newer {
			f = newerExtend
		}
		s.Call(f.Name, f.Version, fmt.Appendf(nil, "%s %s", k, i.wanted.text))
	}
	return s
}

// told is the output of a write that was done.
func (i input) told(results []arakoon.Result) output {
	o := output{ok: true}
	old := func(r arakoon.Result) value { return value{r.Found, string(r.Value)} }
	switch i.kind {
	case testAndSet:
		o.values[0] = old(results[0])
	case moveOver:
		o.values[0] = old(results[1])
	case add:
		o.values[0] = valueOf(results[0].Value)
	}
	return o
}

// recorder is the history that clients see. Its clock counts calls and returns: many of
// them fall on one moment of synctest's.
type recorder struct {
	mu      sync.Mutex
	now     int64
	list    []porcupine.Operation
	unsure  int
	writes  map[string]uint64 // the index of whatever wrote a value
	floors  []floor
	touched map[touched]bool

	answered []answered // of writes
	aged     int        // reads of one member's state that told how old that was
}

// answered is when the client was told of a write of a key.
type answered struct {
	key   string
	index uint64
	at    time.Time
}

// touched is a key that a revision wrote.
type touched struct {
	key   string
	index uint64
}

// floor says that a read was promised to see an index.
type floor struct {
	key   string
	value value
	index uint64
}

func newRecorder() *recorder {
	return &recorder{writes: map[string]uint64{}, touched: map[touched]bool{}}
}

func (r *recorder) tick() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now++
	return r.now
}

// done records an operation that began at call. One of an unknown outcome has no end.
func (r *recorder) done(client int, call int64, in input, out output) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now++
	op := porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: r.now}
	if out.unknown {
		op.Return = math.MaxInt64
		r.unsure++
	}
	r.list = append(r.list, op)
}

// wrote notes the index of a write. Tokens are never used twice, so a value tells its write.
func (r *recorder) wrote(index uint64, in input, out output) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if in.kind == set || in.kind == add || out.ok && in.kind != testAndSet {
		r.touched[touched{string(key(in.pair, in.side)), index}] = true
		r.answered = append(r.answered, answered{string(key(in.pair, in.side)), index, time.Now()})
	}
	if out.ok && (in.kind == both || in.kind == moveOver) {
		r.touched[touched{string(key(in.pair, 1-in.side)), index}] = true
	}
	switch in.kind {
	case set:
		r.writes[in.wanted.text] = index
	case add:
		r.writes[out.values[0].text] = index
	case both:
		if out.ok {
			r.writes[in.wanted.text], r.writes[in.other.text] = index, index
		}
	}
}

// atLeast notes what a read of that consistency has returned.
func (r *recorder) atLeast(key []byte, v value, index uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.floors = append(r.floors, floor{string(key), v, index})
}

// local notes what a read of one member's state has returned, which was to see all that was
// answered before a time.
func (r *recorder) local(key []byte, v value, asOf time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := floor{key: string(key), value: v}
	for _, a := range r.answered {
		if a.key == f.key && a.at.Before(asOf) {
			f.index = max(f.index, a.index)
		}
	}
	r.aged++
	r.floors = append(r.floors, f)
}

// judge says what is wrong with the history, nil if it is linearizable. decided is false
// if that could not be found out within the time.
func (r *recorder) judge(patience time.Duration) (decided bool, err error) {
	for _, f := range r.floors {
		if index, ok := r.writes[f.value.text]; ok && f.value.there && index < f.index {
			return true, fmt.Errorf("a read of %s that was to see index %d saw %v, which index %d wrote", f.key, f.index, f.value, index)
		}
	}
	model := porcupine.Model{
		Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
			parts := make([][]porcupine.Operation, pairs)
			for _, o := range all {
				p := o.Input.(input).pair
				parts[p] = append(parts[p], o)
			}
			return parts
		},
		Init: func() any { return content{} },
		Step: func(state, in, out any) (bool, any) {
			return in.(input).step(state.(content), out.(output))
		},
	}
	switch porcupine.CheckOperationsTimeout(model, r.list, patience) {
	case porcupine.Ok:
		return true, nil
	case porcupine.Unknown:
		return false, nil
	}
	for p, part := range model.Partition(r.list) {
		if porcupine.CheckOperations(model, part) {
			continue
		}
		var lines []string
		for _, o := range part {
			lines = append(lines, fmt.Sprintf("%6d %20d  client %d  %v: %v", o.Call, o.Return, o.ClientId, o.Input, o.Output))
		}
		return true, fmt.Errorf("what happened to pair %d is not linearizable:\n%s", p, strings.Join(lines, "\n"))
	}
	return true, fmt.Errorf("not linearizable as a whole, and each pair is")
}
