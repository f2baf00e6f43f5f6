package arakoon

import (
	"bytes"
	"encoding/binary"
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
// is an entry that sets it. Rules:
//
//  1. A learner is required before the mark that names it is proposed. So the mark is committed
//     when the learner holds it and all before it, and from then on the learner lacks nothing.
//  2. It is required no more when a mark that does not name it is durable in the leader's own
//     log, and not before. All that waited is answered behind that mark.
//  3. Before a change of the members is proposed a mark that names nobody is: another set of
//     voters commits without the gate.
//  4. A leader requires in a new term, before it commits anything, each learner that a mark may
//     name: those of the state's mark, and all of them if entries are in the log that the
//     state had not applied, as a mark may be among them.
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
type synced struct {
	patience uint64 // ticks; 0: no learner is kept in sync
	forever  bool   // no learner is ever dropped
	active   bool   // there is one voter, this member, and there are learners
	term     uint64 // what follows is of this term
	own      uint64 // this member's log holds the entries up to here
	told     uint64 // as raft knows
	required map[uint64]*mirror
	waits    map[uint64]*wait // of learners that are not required
	marked   []uint64         // by the newest mark that is proposed
	doubt    bool             // what is marked is not known
	change   uint64           // a change of the members is proposed with this entry
	read     func() ([]uint64, error)
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

// syncedKey holds the members that are in sync: version u16, zeros u16, number u32, ids u64.
var syncedKey = []byte("host/synced")

const syncedVersion = 1

func appendSynced(dst []byte, ids []uint64) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(le.AppendUint32(dst, syncedVersion), uint32(len(ids)))
	for _, id := range ids {
		dst = le.AppendUint64(dst, id)
	}
	return dst
}

func decodeSynced(b []byte) (ids []uint64, err error) {
	le := binary.LittleEndian
	if b == nil {
		return nil, nil
	}
	if len(b) < 8 || le.Uint32(b) != syncedVersion || uint64(len(b)-8) != 8*uint64(le.Uint32(b[4:])) {
		return nil, fmt.Errorf("key %q: %d bytes are no members in sync that this release reads", syncedKey, len(b))
	}
	for b = b[8:]; len(b) > 0; b = b[8:] {
		ids = append(ids, le.Uint64(b))
	}
	return ids, nil
}

// newSynced is made once for a node.
func newSynced(opt Options, read func() ([]uint64, error)) synced {
	y := synced{forever: opt.SyncPatience < 0, read: read, waits: map[uint64]*wait{}}
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
	y.marked, y.doubt = nil, false
	if first == 0 {
		return
	}
	marked, err := y.read()
	if applied, _ := s.progress.now(); err != nil || applied+1 < first {
		y.doubt = true
	}
	y.marked = marked
	for _, id := range s.conf.GetLearners() {
		if y.doubt || slices.Contains(marked, id) {
			y.required[id] = &mirror{}
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

// hear notes what a learner has acknowledged.
func (y *synced) hear(s *stepper, m *pb.Message) {
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
		if r.ticks++; r.ticks >= y.patience && !y.forever {
			y.drop(s, id, r)
		}
	}
	y.takeBack(s)
	if y.changing(s) {
		return
	}
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
		if w.good++; w.good >= w.need {
			y.required[id] = &mirror{held: match[id]} // rule 1
			s.opt.Logger.Info("a learner holds everything, and nothing is answered from now on before it does", slog.Uint64("learner", id))
		}
	}
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
	body := markOf(ids)
	s.batch++
	b := state.Batch{Origin: s.origin, Number: s.batch, Commands: []state.Command{{Time: s.opt.Now().UnixNano(), Body: body}}}
	s.ready() // all that raft has so far gets its index
	if err := s.raft.Propose(state.AppendBatch(nil, b)); err != nil {
		return 0 // the next tick tries again
	}
	s.ready()
	y.marked, y.doubt = slices.Clone(ids), false
	return s.last
}

// forget is rule 3: whoever is about to propose a change of the members calls it. It reports
// whether the change may follow.
func (y *synced) forget(s *stepper) bool {
	if !y.active {
		return true
	}
	if (len(y.marked) > 0 || y.doubt) && y.mark(s, nil) == 0 {
		return false
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

// obstacle says which learner everything waits for, "" if none.
func (y *synced) obstacle(s *stepper) string {
	for id, r := range y.required {
		if r.dropped == 0 && r.held < y.own && !s.peers.alive(id) {
			return fmt.Sprintf("learner %d must hold everything, and is not heard from; without it the group goes on after Options.SyncPatience", id)
		}
	}
	return ""
}

// markOf is the body of a mark's command.
func markOf(ids []uint64) []byte {
	body, err := new(Sequence).Set(syncedKey, appendSynced(nil, ids)).Encode()
	if err != nil {
		panic(fmt.Sprintf("members in sync: %v", err)) // they are few
	}
	return body
}

// marksOf returns what the marks in an entry say, the last one; found is false if it has none.
func marksOf(e *pb.Entry) (ids []uint64, found bool, err error) {
	if e.GetType() != pb.EntryNormal || len(e.GetData()) == 0 {
		return nil, false, nil
	}
	b, err := state.DecodeBatch(e.GetData())
	if err != nil {
		return nil, false, err
	}
	none := len(markOf(nil))
	for _, c := range b.Commands {
		n := len(c.Body) - none
		if n < 0 || n%8 != 0 || n/8 > LearnersMax {
			continue
		}
		had, err := decodeSynced(c.Body[len(c.Body)-8-n:])
		if err == nil && bytes.Equal(c.Body, markOf(had)) {
			ids, found = had, true
		}
	}
	return ids, found, nil
}

// inSync says whether a survivor is in sync as of the end of its log.
func (n *Node) inSync(s Survivor) (bool, error) {
	ids, err := n.markedIn()
	if err != nil {
		return false, err
	}
	err = n.tail(func(e *pb.Entry) error {
		had, found, err := marksOf(e)
		if found {
			ids = had
		}
		return err
	})
	return slices.Contains(ids, s.Member) && len(s.Members.Voters) == 1 && len(s.Members.Outgoing) == 0 && slices.Contains(s.Members.Learners, s.Member), err
}

// markedIn is what the state's mark names.
func (n *Node) markedIn() ([]uint64, error) {
	v := n.state.use()
	defer n.state.leave(v)
	b, found, err := v.Get(syncedKey)
	if err != nil || !found {
		return nil, err
	}
	return decodeSynced(b)
}

// SyncPatience is the default of hosts: how long a group with one voter waits for its learner.
// It is longer than a restart of the learner's process, and shorter than the time after which
// guests give a disk up.
const SyncPatience = 10 * time.Second
