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
	number uint32   // version of a function, a level, or zones

	owner   [16]byte // of a lease
	fence   uint64   // of a lease
	renewed uint64   // revision of a lease's last grant or renewal
	ttl     uint64   // of a lease, in milliseconds; 0: as it was
	alone   bool     // of a raise: only if the group has one member

	asserted bool // of a requirement of zones: a person says that the others are off
}

// mustReadStep reads the next step. What it cannot read stops the member: another release
// may read it, and one that went on without the step would have another state.
func mustReadStep(r *reader) step {
	s, err := readStep(r)
	if err != nil {
		fatal(err)
	}
	return s
}

func readStep(r *reader) (step, error) {
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
	case opConfirm:
		s.value = r.bytes()
	case opAcquire:
		copy(s.owner[:], r.take(16))
		s.ttl = r.u64()
	case opRenew:
		s.fence, s.ttl = r.u64(), r.u64()
	case opRelease, opAssertLease:
		s.fence = r.u64()
	case opExpire:
		s.fence, s.renewed = r.u64(), r.u64()
	case opRaise:
		s.number = r.u32()
		s.alone = r.flag()
	case opMark:
	case opRequire:
		s.number = r.u32()
		s.asserted = r.flag()
	default:
		if r.err == nil {
			return s, fmt.Errorf("%w: step of kind %d, this release knows up to %d; run a release that knows it", ErrNewer, s.op, opLast)
		}
	}
	return s, r.err
}

// stepLevel is the level of the group from which on a kind of step may be proposed.
func stepLevel(op byte) uint32 {
	switch {
	case op <= opCall:
		return LevelFirst
	case op < opRequire:
		return LevelSteps
	}
	return LevelZones
}
