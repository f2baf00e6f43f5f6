package state

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	pb "go.etcd.io/raft/v3/raftpb"
)

// tx is one command that is being run. It writes into the batch, and if the command fails
// the batch takes those writes back.
type tx struct {
	under         *writes
	bytes         int // that it writes
	results       int // bytes of its results, encoded
	time          int64
	index         uint64 // of the entry
	conf          *pb.ConfState
	level, leases uint32 // of the group, as this command has made them
	marks         int    // of the batch, with those of this command
	zones         Requirement
	knows         uint32 // the newest level that this release knows
}

// abort is the value of a panic that ends a command: user functions have no way to return
// a failed read. State.run() catches it. result is the command's result, or failure is
// what stops the member.
type abort struct {
	result  *Error
	failure error
}

func fatal(err error) { panic(abort{failure: err}) }

var userPrefix = []byte("u")

func userKey(key []byte) []byte {
	k := make([]byte, 0, 1+len(key))
	return append(append(k, userPrefix...), key...)
}

// prefixEnd is the first key behind all that have a prefix, nil if there is none.
func prefixEnd(prefix []byte) []byte {
	for n := len(prefix); n > 0; n-- {
		if prefix[n-1] != 0xff {
			end := bytes.Clone(prefix[:n])
			end[n-1]++
			return end
		}
	}
	return nil
}

func (t *tx) Time() time.Time { return time.Unix(0, t.time).UTC() }

func (t *tx) Get(key []byte) ([]byte, bool) {
	v, err := t.under.get(t.inPebble(key))
	if err != nil {
		fatal(err)
	}
	return v, v != nil
}

// inPebble returns a user's key as Pebble has it, valid until the next call.
func (t *tx) inPebble(key []byte) []byte {
	w := t.under
	w.key = append(append(w.key[:0], userPrefix...), key...)
	return w.key
}

// get returns a copy of a value, never nil if it was found.
func get(r pebble.Reader, key []byte) ([]byte, bool, error) {
	v, closer, err := r.Get(key)
	if err == pebble.ErrNotFound {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, damaged(err)
	}
	out := append(make([]byte, 0, len(v)), v...)
	return out, true, closer.Close()
}

func (t *tx) write(key, value []byte) {
	t.bytes += len(key) + len(value)
	switch {
	case len(key) > KeyMax:
		panic(abort{result: &Error{Code: CodeTooLarge, Message: fmt.Sprintf("key of %d bytes; the limit is %d", len(key), KeyMax)}})
	case len(value) > ValueMax:
		panic(abort{result: &Error{Code: CodeTooLarge, Key: bytes.Clone(key), Message: fmt.Sprintf("value of %d bytes; the limit is %d", len(value), ValueMax)}})
	case t.bytes > EffectsMax:
		panic(abort{result: &Error{Code: CodeTooLarge, Message: fmt.Sprintf("command writes more than %d bytes", EffectsMax)}})
	}
	t.under.set(t.inPebble(key), value)
}

func (t *tx) Set(key, value []byte) { t.write(key, t.under.copy(value)) }

func (t *tx) Delete(key []byte) bool {
	_, found := t.Get(key)
	if found {
		t.write(key, nil)
	}
	return found
}

func (t *tx) Range(first, last []byte, limit int, fn func(key, value []byte) bool) {
	t.scan(first, last, limit, false, fn)
}

func (t *tx) Reverse(first, last []byte, limit int, fn func(key, value []byte) bool) {
	t.scan(first, last, limit, true, fn)
}

func (t *tx) scan(first, last []byte, limit int, reverse bool, fn func(key, value []byte) bool) {
	under, err := t.under.reader()
	if err != nil {
		fatal(err)
	}
	n := 0
	err = scan(under, first, last, reverse, func(key, value []byte) bool {
		n++
		return fn(key, value) && (limit <= 0 || n < limit)
	})
	if err != nil {
		fatal(err)
	}
}

// scan calls fn with copies of the users' keys in [first, last) and their
// values, which are never nil.
func scan(r pebble.Reader, first, last []byte, reverse bool, fn func(key, value []byte) bool) (err error) {
	return visit(r, first, last, reverse, func(key, value []byte) bool {
		return fn(bytes.Clone(key), append(make([]byte, 0, len(value)), value...))
	})
}

// visit is scan without copies: the slices are valid during the call.
func visit(r pebble.Reader, first, last []byte, reverse bool, fn func(key, value []byte) bool) (err error) {
	upper := prefixEnd(userPrefix)
	if last != nil {
		upper = userKey(last)
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: userKey(first), UpperBound: upper})
	if err != nil {
		return err
	}
	defer func() {
		if e := it.Close(); err == nil {
			err = e
		}
		err = damaged(err)
	}()
	start, next := it.First, it.Next
	if reverse {
		start, next = it.Last, it.Prev
	}
	for ok := start(); ok; ok = next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if !fn(it.Key()[len(userPrefix):], v) {
			break
		}
	}
	return it.Error()
}

// lookUp fills values with those of keys at one moment; nil for those absent. An iterator is
// that moment: a snapshot would be one too, but its end has Pebble look for work, which costs
// several times what the reads do.
func lookUp(r pebble.Reader, keys, values [][]byte) (err error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: userPrefix, UpperBound: prefixEnd(userPrefix)})
	if err != nil {
		return damaged(err)
	}
	defer func() {
		if e := it.Close(); err == nil {
			err = damaged(e)
		}
	}()
	size := 0
	for i, k := range keys {
		key := userKey(k)
		if !it.SeekGE(key) || !bytes.Equal(it.Key(), key) {
			if err := it.Error(); err != nil {
				return damaged(err)
			}
			continue
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return damaged(err)
		}
		if size += len(v); size > MultiGetMax {
			return &Error{Code: CodeTooLarge, Message: fmt.Sprintf("values of %d keys have more than %d bytes; ask for fewer at a time", len(keys), MultiGetMax)}
		}
		values[i] = append(make([]byte, 0, len(v)), v...)
	}
	return nil
}

// run runs the steps of a sequence. at is the one that is being run, also when a panic of
// type abort ends it.
func (t *tx) run(body []byte, functions *Registry, at *int) (results []Result, failed *Error) {
	r := &reader{b: body}
	for ; len(r.b) > 0; *at++ {
		one := mustReadStep(r)
		if need := stepLevel(one.op); need > t.knows {
			fatal(newerLevel(fmt.Sprintf("step of kind %d of ", one.op), need, t.knows))
		}
		result, failed := t.do(one, functions)
		if failed != nil {
			return nil, failed
		}
		results = append(results, result)
		if failed := t.answers(result); failed != nil {
			return nil, failed
		}
	}
	return results, nil
}

// do does a step. Its result is made of the state and the step alone, as it must be the
// same on each member.
func (t *tx) do(s step, functions *Registry) (result Result, failed *Error) {
	switch s.op {
	case opSet:
		t.Set(s.key, s.value)
	case opDelete:
		if !t.Delete(s.key) {
			return result, &Error{Code: CodeNotFound, Key: bytes.Clone(s.key), Message: "not found"}
		}
	case opDeletePrefix:
		t.Range(s.key, prefixEnd(s.key), 0, func(k, _ []byte) bool {
			t.write(k, nil)
			result.Count++
			return true
		})
	case opAssert:
		if old, found := t.Get(s.key); found != (s.value != nil) || !bytes.Equal(old, s.value) {
			return result, &Error{Code: CodeAssert, Key: bytes.Clone(s.key), Message: "assertion failed"}
		}
	case opAssertExists:
		if _, found := t.Get(s.key); !found {
			return result, &Error{Code: CodeAssert, Key: bytes.Clone(s.key), Message: "assertion failed"}
		}
	case opAssertRange:
		return result, t.assertRange(s.key, s.keys)
	case opTestAndSet:
		old, found := t.Get(s.key)
		result.Value, result.Found = old, found
		if found == (s.value != nil) && bytes.Equal(old, s.value) {
			t.replace(s.key, s.wanted)
		}
	case opReplace:
		result.Value, result.Found = t.Get(s.key)
		t.replace(s.key, s.wanted)
	case opCall:
		result.Value, failed = t.call(functions, string(s.key), s.number, s.value)
	case opConfirm:
		old, found := t.Get(s.key)
		if result.Found = found && bytes.Equal(old, s.value); !result.Found {
			t.Set(s.key, s.value)
		}
	case opRaise:
		return result, t.raise(s.number, s.alone)
	case opMark:
		t.marks++
	case opRequire:
		return t.require(s)
	default:
		return t.lease(s)
	}
	return result, failed
}

func (t *tx) replace(key, wanted []byte) {
	if wanted == nil {
		t.Delete(key)
	} else {
		t.Set(key, wanted)
	}
}

func (t *tx) assertRange(prefix []byte, keys [][]byte) *Error {
	var odd []byte
	t.Range(prefix, prefixEnd(prefix), 0, func(k, _ []byte) bool {
		if len(keys) == 0 || !bytes.Equal(k, keys[0]) {
			odd = k
			return false
		}
		keys = keys[1:]
		return true
	})
	if odd == nil && len(keys) > 0 {
		odd = bytes.Clone(keys[0])
	}
	if odd != nil {
		return &Error{Code: CodeAssert, Key: odd, Message: "range assertion failed"}
	}
	return nil
}

func (t *tx) call(functions *Registry, name string, version uint32, arg []byte) ([]byte, *Error) {
	f, ok := functions.functions[functionKey{name, version}]
	if !ok {
		fatal(&UnknownFunctionError{name, version})
	}
	out, err := f.Run(t, arg)
	if err == nil {
		return out, nil
	}
	var stop *stopError
	if errors.As(err, &stop) {
		fatal(fmt.Errorf("function %s, version %d: %w", name, version, err))
	}
	if e, ok := err.(*Error); ok {
		failed := *e
		return nil, &failed
	}
	return nil, &Error{Code: CodeFunction, Message: fmt.Sprintf("function %s: %v", name, err)}
}
