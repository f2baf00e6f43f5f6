package state

import "fmt"

// step is a step of a sequence, as it was read from the log. Its slices are those of
// the command.
type step struct {
	op     byte
	key    []byte   // of a function, its name
	value  []byte   // that is set, asserted or expected, or a function's argument; nil: none
	wanted []byte   // nil: to be deleted
	keys   [][]byte // of a range
	number uint32   // version of a function
}

// readStep reads the next step. What it cannot read stops the member: another release
// may read it, and one that went on without the step would have another state.
func readStep(r *reader) step {
	s := step{op: r.u8(), key: r.bytes()}
	switch s.op {
	case opSet:
		s.value = r.bytes()
	case opDelete, opDeletePrefix, opAssertExists:
	case opAssert:
		s.value = r.option()
	case opAssertRange:
		for n := r.u32(); n > 0 && r.err == nil; n-- {
			s.keys = append(s.keys, r.bytes())
		}
	case opTestAndSet:
		s.value, s.wanted = r.option(), r.option()
	case opReplace:
		s.wanted = r.option()
	case opCall:
		s.number, s.value = r.u32(), r.bytes()
	default:
		if r.err == nil {
			fatal(fmt.Errorf("%w: step of kind %d, this release knows up to %d; run a release that knows it", ErrNewer, s.op, opCall))
		}
	}
	if r.err != nil {
		fatal(r.err)
	}
	return s
}
