package arakoon

import "slices"

// zones decides how far a leader may be told that members hold its log, so that nothing is
// committed before members of enough zones hold it durably. It is a pure decision, and the
// stepper's.
//
// A leader commits an entry of its term when a majority of the voters, of both majorities
// during a joint change, have acknowledged it, itself among them. All acknowledgements
// pass through here: what a member has acknowledged reaches raft as at most level, the
// highest index that members of need zones hold. So raft knows no member beyond level, and
// therefore no majority is: whatever the voters are, nothing beyond level is committed.
// Followers commit what the leader says is committed, and no more.
//
// What raft assumes of the leader itself when it begins is no exception: that ends before
// the first entry of the term, and raft commits nothing by counting but entries of its own
// term. That first entry, and all before it, commit when the zones have it.
//
// A learner counts for its zone: the promise is that enough zones hold what was answered,
// so that one that survives can be recovered from, and a learner holds the same log under
// the same checks. An acknowledgement counts in the term in which it was given: then it
// says that the member's log is the leader's up to there, and nothing but a later leader,
// who starts with nothing acknowledged, changes that. level never falls in a term: what
// was let through before the members changed was held by enough zones at that time.
type zones struct {
	need int                        // zones that must hold everything; up to 1: no requirement
	zone func(member uint64) string // "": in no zone, it counts for none

	term    uint64
	members []uint64
	held    map[uint64]uint64 // what each acknowledged in this term
	given   map[uint64]uint64 // what raft was told of it
	level   uint64
}

// ack is an acknowledgement to be given to raft.
type ack struct{ member, index uint64 }

// active reports whether acknowledgements must pass.
func (z *zones) active() bool { return z.need > 1 }

// begin forgets what was acknowledged in another term.
func (z *zones) begin(term uint64) {
	if z.term != term {
		z.term, z.level = term, 0
		z.held, z.given = map[uint64]uint64{}, map[uint64]uint64{}
	}
}

// acknowledge notes that a member holds the leader's log up to an index, and returns what
// raft may be told. Of a member that nothing may be told of yet raft hears nothing: an
// acknowledgement of index 0 would have raft begin that member's log anew, before the first
// entry that there is, and wait for a snapshot. That the member is alive its answers to
// heartbeats say.
func (z *zones) acknowledge(member, index uint64) []ack {
	if z.held == nil {
		z.begin(z.term)
	}
	z.held[member] = max(z.held[member], index)
	z.raise()
	first := min(index, z.level)
	if first == 0 {
		return z.release()
	}
	z.given[member] = max(z.given[member], first)
	return append([]ack{{member, first}}, z.release()...)
}

// setMembers notes the members that there are now, all of them.
func (z *zones) setMembers(members []uint64) []ack {
	z.members = slices.Clone(members)
	return z.again()
}

// require changes how many zones must hold everything.
func (z *zones) require(need int) []ack {
	z.need = need
	return z.again()
}

func (z *zones) again() []ack {
	z.raise()
	return z.release()
}

// raise raises level to the highest index that enough zones hold.
func (z *zones) raise() {
	best := map[string]uint64{}
	highest := uint64(0)
	for _, id := range z.members {
		highest = max(highest, z.held[id])
		if z.zone == nil {
			continue
		}
		if name := z.zone(id); name != "" {
			best[name] = max(best[name], z.held[id])
		}
	}
	if !z.active() {
		z.level = max(z.level, highest)
		return
	}
	if len(best) < z.need {
		return
	}
	list := make([]uint64, 0, len(best))
	for _, index := range best {
		list = append(list, index)
	}
	slices.Sort(list)
	z.level = max(z.level, list[len(list)-z.need])
}

// release are the acknowledgements that had to wait and may pass now.
func (z *zones) release() (out []ack) {
	for _, id := range z.members {
		if to := min(z.held[id], z.level); to > z.given[id] {
			z.given[id] = to
			out = append(out, ack{id, to})
		}
	}
	return out
}
