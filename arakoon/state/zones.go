package state

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// ZonesMax is the highest number of zones that can be required.
const ZonesMax = 5

// Requirement says in how many zones everything must be held durably before it is applied,
// read or answered, and what a recovery must know of that. The group decides it: each change
// is an entry of the log.
type Requirement struct {
	Zones int    // up to 1: no requirement
	Since uint64 // revision of the entry that made it so; 0: nobody ever did

	// Lowered is the revision of the last entry that lowered it, from From zones; 0: none
	// did. What was answered behind that, and before it was raised again, may have been in
	// fewer zones. Asserted: a person said then that the other zones were off, so these do not
	// know of it.
	Lowered  uint64
	From     int
	Asserted bool
}

func (r Requirement) String() string {
	s := fmt.Sprintf("%d since revision %d", r.Zones, r.Since)
	if r.Lowered == 0 {
		return s + ", never lowered"
	}
	s += fmt.Sprintf(", lowered from %d at revision %d", r.From, r.Lowered)
	if r.Asserted {
		s += ", as a person said that the other zones are off"
	}
	return s
}

// zonesKey has the requirement, from the first one on. The value, little-endian: version
// u16, flags u16 (1: asserted), zones u32, zones before it was lowered u32, revision of the
// last change u64, revision of the last lowering u64.
var zonesKey = []byte("z")

const (
	zonesVersion  = 1
	zonesAsserted = 1
)

func appendRequirement(dst []byte, r Requirement) []byte {
	flags := uint16(0)
	if r.Asserted {
		flags |= zonesAsserted
	}
	dst = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(dst, zonesVersion), flags)
	dst = appendU32(appendU32(dst, uint32(r.Zones)), uint32(r.From))
	return appendU64(appendU64(dst, r.Since), r.Lowered)
}

func decodeRequirement(b []byte) (q Requirement, err error) {
	r := &reader{b: b}
	v, flags := r.u16(), r.u16()
	if r.err == nil && (v > zonesVersion || flags > zonesAsserted) {
		return q, fmt.Errorf("%w: requirement of zones of format %d with flags %#x, this release reads up to %d; run a release that reads it", ErrNewer, v, flags, zonesVersion)
	}
	if v == 0 {
		r.fail("requirement of zones of format 0")
	}
	zones, from := r.u32(), r.u32()
	q = Requirement{Zones: int(zones), From: int(from), Since: r.u64(), Lowered: r.u64(), Asserted: flags == zonesAsserted}
	switch {
	case r.err != nil:
		return Requirement{}, r.err
	case len(r.b) > 0:
		return Requirement{}, fmt.Errorf("%w: requirement of zones with %d bytes behind its fields; run a release that reads it", ErrNewer, len(r.b))
	case zones == 0 || zones > ZonesMax || from > ZonesMax || q.Since == 0 || q.Lowered > q.Since ||
		(q.Lowered > 0) != (from > 1) || q.Asserted && q.Lowered == 0:
		return Requirement{}, fmt.Errorf("%w: a requirement of %d zones since %d, lowered from %d at %d", ErrCorrupt, zones, q.Since, from, q.Lowered)
	}
	return q, nil
}

func loadRequirement(db *pebble.DB) (Requirement, error) {
	v, found, err := get(db, zonesKey)
	if err != nil || !found {
		return Requirement{}, err
	}
	return decodeRequirement(v)
}

// After is the requirement after an entry that sets it.
func (r Requirement) After(index uint64, zones int, asserted bool) Requirement {
	if zones < r.Zones {
		r.Lowered, r.From, r.Asserted = index, r.Zones, asserted
	}
	r.Zones, r.Since = zones, index
	return r
}

// Requirement is the one in force as of what is applied, and the index of the last entry that
// is.
func (s *State) Requirement() (r Requirement, applied uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meta.zones, s.meta.at.Index
}

// Require makes the sequence that sets in how many zones everything must be held. It is the
// only step of its sequence, and that is alone in its entry: a leader must find it there
// before it is applied (RequiredBy). asserted: a person has said that the other zones are
// off, and the requirement may be lowered without them.
func Require(zones int, asserted bool) *Sequence {
	s := new(Sequence)
	s.step(opRequire, nil)
	if zones < 1 || zones > ZonesMax {
		s.err = &Error{Code: CodeBadCommand, Message: fmt.Sprintf("%d zones cannot be required: 1 to %d", zones, ZonesMax)}
	}
	s.body = appendFlag(appendU32(s.body, uint32(zones)), asserted)
	return s
}

// Requires reports whether a command sets the requirement, so that it must be alone in its
// entry.
func (c Command) Requires() bool { return !c.Open && len(c.Body) > 0 && c.Body[0] == opRequire }

// RequiredBy is what the data of an entry require, if it is one that does.
func RequiredBy(data []byte) (zones int, asserted, ok bool) {
	if len(data) <= entryHead+commandHead || data[entryHead+commandHead] != opRequire {
		return 0, false, false
	}
	b, err := DecodeBatch(data)
	if err != nil || len(b.Commands) != 1 || !b.Commands[0].Requires() {
		return 0, false, false
	}
	s, err := readStep(&reader{b: b.Commands[0].Body})
	return int(s.number), s.asserted, err == nil
}

// require sets the requirement. What there is already is no change, and then the result's
// Found is true. The result's Count is the revision since when it is so.
func (t *tx) require(s step) (Result, *Error) {
	if s.number == 0 || s.number > ZonesMax {
		return Result{}, &Error{Code: CodeBadCommand, Message: fmt.Sprintf("%d zones cannot be required: 1 to %d", s.number, ZonesMax)}
	}
	if t.zones.Zones == int(s.number) {
		return Result{Found: true, Count: t.zones.Since}, nil
	}
	t.zones = t.zones.After(t.index, int(s.number), s.asserted)
	t.under.set(zonesKey, appendRequirement(nil, t.zones))
	return Result{Count: t.index}, nil
}
