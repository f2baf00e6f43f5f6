package state

import (
	"encoding/binary"
	"fmt"
)

// Kinds of step. Numbers are in the log.
const (
	opSet          = 1
	opDelete       = 2
	opDeletePrefix = 3
	opAssert       = 4
	opAssertExists = 5
	opAssertRange  = 6
	opTestAndSet   = 7
	opReplace      = 8
	opCall         = 9

	// From level 2 on.
	opConfirm     = 10
	opAcquire     = 11
	opRenew       = 12
	opRelease     = 13
	opAssertLease = 14
	opExpire      = 15
	opRaise       = 16
	opMark        = 17

	// From level 3 on.
	opRequire = 18
	opLast    = opRequire
)

// Sequence is a list of steps that happen together or not at all. The zero
// value is empty. Its methods return it, so that they chain; arguments are
// copied.
type Sequence struct {
	body   []byte
	steps  int
	calls  []call
	values int    // steps that return a value of the database
	level  uint32 // of the group, that the steps need, but for functions
	err    error
}

// call is a step that calls a function, with where its argument is in the body.
type call struct {
	functionKey
	arg, end int
}

// Check returns an *UnknownFunctionError if a function that the sequence calls
// is not registered, or what a function has against its argument. A member must
// not propose it: it would stop.
func (s *Sequence) Check(r *Registry) error {
	for _, c := range s.calls {
		if err := r.check(c.functionKey, s.body[c.arg:c.end]); err != nil {
			return err
		}
	}
	return nil
}

// Len is the number of steps.
func (s *Sequence) Len() int { return s.steps }

// Encode returns the steps as the body of a command, or what is wrong with
// them. The bytes are the sequence's own.
func (s *Sequence) Encode() ([]byte, error) {
	if s.err == nil && len(s.body) > CommandMax {
		return nil, &Error{Code: CodeTooLarge, Message: fmt.Sprintf("sequence of %d bytes; the limit is %d", len(s.body), CommandMax)}
	}
	return s.body, s.err
}

func (s *Sequence) step(op byte, key []byte) {
	if len(key) > KeyMax && s.err == nil {
		s.err = &Error{Code: CodeTooLarge, Step: s.steps, Message: fmt.Sprintf("key of %d bytes; the limit is %d", len(key), KeyMax)}
	}
	if len(key) == 0 && needsKey(op) && s.err == nil {
		s.err = &Error{Code: CodeBadCommand, Step: s.steps, Message: "empty key"}
	}
	s.steps++
	if returnsValue(op) {
		s.values++
	}
	s.level = max(s.level, stepLevel(op))
	s.body = appendBytes(append(s.body, op), key)
}

// needsKey reports whether a kind of step is about one key.
func needsKey(op byte) bool {
	switch op {
	case opSet, opDelete, opAssert, opAssertExists, opTestAndSet, opReplace, opConfirm:
		return true
	}
	return false
}

func (s *Sequence) checkValue(v []byte) {
	if len(v) > ValueMax && s.err == nil {
		s.err = &Error{Code: CodeTooLarge, Step: s.steps - 1, Message: fmt.Sprintf("value of %d bytes; the limit is %d", len(v), ValueMax)}
	}
}

// Set sets a key.
func (s *Sequence) Set(key, value []byte) *Sequence {
	s.step(opSet, key)
	s.checkValue(value)
	s.body = appendBytes(s.body, value)
	return s
}

// Delete deletes a key; CodeNotFound if it is absent.
func (s *Sequence) Delete(key []byte) *Sequence {
	s.step(opDelete, key)
	return s
}

// DeletePrefix deletes all keys with a prefix; the result's Count says how many.
func (s *Sequence) DeletePrefix(prefix []byte) *Sequence {
	s.step(opDeletePrefix, prefix)
	return s
}

// Assert fails with CodeAssert unless the key has the value, or is absent if
// value is nil.
func (s *Sequence) Assert(key, value []byte) *Sequence {
	s.step(opAssert, key)
	s.body = appendOption(s.body, value)
	return s
}

// AssertExists fails with CodeAssert if the key is absent.
func (s *Sequence) AssertExists(key []byte) *Sequence {
	s.step(opAssertExists, key)
	return s
}

// AssertRange fails with CodeAssert unless exactly these keys, given
// ascending, have the prefix.
func (s *Sequence) AssertRange(prefix []byte, keys ...[]byte) *Sequence {
	s.step(opAssertRange, prefix)
	s.body = binary.LittleEndian.AppendUint32(s.body, uint32(len(keys)))
	for _, k := range keys {
		s.body = appendBytes(s.body, k)
	}
	return s
}

// TestAndSet sets the key to wanted (nil: deletes it) if it has the value
// expected (nil: is absent). The result is the old value, changed or not.
func (s *Sequence) TestAndSet(key, expected, wanted []byte) *Sequence {
	s.step(opTestAndSet, key)
	s.checkValue(wanted)
	s.body = appendOption(appendOption(s.body, expected), wanted)
	return s
}

// Replace sets the key to wanted (nil: deletes it). The result is the old value.
func (s *Sequence) Replace(key, wanted []byte) *Sequence {
	s.step(opReplace, key)
	s.checkValue(wanted)
	s.body = appendOption(s.body, wanted)
	return s
}

// Confirm sets a key unless it has the value already, and says so by the result's Found.
// If it has, nothing is written, and watchers see nothing.
func (s *Sequence) Confirm(key, value []byte) *Sequence {
	s.step(opConfirm, key)
	s.checkValue(value)
	s.body = appendBytes(s.body, value)
	return s
}

// Call calls a user function; the result's Value is what it returns.
func (s *Sequence) Call(name string, version uint32, arg []byte) *Sequence {
	s.step(opCall, []byte(name))
	s.body = binary.LittleEndian.AppendUint32(s.body, version)
	s.body = appendBytes(s.body, arg)
	s.calls = append(s.calls, call{functionKey{name, version}, len(s.body) - len(arg), len(s.body)})
	return s
}

// Result is what a step returns.
type Result struct {
	Value []byte // of a call, or the old value
	Found bool   // there was an old value
	Count uint64 // keys deleted
}

func appendResults(dst []byte, results []Result) []byte {
	for _, r := range results {
		found := byte(0)
		if r.Found {
			found = 1
		}
		dst = append(dst, found)
		dst = binary.LittleEndian.AppendUint64(dst, r.Count)
		dst = appendBytes(dst, r.Value)
	}
	return dst
}

func decodeResults(b []byte) ([]Result, error) {
	r := &reader{b: b}
	var results []Result
	for len(r.b) > 0 && r.err == nil {
		found := r.u8()
		if found > 1 {
			r.fail("result flag %d", found)
		}
		results = append(results, Result{Found: found == 1, Count: r.u64(), Value: r.bytes()})
	}
	return results, r.err
}
