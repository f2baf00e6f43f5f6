package arakoon

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"openvstorage/arakoon/state"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// synced keeps learners of a group with one voter in sync: nothing is committed, so nothing is
// applied, read or answered, before they hold it durably. So whoever recovers such a learner
// (Recover) loses nothing that was answered. raft knows nothing of it. It is the stepper's, and
// where a group has no learner or several voters it is not active and costs a comparison.
//
// # The gate
//
// The leader is the only voter, so raft commits what it hears that the leader's own log holds.
// That acknowledgement passes here, and raft gets it as far as all learners that are required
// have acknowledged the log too. What a learner has acknowledged counts in the term in which it
// did: then its log is the leader's up to there.
//
// # Marks
//
// Which learners are in sync is a key of the state (syncedKey), which each of them has: a mark
// is an entry that sets it. Which may be named by one is another key (intendedKey). Rules:
//
//  1. A learner is required before the mark that names it is proposed. So the mark is committed
//     when the learner holds it and all before it, and from then on the learner lacks nothing.
//     Before that the intention to name the learner is durable in the leader's own log: the
//     learner may hold a mark that a power cut takes from the leader's.
//  2. It is required no more when a mark that does not name it is durable in the leader's own
//     log, and not before. All that waited is answered behind that mark.
//  3. Before a change of the members is proposed a mark that names nobody is: another set of
//     voters commits without the gate.
//  4. A leader requires in a new term, before it commits anything, each learner that a mark may
//     name: those of the state's mark and intention, and all of them if entries are in the log
//     that the state had not applied, as a mark may be among them.
//
// So a learner whose log ends with a mark that names it held all that was answered until it
// was dropped, and a mark that drops it reaches it when it is heard from again. A learner that
// is cut off cannot know that it was dropped meanwhile, as nothing that it holds can tell a leader
// that went on from one that died. `ovs recover` says so.
//
// # How long it waits
//
// If an entry waits for a learner for Options.SyncPatience, the learner is dropped. It becomes
// synchronous again when it was caught up for a while, which doubles with each time that it
// was dropped: a learner that is slow stops the group ever more rarely.
//
// A learner whose host has answered and refused this member is not dropped: the group may have
// been recovered there, and this member is what is left of an older life. It answers nothing
// then, no read either, until that host takes a connection again. That the host is off
// meanwhile changes nothing.
type synced struct {
	patience uint64 // ticks; 0: no learner is kept in sync
	forever  bool   // no learner is ever dropped
	active   bool   // there is one voter, this member, and there are learners
	term     uint64 // what follows is of this term
	own      uint64 // this member's log holds the entries up to here
	told     uint64 // as raft knows
	required map[uint64]*mirror
	acked    map[uint64]place // what learners have acknowledged last, and in which term
	waits    map[uint64]*wait // of learners that are not required
	marked   []uint64         // by the newest mark that is proposed
	intended []uint64         // by the newest intention that is proposed, all that are marked among them
	intendAt uint64           // its entry
	doubt    bool             // what is marked is not known
	change   uint64           // a change of the members is proposed with this entry
	refuses  map[uint64]bool  // members whose host answers, and refuses this one; learners count
	read     func() (marked, intended []uint64, err error)
}

// mirror is a learner that is required.
type mirror struct {
	held    uint64 // it has acknowledged up to here in this term
	target  uint64 // an entry that waits for it; 0: none
	ticks   uint64 // for so long
	kept    uint64 // ticks since it is required
	dropped uint64 // the mark that drops it, 0: none
}

// wait is for how long a learner must have been caught up to be required.
type wait struct {
	good, need uint64 // ticks
}

const (
	syncAfter   = 20 * heartbeatTicks  // a learner must be caught up for so long first,
	syncAtMost  = 640 * heartbeatTicks // and for up to this when it was dropped again and again
	syncForgets = 6000 * heartbeatTicks
)

// refusal says whether the host of a member has refused this one.
type refusal struct {
	by  uint64
	now bool
}

// ReportRefused says that the host of a member has answered and refused this one, or that it
// has taken a connection since. A Transport calls it; it does not block.
func (n *Node) ReportRefused(by uint64, now bool) {
	if n.Err() == nil {
		n.work.put(refusal{by, now})
	}
}

// refused notes a refusal. It is kept whoever is a learner now: after a start the members are
// those of the state, and that one is a learner may be in the log behind it.
func (y *synced) refused(s *stepper, r refusal) {
	if !r.now {
		delete(y.refuses, r.by)
		return
	}
	if y.active && !y.refuses[r.by] && slices.Contains(s.conf.GetLearners(), r.by) {
		s.opt.Logger.Warn("the host of a learner answers, and refuses this member", slog.Uint64("learner", r.by))
	}
	y.refuses[r.by] = true
}

// newSynced is made once for a node.
func newSynced(opt Options, read func() (marked, intended []uint64, err error)) synced {
	y := synced{forever: opt.SyncPatience < 0, read: read, acked: map[uint64]place{}, waits: map[uint64]*wait{}, refuses: map[uint64]bool{}}
	if opt.SyncPatience != 0 {
		y.patience = max(1, uint64(max(opt.SyncPatience, 0)/max(opt.Tick/heartbeatTicks, 1)))
	}
	return y
}

// setMembers notes the members that there are now.
func (y *synced) setMembers(s *stepper, c *pb.ConfState) {
	was := y.active
	y.active = y.patience > 0 && soleVoter(c, s.opt.Member) && len(c.GetLearners()) > 0
	if !was && !y.active {
		return
	}
	learners := c.GetLearners()
	maps.DeleteFunc(y.required, func(id uint64, _ *mirror) bool { return !y.active || !slices.Contains(learners, id) })
	maps.DeleteFunc(y.waits, func(id uint64, _ *wait) bool { return !slices.Contains(learners, id) })
	maps.DeleteFunc(y.acked, func(id uint64, _ place) bool { return !slices.Contains(learners, id) })
	if y.active && !was { // what raft knows already needs no gate
		y.term = 0
		status := s.raft.BasicStatus()
		if status.RaftState == raft.StateLeader && s.leading.Load() {
			y.begin(s, status.HardState.GetTerm(), 0)
			y.own = y.match(s)[s.opt.Member]
			y.told = y.own
		}
		return
	}
	y.pass(s)
}

// begin begins a term. first is its first entry, or one behind that, which makes more learners
// required than need be. 0: the members have changed in this term, and by rule 3 no mark names
// anybody.
func (y *synced) begin(s *stepper, term, first uint64) {
	y.term, y.own, y.told, y.required = term, 0, 0, map[uint64]*mirror{}
	y.marked, y.intended, y.intendAt, y.doubt = nil, nil, 0, false
	if first == 0 {
		return
	}
	applied, _ := s.progress.now() // first: the state that is read has that, or more
	marked, intended, err := y.read()
	y.marked, y.intended, y.doubt = marked, intended, err != nil || applied+1 < first
	for _, id := range s.conf.GetLearners() {
		if y.doubt || slices.Contains(marked, id) || slices.Contains(intended, id) {
			y.required[id] = &mirror{}
			if a := y.acked[id]; a.term == term { // before this member's own log did: it is not said again
				y.required[id].held = a.index
			}
		}
	}
}

// holds takes an acknowledgement of this member's own log, and reports whether it waits here.
func (y *synced) holds(s *stepper, m *pb.Message) bool {
	if m.GetFrom() != s.opt.Member || m.GetReject() {
		return false
	}
	if m.GetTerm() != y.term {
		if status := s.raft.BasicStatus(); status.RaftState != raft.StateLeader || status.HardState.GetTerm() != m.GetTerm() {
			return false
		}
		y.begin(s, m.GetTerm(), m.GetIndex())
	}
	y.own = max(y.own, m.GetIndex())
	y.pass(s)
	return true
}

// hear notes what a learner has acknowledged. The first word of a term may come before that
// of this member's own log, with which the term begins here.
func (y *synced) hear(s *stepper, m *pb.Message) {
	if !m.GetReject() && slices.Contains(s.conf.GetLearners(), m.GetFrom()) {
		y.acked[m.GetFrom()] = place{m.GetIndex(), m.GetTerm()}
	}
	if r := y.required[m.GetFrom()]; r != nil && m.GetTerm() == y.term && !m.GetReject() {
		r.held = max(r.held, m.GetIndex())
		y.pass(s)
	}
}

// pass lets what all hold that are required reach raft.
func (y *synced) pass(s *stepper) {
	to := y.own
	for id, r := range y.required {
		if r.dropped > 0 && y.own >= r.dropped { // rule 2
			delete(y.required, id)
			continue
		}
		to = min(to, r.held)
	}
	if len(y.required) == 0 {
		to = y.own
	}
	if to <= y.told {
		return
	}
	y.told = to
	_ = s.raft.Step(&pb.Message{ // a leader takes its own acknowledgements
		Type: pb.MsgAppResp.Enum(), From: new(s.opt.Member), To: new(s.opt.Member), Term: new(y.term), Index: new(to),
	})
}

// tick drops learners that others wait for, takes those back that have caught up, and sees
// that the newest mark says so.
func (y *synced) tick(s *stepper) {
	if !y.active || !s.leading.Load() || y.term != s.raft.BasicStatus().HardState.GetTerm() {
		return
	}
	for id, r := range y.required {
		r.kept++
		if r.target > 0 && r.held >= r.target {
			r.target, r.ticks = 0, 0
		}
		if r.target == 0 && y.own > r.held {
			r.target = y.own
		}
		if r.target == 0 || r.dropped > 0 {
			continue
		}
		if r.ticks++; r.ticks >= y.patience && !y.forever && !y.refuses[id] {
			y.drop(s, id, r)
		}
	}
	if y.changing(s) {
		return
	}
	y.takeBack(s)
	if y.doubt || !slices.Equal(y.inSync(), y.marked) {
		y.mark(s, y.inSync())
	}
}

// drop gives a learner up: its requirement ends when the mark is durable here.
func (y *synced) drop(s *stepper, id uint64, r *mirror) {
	names := slices.DeleteFunc(y.inSync(), func(other uint64) bool { return other == id })
	at := y.mark(s, names)
	if at == 0 {
		return
	}
	r.dropped = at
	w := y.waits[id]
	if w == nil || r.kept >= syncForgets {
		w = &wait{need: syncAfter / 2}
		y.waits[id] = w
	}
	w.good, w.need = 0, min(2*w.need, syncAtMost)
	s.opt.Logger.Warn("a learner does not hold what was written, and is not waited for any more: if this member is lost now, what is answered from now on is lost with it",
		slog.Uint64("learner", id), slog.Uint64("from entry", at))
}

// takeBack requires learners that have caught up.
func (y *synced) takeBack(s *stepper) {
	if len(y.required) == len(s.conf.GetLearners()) {
		return
	}
	match := y.match(s)
	for _, id := range s.conf.GetLearners() {
		if y.required[id] != nil {
			continue
		}
		w := y.waits[id]
		if w == nil {
			w = &wait{need: syncAfter}
			y.waits[id] = w
		}
		if match[id] == 0 || match[id]+caughtUpLag < y.own || !s.peers.alive(id) {
			w.good = 0
			continue
		}
		if w.good++; w.good >= w.need && y.intend(s, id) {
			y.required[id] = &mirror{held: match[id]} // rule 1
			s.opt.Logger.Info("a learner holds everything, and nothing is answered from now on before it does", slog.Uint64("learner", id))
		}
	}
}

// intend reports whether it is durable in this member's own log that a mark may name a learner.
func (y *synced) intend(s *stepper, id uint64) bool {
	if slices.Contains(y.intended, id) {
		return y.own >= y.intendAt
	}
	ids := slices.Concat(y.intended, []uint64{id})
	if at := y.propose(s, intentionOf(ids)); at > 0 {
		y.intended, y.intendAt = ids, at
	}
	return false
}

// match is what raft knows that members hold.
func (y *synced) match(s *stepper) map[uint64]uint64 {
	all := map[uint64]uint64{}
	s.raft.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if pr.State != tracker.StateSnapshot {
			all[id] = pr.Match
		}
	})
	return all
}

// inSync are the learners that are required, ascending.
func (y *synced) inSync() (ids []uint64) {
	for id, r := range y.required {
		if r.dropped == 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// changing reports whether a change of the members is on its way: no mark behind it names
// anybody, as the change may end the gate.
func (y *synced) changing(s *stepper) bool {
	applied, _ := s.progress.now()
	return applied < y.change
}

// mark proposes a mark, and returns its entry, 0 if raft took none.
func (y *synced) mark(s *stepper, ids []uint64) uint64 {
	if y.changing(s) {
		ids = nil
	}
	at := y.propose(s, markOf(ids), intentionOf(ids))
	if at == 0 {
		return 0 // the next tick tries again
	}
	y.marked, y.doubt = slices.Clone(ids), false
	y.intended, y.intendAt = y.marked, at
	return at
}

// propose proposes commands as one entry, and returns its index, 0 if raft took none.
func (y *synced) propose(s *stepper, bodies ...[]byte) uint64 {
	s.batch++
	b := state.Batch{Origin: s.origin, Number: s.batch}
	for _, body := range bodies {
		b.Commands = append(b.Commands, state.Command{Time: s.opt.Now().UnixNano(), Body: body})
	}
	s.ready() // all that raft has so far gets its index
	if err := s.raft.Propose(state.AppendBatch(nil, b)); err != nil {
		return 0
	}
	s.ready()
	return s.last
}

// forget is rule 3: whoever is about to propose a change of the members calls it. It reports
// whether the change may follow.
func (y *synced) forget(s *stepper) bool {
	named := len(y.marked) > 0 || len(y.intended) > 0 || y.doubt
	if !y.active {
		// A mark may be left of a learner that was recovered, or of a backup. Whoever it
		// names may be a learner again one day.
		marked, intended, err := y.read()
		named = err != nil || len(marked) > 0 || len(intended) > 0
	}
	if named && y.mark(s, nil) == 0 {
		return false
	}
	if !y.active {
		return true
	}
	s.ready()
	y.change = s.last + 1
	return true
}

// lists are the learners that hold everything, and those that do not, where the group has one
// voter.
func (y *synced) lists(s *stepper) (in, behind []uint64) {
	if !y.active || !s.leading.Load() {
		return nil, nil
	}
	in = y.inSync()
	for _, id := range s.conf.GetLearners() {
		if !slices.Contains(in, id) {
			behind = append(behind, id)
		}
	}
	return in, behind
}

// outlived reports whether the host of a learner that must hold everything refuses this member:
// the group may have gone on there in a later life, so what this member holds may be old.
func (y *synced) outlived() bool {
	for id, r := range y.required {
		if y.refuses[id] && r.dropped == 0 {
			return true
		}
	}
	return false
}

// obstacle says which learner everything waits for, "" if none.
func (y *synced) obstacle(s *stepper) string {
	for id, r := range y.required {
		if y.refuses[id] && r.dropped == 0 && r.held < y.own {
			return fmt.Sprintf("learner %d must hold everything, and its host answers and refuses this member: was the group recovered there (`ovs recover`), or this host removed? Then this member is of no use any more", id)
		}
		if r.dropped == 0 && r.held < y.own && !s.peers.alive(id) {
			return fmt.Sprintf("learner %d must hold everything, and is not heard from; without it the group goes on after Options.SyncPatience", id)
		}
	}
	return ""
}

// SyncPatience is the default of hosts: how long a group with one voter waits for its learner.
// It is longer than a restart of the learner's process, and shorter than the time after which
// guests give a disk up.
const SyncPatience = 10 * time.Second
