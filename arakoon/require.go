package arakoon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"openvstorage/arakoon/state"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// Requirement says in how many zones everything must be held before it is answered.
type Requirement = state.Requirement

// ErrZones is matched by *ZonesError.
var ErrZones = errors.New("arakoon: too few zones are there")

// ZonesError says that everything must be held in more zones than those of the members that
// are heard from. Nothing was done.
type ZonesError struct {
	Need        int
	There, Away []string // zones
}

func (e *ZonesError) Error() string {
	away := "none of the other members is in a zone of its own"
	if len(e.Away) > 0 {
		away = "not heard from: " + strings.Join(e.Away, ", ")
	}
	return fmt.Sprintf("%v: %d zones must hold everything; heard from: %s; %s. Bring it back; or, if it is off for sure, "+
		"`ovs recover --require-zones %d` where the majority is", ErrZones, e.Need, strings.Join(e.There, ", "), away, max(len(e.There), 1))
}

func (e *ZonesError) Is(target error) bool { return target == ErrZones }

// ZoneCalls are the calls of a Node about zones.
type ZoneCalls struct{ node *Node }

// Requirement is the one in force, as far as this member has applied.
func (z ZoneCalls) Requirement() Requirement {
	r, _ := z.node.state.Requirement()
	return r
}

// RequireZones sets in how many zones everything must be held durably before it is applied,
// read, watched or answered; 1 is no requirement. It is a write: all members apply it at one
// entry of the log, whose revision is returned. What there is already is no change.
//
// Raising is refused with ErrMembers unless members that are heard from are in so many zones.
// When it returns, that many zones hold everything up to its revision, and from then on
// everything; and they know that it is so.
//
// Lowering is recorded in the state, with its revision, and as many zones as were required
// hold that record before anything is answered without them. So whatever zone a recovery
// begins from knows of it. When it returns, a majority knows that it is so.
//
// asserted: a person has said that the other zones are off for good. Then the requirement is
// lowered without them, and they do not know of it: see to it that they never lead the group
// again, by raising its life. The record says so.
//
// The errors are those of Write.
func (z ZoneCalls) RequireZones(ctx context.Context, zones int, asserted bool) (revision uint64, err error) {
	n := z.node
	seq := state.Require(zones, asserted)
	if _, err := seq.Encode(); err != nil {
		return 0, err
	}
	before := z.Requirement().Zones
	if err := ask(ctx, n, func(s *stepper) error { return s.needs.may(s, zones) }); err != nil {
		return 0, err
	}
	_, results, err := n.Write(ctx, seq)
	if err != nil {
		return 0, err
	}
	if zones != max(before, 1) {
		// Whoever holds an entry behind it knows that it is committed.
		if _, err := n.Do(ctx, new(Sequence)); err != nil {
			return 0, fmt.Errorf("%w: the requirement of zones is changed, and a majority may not know yet: %w", ErrUnknownOutcome, err)
		}
	}
	return results[0].Count, nil
}

// asking is a question for the stepper.
type asking struct {
	question func(s *stepper) error
	done     chan error // has room for the one answer
}

// ask has the stepper answer a question.
func ask(ctx context.Context, n *Node, question func(s *stepper) error) error {
	if err := errors.Join(ctx.Err(), n.Err()); err != nil {
		return err
	}
	a := &asking{question, make(chan error, 1)}
	n.work.put(a)
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-n.end.failed:
	case <-n.end.stop:
	}
	return n.Err()
}

// may refuses more zones than there are. The entry itself waits for them, but whoever
// asked for what cannot be would be left with a group that answers nothing.
func (n *needs) may(s *stepper, zones int) error {
	if !s.leading.Load() {
		return s.notLeader()
	}
	// A member that has acknowledged nothing may never have been made, though it counts as heard
	// from while it is new. Whoever makes it asks the group first, which would answer nothing.
	holds := map[uint64]bool{s.opt.Member: true}
	s.raft.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) { holds[id] = holds[id] || pr.Match > 0 })
	alive := slices.DeleteFunc(s.aliveOf(membersOf(s.conf).All()), func(id uint64) bool { return !holds[id] })
	there := zoneNames(alive, s.places.zone)
	if zones > 1 && zones > len(there) {
		return fmt.Errorf("%w: %d zones cannot be required: members that are heard from are in %d: %s", ErrMembers, zones, len(there), orNone(there))
	}
	return nil
}

func orNone(zones []string) string {
	if len(zones) == 0 {
		return "none"
	}
	return strings.Join(zones, ", ")
}

// needs is what a member knows of the requirement: it is in force by what is applied, and
// what the log has beyond that counts too. It is the stepper's.
//
// A leader must hold to the requirement of every entry that may be committed. It cannot tell
// which of those behind what it has applied are. So
//
//   - an entry that raises it counts as soon as the log has it. It therefore commits itself
//     when enough zones hold it, and all before it;
//   - an entry that lowers it counts when it is applied, so it was held by as many zones as
//     were required before. The leader then makes an empty entry, and goes on as before until
//     that is applied. Whoever holds the empty entry knows that the one before is committed.
//     Otherwise a new leader could hold what was answered without the other zone, not know
//     that the lowering is committed, and wait for that zone for ever;
//   - an entry that lowers it and is asserted counts as soon as the log has it. A leader that
//     does not have it holds to what was required before.
//
// All of that is a function of the state and the log, so a restart or another leader comes to
// the same, and an entry that another leader replaces counts no more.
type needs struct {
	base    int // by what is applied
	ahead   []needed
	settle  place // the empty entry that a lowering waits for; index 0: none
	renewed uint64
	missing *atomic.Pointer[ZonesError] // the zones that are away, for long enough to tell those who ask
	ticks   int                         // that they have been away for
	state   func() (r Requirement, applied uint64)
}

// needed is an entry of the log, not applied yet, that sets the requirement.
type needed struct {
	index    uint64
	zones    int
	asserted bool
}

// load takes the requirement from the state and from what the log has beyond it.
func (n *needs) load(s *stepper, applied, last uint64, entries func(lo, hi, limit uint64) ([]*pb.Entry, error)) error {
	r, _ := n.state()
	n.base = r.Zones
	if s.opt.Zone != nil {
		err := walk(entries, applied+1, last, func(list []*pb.Entry) error {
			n.note(list)
			return nil
		})
		if err != nil {
			return err
		}
	}
	s.zones.need = n.now()
	return nil
}

// note takes entries that the log is given, in the place of those it had from there on.
func (n *needs) note(entries []*pb.Entry) (changed bool) {
	for k := len(n.ahead); k > 0 && n.ahead[k-1].index >= entries[0].GetIndex(); k-- {
		n.ahead, changed = n.ahead[:k-1], true
	}
	for _, e := range entries {
		if zones, asserted, ok := state.RequiredBy(e.GetData()); ok && e.GetType() == pb.EntryNormal {
			n.ahead, changed = append(n.ahead, needed{e.GetIndex(), zones, asserted}), true
		}
	}
	return changed
}

// now is how many zones must hold everything.
func (n *needs) now() int {
	zones := n.base
	for _, a := range n.ahead {
		if a.asserted {
			zones = a.zones
		} else {
			zones = max(zones, a.zones)
		}
	}
	return zones
}

// asserted reports whether the log has an entry, not applied yet, that a person asserted.
func (n *needs) asserted() bool {
	return slices.ContainsFunc(n.ahead, func(a needed) bool { return a.asserted })
}

// given is for entries that the log is given. What has to wait for an empty entry is left to
// keep: raft is handing out its messages now, and none may overtake another.
func (n *needs) given(s *stepper, entries []*pb.Entry) {
	if s.opt.Zone == nil || !n.note(entries) {
		return
	}
	if zones := n.now(); zones >= s.zones.need || n.asserted() || s.raft.BasicStatus().RaftState != raft.StateLeader {
		n.gate(s, zones)
	}
}

// holdTo changes how many zones the gate waits for. at once: what lowers it does not wait for
// an empty entry.
func (n *needs) holdTo(s *stepper, zones int, atOnce bool) {
	leads := s.raft.BasicStatus().RaftState == raft.StateLeader
	if !leads || atOnce || zones >= s.zones.need {
		n.gate(s, zones)
		return
	}
	term := s.raft.BasicStatus().HardState.GetTerm()
	if at := n.settle; at.index > 0 && at.term == term {
		if applied, _ := s.progress.now(); applied >= at.index {
			n.gate(s, zones)
		}
		return
	}
	s.ready() // all that raft has so far gets its index
	if err := s.raft.Propose(nil); err != nil {
		return // the next turn tries again
	}
	s.ready()
	n.settle = place{s.last, term}
}

// gate has the gate wait for so many zones.
func (n *needs) gate(s *stepper, zones int) {
	n.settle = place{}
	s.deliver(s.zones.require(zones))
	if n.away(s) == nil {
		n.ticks = 0
		n.missing.Store(nil)
	}
}

// keep takes over what was applied since.
func (n *needs) keep(s *stepper) {
	if len(n.ahead) == 0 && n.renewed == 0 && n.settle.index == 0 && n.now() == s.zones.need {
		return
	}
	r, applied := n.state()
	if applied < n.renewed {
		return // the state of a snapshot is not in place yet
	}
	n.renewed, n.base = 0, r.Zones
	n.ahead = slices.DeleteFunc(n.ahead, func(a needed) bool { return a.index <= applied })
	n.holdTo(s, n.now(), n.asserted())
}

// missingTicks is for how long zones must be away before requests are refused for it: three
// elections, as a leader that has begun just now has not heard from all yet.
const missingTicks = 3 * electionTicks

// watch notes at a tick whether enough zones are there. A leader without them refuses
// writes and consistent reads, and says why, when that has been so for a while: they would
// wait, and a group that was recovered elsewhere could have answered otherwise meanwhile.
func (n *needs) watch(s *stepper) {
	if err := n.away(s); err == nil || !s.leading.Load() {
		n.ticks = 0
		n.missing.Store(nil)
	} else if n.ticks++; n.ticks >= missingTicks {
		n.missing.Store(err)
	}
}

// away says which zones are not heard from, nil if enough are.
func (n *needs) away(s *stepper) *ZonesError {
	if !s.zones.active() {
		return nil
	}
	all := membersOf(s.conf).All()
	e := &ZonesError{Need: s.zones.need, There: zoneNames(s.aliveOf(all), s.places.zone)}
	if len(e.There) >= e.Need {
		return nil
	}
	for _, name := range zoneNames(all, s.places.zone) {
		if !slices.Contains(e.There, name) {
			e.Away = append(e.Away, name)
		}
	}
	return e
}

// refused is why requests are not taken, nil if they are.
func (n *needs) refused() error {
	if e := n.missing.Load(); e != nil {
		return e
	}
	return nil
}

// zoneNames are the zones that members are in, each once, in order.
func zoneNames(members []uint64, zone func(uint64) string) (names []string) {
	for _, id := range members {
		if name := zone(id); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
