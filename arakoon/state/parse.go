package state

import "fmt"

// Parse reads the body of a sequence that another process has encoded (Sequence.Encode),
// and checks it as the methods of Sequence would have: kinds of steps, lengths of keys and
// values, and that it is whole. It refuses steps that are members' own (Expire, Raise,
// Mark, Require). It returns an *Error with CodeTooLarge or CodeBadCommand, or one that matches
// ErrCorrupt or ErrNewer. The sequence keeps body, which must not be changed.
//
// What a member that applies a command does with bytes that it cannot read is to stop. So
// nothing may be proposed that has not come through here, or through those methods.
func Parse(body []byte) (*Sequence, error) {
	if len(body) > CommandMax {
		return nil, &Error{Code: CodeTooLarge, Message: fmt.Sprintf("sequence of %d bytes; the limit is %d", len(body), CommandMax)}
	}
	s := &Sequence{body: body[:len(body):len(body)]}
	for r := (&reader{b: body}); len(r.b) > 0; s.steps++ {
		op, at := r.b[0], len(body)-len(r.b)
		var one step
		var err error
		if op == opAssertRange {
			one, err = skipRange(r)
		} else {
			one, err = readStep(r)
		}
		if err != nil {
			return nil, fmt.Errorf("step %d, at byte %d: %w", s.steps, at, err)
		}
		if failed := one.check(); failed != nil {
			failed.Step = s.steps
			return nil, failed
		}
		if end := len(body) - len(r.b); op == opCall {
			s.calls = append(s.calls, call{functionKey{string(one.key), one.number}, end - len(one.value), end})
		}
		if returnsValue(op) {
			s.values++
		}
		s.level = max(s.level, stepLevel(op))
	}
	return s, nil
}

// skipRange reads a step that asserts a range, without a list of its keys: those may be
// millions of empty ones.
func skipRange(r *reader) (step, error) {
	s := step{op: r.u8(), key: r.bytes()}
	for n := r.u32(); n > 0 && r.err == nil; n-- {
		r.bytes()
	}
	return s, r.err
}

// check returns what is wrong with a step of a client.
func (s *step) check() *Error {
	switch s.op {
	case opAcquire, opRenew, opRelease, opAssertLease:
		return s.checkLease()
	case opExpire, opRaise, opMark, opRequire:
		return &Error{Code: CodeBadCommand, Message: fmt.Sprintf("a step of kind %d is a member's own", s.op)}
	}
	if len(s.key) == 0 && needsKey(s.op) {
		return &Error{Code: CodeBadCommand, Message: "empty key"}
	}
	if failed := tooLong("key", s.key, KeyMax); failed != nil {
		return failed
	}
	switch s.op {
	case opSet, opConfirm:
		return tooLong("value", s.value, ValueMax)
	case opTestAndSet, opReplace:
		return tooLong("value", s.wanted, ValueMax)
	}
	return nil
}

func (s *step) checkLease() *Error {
	if n := len(s.key); n == 0 || n > LeaseNameMax {
		return &Error{Code: CodeTooLarge, Message: fmt.Sprintf("name of a lease with %d bytes; it may have 1 to %d", n, LeaseNameMax)}
	}
	if s.op == opAcquire && !ttlFits(s.ttl) || s.op == opRenew && s.ttl != 0 && !ttlFits(s.ttl) {
		return badTTL(*s)
	}
	return nil
}

func tooLong(what string, b []byte, most int) *Error {
	if len(b) <= most {
		return nil
	}
	return &Error{Code: CodeTooLarge, Message: fmt.Sprintf("%s of %d bytes; the limit is %d", what, len(b), most)}
}

// AppendResults appends results as a session keeps them, for DecodeResults: of each
// whether there was an old value (u8), a count (u64), and the value's length (u32) and bytes.
func AppendResults(dst []byte, results []Result) []byte { return appendResults(dst, results) }

// DecodeResults is the inverse of AppendResults. Values are parts of b. Its error matches
// ErrCorrupt.
func DecodeResults(b []byte) ([]Result, error) { return decodeResults(b) }
