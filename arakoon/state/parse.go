package state

import "fmt"

// Parse reads the body of a sequence that another process has encoded (Sequence.Encode),
// and checks it as the methods of Sequence would have: kinds of steps, lengths of keys and
// values, and that it is whole. It returns an *Error with CodeTooLarge or CodeBadCommand,
// or one that matches ErrNewer. The sequence keeps body, which must not be changed.
//
// What a member that applies a command does with bytes that it cannot read is to stop. So
// nothing may be proposed that has not come through here, or through those methods.
func Parse(body []byte) (seq *Sequence, err error) {
	if len(body) > CommandMax {
		return nil, &Error{Code: CodeTooLarge, Message: fmt.Sprintf("sequence of %d bytes; the limit is %d", len(body), CommandMax)}
	}
	seq = &Sequence{body: body[:len(body):len(body)]}
	defer func() {
		switch p := recover().(type) {
		case nil:
		case abort: // of readStep
			seq, err = nil, fmt.Errorf("step %d: %w", seq.steps, p.failure)
		default:
			panic(p)
		}
	}()
	for r := (&reader{b: body}); len(r.b) > 0; seq.steps++ {
		if r.b[0] == opAssertRange {
			if failed := skipRange(r); failed != nil {
				failed.Step = seq.steps
				return nil, failed
			}
			continue
		}
		s := readStep(r)
		at := len(body) - len(r.b)
		if failed := s.check(); failed != nil {
			failed.Step = seq.steps
			return nil, failed
		}
		if s.op == opCall {
			seq.calls = append(seq.calls, call{functionKey{string(s.key), s.number}, at - len(s.value), at})
		}
	}
	return seq, nil
}

// skipRange reads a step that asserts a range, without a list of its keys: those may be
// millions of empty ones.
func skipRange(r *reader) *Error {
	r.u8()
	failed := tooLong("key", r.bytes(), KeyMax)
	for n := r.u32(); n > 0 && r.err == nil; n-- {
		r.bytes()
	}
	if r.err != nil {
		fatal(r.err)
	}
	return failed
}

// check returns what is too long in a step.
func (s *step) check() *Error {
	if failed := tooLong("key", s.key, KeyMax); failed != nil {
		return failed
	}
	switch s.op {
	case opSet:
		return tooLong("value", s.value, ValueMax)
	case opTestAndSet, opReplace:
		return tooLong("value", s.wanted, ValueMax)
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
