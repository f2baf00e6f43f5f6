package arakoon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// caughtUpLag is how many entries a learner may be behind what is committed and still be
// made a voter, or be given the lead. Under load every follower is behind by what is on
// its way; an entry holds about Options.EntryBytes.
const caughtUpLag = 64

// change is a change of the members that somebody waits for.
type change struct {
	ctx      context.Context // of whoever asked: before it is proposed it can be taken back
	want     func(now Members) Members
	to       Members // what it is to come to, once it is proposed
	proposed bool
	gave     bool         // this member was to go, and gave the lead away
	done     chan changed // has room for the one answer that it gets
}

// changed is what became of a change: at which entry it was done.
type changed struct {
	index uint64
	err   error
}

// changes are the changes of the members of one group, one at a time. It is the stepper's.
//
// A change of several members is a joint one: the entry that enters it commits by the
// majority of the old voters, and everything from then on by majorities of both, until
// raft's own entry that leaves it. So at no moment two majorities exist that share no
// member, wherever the group is cut or killed. Whoever leads then finishes the change.
//
// When a change is answered, the members that it removed may be destroyed at once. So those
// that stay must need them no more, whichever minority of those that stay is lost too. Two
// steps see to that:
//
//  1. A leader that is to go gives the lead to a voter that stays, which makes the change.
//  2. When the entry that ends the change is applied, the leader proposes an empty one. Its
//     append says that the entry before is committed, and a member stores both together
//     before it acknowledges. When the empty entry is committed, a majority of the new
//     voters therefore knows, also after a power cut, that the old ones have no say.
type changes struct {
	run      *change // the one that runs or waits to be proposed
	unproven bool    // proposed just now: raft may have put an empty entry in its place
	joint    int     // ticks since a joint configuration was entered

	settling place // the empty entry that was proposed; index 0: none was
	known    bool  // a majority knows the members that there are now; false at a start
}

// place is an entry.
type place struct{ index, term uint64 }

// takeChange takes a request, or refuses it as another one runs.
func (s *stepper) takeChange(c *change) {
	if s.changes.run != nil {
		c.done <- changed{err: fmt.Errorf("%w: to %v", ErrChanging, s.changes.run.to)}
		return
	}
	s.changes.run = c
}

// endChange answers the change that runs, if one does.
func (s *stepper) endChange(out changed) {
	if c := s.changes.run; c != nil {
		c.done <- out
	}
	s.changes.run, s.changes.unproven, s.changes.settling = nil, false, place{}
}

// proposeChange proposes the change that waits, as soon as raft would take it: it takes
// none before the first entry of a leader's term is applied.
func (s *stepper) proposeChange() {
	c := s.changes.run
	if c == nil || c.proposed {
		return
	}
	if err := c.ctx.Err(); err != nil {
		s.endChange(changed{err: err})
		return
	}
	if !s.leading.Load() {
		if !c.gave || s.lead.id != raft.None {
			s.endChange(changed{err: s.notLeader()})
		}
		return
	}
	status := s.raft.BasicStatus()
	if _, term := s.progress.now(); term != status.HardState.GetTerm() || status.LeadTransferee != 0 || status.Applied < s.confAt {
		return
	}
	now := membersOf(s.conf)
	if len(now.Outgoing) > 0 {
		s.endChange(changed{err: fmt.Errorf("%w: %v", ErrChanging, now)})
		return
	}
	c.to = c.want(membersOf(s.conf)).sorted()
	steps := changeSteps(now, c.to)
	if len(steps) == 0 {
		c.proposed = true // by somebody, earlier
		s.changes.settle(s)
		return
	}
	if err := s.checkChange(now, c.to); err != nil {
		s.endChange(changed{err: err})
		return
	}
	if !slices.Contains(c.to.Voters, s.opt.Member) {
		if err := c.leadElsewhere(s); err != nil {
			s.endChange(changed{err: err})
		}
		return
	}
	if !s.synced.forget(s) {
		return // the next turn tries again
	}
	cc := &pb.ConfChangeV2{Changes: steps, Context: appendBase(nil, s.conf)}
	if err := s.raft.ProposeConfChange(cc); err != nil {
		s.endChange(changed{err: fmt.Errorf("%w: %w", s.notLeader(), err)})
		return
	}
	c.proposed, s.changes.unproven = true, true
}

// leadElsewhere begins to give the lead to a voter that a change keeps: this member is to go.
func (c *change) leadElsewhere(s *stepper) error {
	to := s.successor(func(id uint64) bool { return slices.Contains(c.to.Voters, id) && s.mayLead(id) })
	switch {
	case to == 0:
		return fmt.Errorf("%w: member %d leads and is to go, and no voter that stays can take the lead", ErrMembers, s.opt.Member)
	case c.gave:
		return fmt.Errorf("%w: member %d leads and is to go, and member %d did not take the lead", ErrTransfer, s.opt.Member, to)
	}
	c.gave = true
	return s.beginTransfer(to)
}

// settle proposes the empty entry that a change is done with, unless the members have not
// changed since the last one.
func (c *changes) settle(s *stepper) {
	if c.known {
		index, _ := s.progress.now()
		s.endChange(changed{index: index})
		return
	}
	s.ready() // all that raft has so far gets its index
	if err := s.raft.Propose(nil); err != nil {
		return // the next tick tries again
	}
	s.ready()
	c.settling = place{s.last, s.raft.BasicStatus().HardState.GetTerm()}
}

// settled answers a change when the empty entry behind it is applied.
func (c *changes) settled(s *stepper) {
	run, at := c.run, c.settling
	if run == nil || !run.proposed || !membersOf(s.conf).equal(run.to) || !s.leading.Load() {
		return
	}
	// In its own term nobody replaces what a leader has proposed; in a later one it asks again.
	if at.index == 0 || at.term != s.raft.BasicStatus().HardState.GetTerm() {
		c.settle(s)
		return
	}
	if applied, _ := s.progress.now(); applied >= at.index {
		c.known = true
		s.endChange(changed{index: at.index})
	}
}

// changeSteps are the single changes that lead from some members to others.
func changeSteps(now, to Members) (steps []*pb.ConfChangeSingle) {
	add := func(t pb.ConfChangeType, id uint64) {
		steps = append(steps, &pb.ConfChangeSingle{Type: t.Enum(), NodeId: new(id)})
	}
	for _, id := range to.Voters {
		if !slices.Contains(now.Voters, id) {
			add(pb.ConfChangeAddNode, id)
		}
	}
	for _, id := range to.Learners {
		if !slices.Contains(now.Learners, id) {
			add(pb.ConfChangeAddLearnerNode, id)
		}
	}
	for _, id := range now.All() {
		if !to.Has(id) {
			add(pb.ConfChangeRemoveNode, id)
		}
	}
	return steps
}

// checkChange refuses a change that would end the group, or break what it promises.
func (s *stepper) checkChange(now, to Members) error {
	if err := checkMembers(to); err != nil && !s.handsOver(now, to) {
		return err
	}
	for _, id := range to.All() {
		if !now.Has(id) && s.gone(id) {
			return fmt.Errorf("%w: member %d; give it another id", ErrUsed, id)
		}
		if slices.Contains(to.Voters, id) && !slices.Contains(now.Voters, id) {
			if err := s.caughtUp(id); err != nil {
				return err
			}
		}
	}
	if alive := s.aliveOf(to.Voters); len(alive) <= len(to.Voters)/2 {
		return fmt.Errorf("%w: of the voters %v only %v are heard from, which is no majority", ErrMembers, to.Voters, alive)
	}
	if names := zoneNames(to.All(), s.places.zone); s.zones.active() && len(names) < s.zones.need {
		return fmt.Errorf("%w: %v are in %d zones (%s), and %d must hold everything", ErrMembers, to, len(names), orNone(names), s.zones.need)
	}
	return nil
}

// handsOver reports whether a change only keeps this member, which leads, a voter beside others of
// which none has been one: a step on the way to its leaving, at whose end another voter can take
// the lead. So there may be an even number of them until the next step.
func (s *stepper) handsOver(now, to Members) bool {
	rest := to
	rest.Voters = slices.DeleteFunc(slices.Clone(to.Voters), func(id uint64) bool { return id == s.opt.Member })
	for _, id := range rest.Voters {
		if slices.Contains(now.Voters, id) {
			return false
		}
	}
	return len(rest.Voters) == len(to.Voters)-1 && !slices.Contains(to.Learners, s.opt.Member) && checkMembers(rest) == nil
}

// checkMembers checks what must hold of members at rest.
func checkMembers(m Members) error {
	all := slices.Concat(m.Voters, m.Learners)
	slices.Sort(all)
	switch {
	case len(m.Outgoing) > 0:
		return fmt.Errorf("%w: outgoing voters cannot be asked for", ErrMembers)
	case len(m.Voters)%2 == 0:
		return fmt.Errorf("%w: %d voters %v; their number must be odd", ErrMembers, len(m.Voters), m.Voters)
	case len(m.Voters) > VotersMax:
		return fmt.Errorf("%w: %d voters, at most %d", ErrMembers, len(m.Voters), VotersMax)
	case len(m.Learners) > LearnersMax:
		return fmt.Errorf("%w: %d learners, at most %d", ErrMembers, len(m.Learners), LearnersMax)
	case slices.Contains(all, 0):
		return fmt.Errorf("%w: member 0 is no member", ErrMembers)
	case len(slices.Compact(slices.Clone(all))) != len(all):
		return fmt.Errorf("%w: a member is there twice in %v", ErrMembers, m)
	}
	return nil
}

// applyChange tells raft of a change that is being applied.
func (s *stepper) applyChange(e *pb.Entry) *pb.ConfState {
	cc := decodeConfChange(e).AsV2()
	if len(s.conf.GetVoters()) == 0 {
		s.joinBase(e, cc)
	}
	s.setConf(s.raft.ApplyConfChange(cc))
	s.confAt = e.GetIndex()
	return s.conf
}

// joinBase gives a member that has joined, and knows of no members yet, those before the
// first change in the log, which the change tells in its context. raft could not apply a
// change to nothing.
func (s *stepper) joinBase(e *pb.Entry, cc *pb.ConfChangeV2) {
	base, err := decodeBase(cc.GetContext())
	if err == nil && len(base.GetVoters()) == 0 {
		err = errors.New("it does not say who the members were")
	}
	if err != nil {
		panic(fmt.Sprintf("entry %d, the first change of the members: %v", e.GetIndex(), err))
	}
	one := func(t pb.ConfChangeType, id uint64) {
		s.raft.ApplyConfChange(&pb.ConfChangeV2{Changes: []*pb.ConfChangeSingle{{Type: t.Enum(), NodeId: new(id)}}})
	}
	for _, id := range base.GetVoters() {
		one(pb.ConfChangeAddNode, id)
	}
	for _, id := range base.GetLearners() {
		one(pb.ConfChangeAddLearnerNode, id)
	}
}

// setConf notes the members that there are now.
func (s *stepper) setConf(c *pb.ConfState) {
	s.conf = c
	s.changes.joint, s.changes.known, s.changes.settling = 0, false, place{}
	if s.several = !alone(c, s.opt.Member); s.several {
		s.others.Do(func() { close(s.toldOthers) })
	}
	all := membersOf(c).All()
	s.peers.setMembers(without(all, []uint64{s.opt.Member}))
	s.places.forget(all)
	s.deliver(s.zones.setMembers(all))
	s.synced.setMembers(s, c)
}

// alone reports whether a member is the only one, so that there is nobody to hear from.
func alone(c *pb.ConfState, member uint64) bool {
	return soleVoter(c, member) && len(c.GetLearners()) == 0
}

// soleVoter reports whether a member is the only voter.
func soleVoter(c *pb.ConfState, member uint64) bool {
	return len(c.GetVoters()) == 1 && c.GetVoters()[0] == member && len(c.GetVotersOutgoing()) == 0
}

// proven looks at what raft gives to the log behind a proposed change: where raft did not
// like the change, an empty entry is in its place, and nobody would hear of it again.
func (s *stepper) proven(entries []*pb.Entry) {
	if !s.changes.unproven {
		return
	}
	s.changes.unproven = false
	if !slices.ContainsFunc(entries, func(e *pb.Entry) bool { return e.GetType() != pb.EntryNormal }) {
		s.endChange(changed{err: fmt.Errorf("%w: raft has one that is not applied yet", ErrChanging)})
	}
}

// leaveJoint proposes the end of a joint change that has not come to it by itself: raft
// proposes that only when something is applied, and drops it while the lead is given away.
func (s *stepper) leaveJoint() {
	if len(s.conf.GetVotersOutgoing()) == 0 || !s.leading.Load() {
		return
	}
	if s.changes.joint++; s.changes.joint%leaveAgain == 0 {
		_ = s.raft.ProposeConfChange(&pb.ConfChangeV2{}) // dropped: the next time then
	}
}

// leaveAgain is after how many ticks the end of a joint change is proposed once more.
const leaveAgain = 5 * electionTicks
