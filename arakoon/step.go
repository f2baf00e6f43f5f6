package arakoon

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/arakoon/state"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// appended says that the log is through with so many of raft's messages.
type appended int

// confChange asks raft to change the members.
type confChange struct {
	entry *pb.Entry
	reply chan *pb.ConfState
}

// stepper owns raft, which is not safe for concurrent use: one goroutine runs both,
// and all others leave in work what they want of raft.
type stepper struct {
	raft      *raft.RawNode
	work      *queue[any] // what take knows
	appends   *queue[*pb.Message]
	applies   *queue[*pb.Message]
	out       outbox
	source    *source
	incoming  *incoming
	end       *shutdown
	progress  *progress
	proposals *proposals
	opt       Options
	origin    uint64 // of the batches that this start of the node proposes

	leading *atomic.Bool   // the node's
	leader  *atomic.Uint64 // the node's
	inbox   *inbox
	figures *figures
	stands  bool                              // raft campaigns, or leads
	gone    func(id uint64) bool              // the state's: the group has removed this member
	storing func() (number uint64, busy bool) // the appender's

	conf       *pb.ConfState // as raft has it
	confAt     uint64        // the entry that it came with, 0 if that was before this start
	several    bool          // there are other members
	others     sync.Once     // that was so for the first time
	toldOthers chan struct{} // closed then
	last       uint64        // the last entry that the log was given
	peers      peers
	zones      zones
	places     places
	needs      needs
	synced     synced
	changes    changes
	lead       lead
	ticking    ticking
	denied     denied

	appending int         // messages that the log has not answered
	batch     uint64      // number of the last one
	round     uint64      // of ReadIndex
	waiting   []*proposal // to be harvested
	reads     []*read     // that raft has not been asked for
	asked     map[uint64][]*read

	handed uint64   // the last entry that the applier was given
	next   *arrived // a snapshot that waits until that is applied
	took   bool     // raft wants the snapshot that it was given last
}

// appendingMost is how many messages the log may have while proposals are harvested:
// one that is being written, and one that collects. With more, the proposals gather
// into a larger entry instead of a longer queue of small ones.
const appendingMost = 2

func (s *stepper) loop() {
	pace, stride := s.pace(), time.Duration(1)
	last, most := tickOf(s.opt.Beat, pace), stride
	tick := time.NewTimer(untilTick(s.opt.Beat, pace))
	defer tick.Stop()
	s.ready()
	for {
		if p, n := s.pace(), s.ticking.stride(s); p != pace || n != stride {
			if p != pace {
				last = tickOf(s.opt.Beat, p)
			}
			most = max(stride, n)
			pace, stride = p, n
			tick.Reset(untilTick(s.opt.Beat, pace*stride))
		}
		select {
		case <-s.work.wake.Rung():
		case <-tick.C:
			now := tickOf(s.opt.Beat, pace)
			for range min(now-last, most) { // those that the member was too late for are left out
				s.tickAll()
			}
			last, most = now, stride
			tick.Reset(untilTick(s.opt.Beat, pace*stride))
		case <-s.end.stop:
			return
		case <-s.end.failed:
			return
		}
		s.turn()
	}
}

// pace is how long a tick is.
func (s *stepper) pace() time.Duration {
	if s.several {
		return max(s.opt.Tick/heartbeatTicks, 1)
	}
	return s.opt.Tick
}

// turn does what is queued, and what raft makes of it.
func (s *stepper) turn() {
	for _, item := range s.work.take() {
		s.ticking.note(item)
		s.take(item)
	}
	// Before: raft may have become the leader or ceased to be, and both of the
	// calls between depend on it. After: they have given raft something to do.
	s.ready()
	s.needs.keep(s)
	s.takeSnapshot()
	s.propose()
	s.proposeChange()
	s.changes.settled(s)
	s.askIndex()
	s.ready()
	s.endTransfers()
}

// take does what somebody else wants of raft.
func (s *stepper) take(item any) {
	switch w := item.(type) {
	case *pb.Message: // of this member's own log or state
		if s.zones.active() && w.GetType() == pb.MsgAppResp {
			s.acknowledged(w)
			return
		}
		s.step(w)
	case received:
		s.receive(w)
	case appended:
		s.appending -= int(w)
	case confChange:
		w.reply <- s.source.changes(func() *pb.ConfState { return s.applyChange(w.entry) })
	case arrived:
		s.next = &w
	case snapshotLook, snapshotFailed:
		s.lookAfter(item)
	case *proposal:
		s.waiting = append(s.waiting, w)
	case wantsAge:
		if s.raft.BasicStatus().RaftState != raft.StateLeader || s.leading.Load() && s.lead.tells(s) {
			s.raft.ReadIndex(s.progress.ages.question(s.opt.Member))
		}
	case *read:
		s.reads = append(s.reads, w)
	case *change:
		s.takeChange(w)
	case *transfer:
		s.takeTransfer(w)
	case unreachable:
		s.raft.ReportUnreachable(uint64(w))
	case refusal:
		s.synced.refused(s, w)
	case *statusRequest:
		w.done <- s.status()
	case *asking:
		w.done <- w.question(s)
	}
}

// decodeConfChange panics, which fails the node, on what this release cannot read:
// going on with other members than the rest of the cluster could make two leaders.
func decodeConfChange(e *pb.Entry) pb.ConfChangeI {
	cc, err := confChangeOf(e)
	if err != nil {
		panic(fmt.Sprintf("entry %d: %v", e.GetIndex(), err))
	}
	return cc
}

// propose harvests the waiting proposals into entries of about Options.EntryBytes.
func (s *stepper) propose() {
	if len(s.waiting) == 0 || s.appending >= appendingMost {
		return
	}
	if !s.leading.Load() {
		s.proposals.refuse(0, s.waiting, s.notLeader())
		s.waiting = nil
		return
	}
	if err := s.needs.refused(); err != nil && !slices.ContainsFunc(s.waiting, func(p *proposal) bool { return p.command.Requires() }) {
		s.proposals.refuse(0, s.waiting, err)
		s.waiting = nil
		return
	}
	// The leader's clock, once for all members: each of them applies the same time.
	now := s.opt.Now().UnixNano()
	for len(s.waiting) > 0 {
		s.batch++
		b := state.Batch{Origin: s.origin, Number: s.batch}
		size := 0
		for len(b.Commands) < len(s.waiting) {
			c := s.waiting[len(b.Commands)].command
			if size += c.Size(); len(b.Commands) > 0 && (size > s.opt.EntryBytes || c.Requires() || b.Commands[0].Requires()) {
				break
			}
			c.Time = now
			b.Commands = append(b.Commands, c)
		}
		taken := s.waiting[:len(b.Commands):len(b.Commands)]
		s.waiting = s.waiting[len(b.Commands):]
		if !s.proposals.expect(s.batch, taken) {
			continue
		}
		if err := s.raft.Propose(state.AppendBatch(make([]byte, 0, size+64), b)); err != nil {
			s.proposals.refuse(s.batch, taken, fmt.Errorf("%w: %w", s.notLeader(), err))
		}
	}
	s.waiting = nil
}

// askIndex asks raft for the index that all waiting reads must see: one round to the
// other members for as many reads as there are.
func (s *stepper) askIndex() {
	if len(s.reads) == 0 {
		return
	}
	status := s.raft.BasicStatus()
	if !s.leading.Load() {
		// Where another leads the reads are its. While nobody is known to lead they
		// wait: this member may be about to, unless the group has removed it.
		if s.lead.mute || s.standsIn() || status.RaftState == raft.StateFollower && (status.Lead != raft.None || s.gone(s.opt.Member)) {
			for _, r := range s.reads {
				r.err <- s.notLeader()
			}
			s.reads = nil
		}
		return
	}
	// A leader learns what is committed with the first entry of its own term.
	// Before that is applied it does not know the index.
	if _, term := s.progress.now(); term != status.HardState.GetTerm() {
		return
	}
	err := s.needs.refused()
	if err == nil && s.synced.outlived() {
		err = s.notLeader()
	}
	if err != nil {
		for _, r := range s.reads {
			r.err <- err
		}
		s.reads = nil
		return
	}
	s.round++
	s.asked[s.round] = s.reads
	s.reads = nil
	s.raft.ReadIndex(binary.BigEndian.AppendUint64(nil, s.round))
}

// ready hands out what raft wants done. Nothing is done here: raft goes on while the
// log syncs and the state applies, and hears of both by their answers.
func (s *stepper) ready() {
	for s.raft.HasReady() {
		rd := s.raft.Ready()
		if rd.SoftState != nil {
			s.noteLead()
		}
		for _, r := range rd.ReadStates {
			if s.progress.heardAge(r) {
				continue
			}
			round := binary.BigEndian.Uint64(r.RequestCtx)
			for _, w := range s.asked[round] {
				w.index <- r.Index
			}
			delete(s.asked, round)
		}
		var away, votes []*pb.Message
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				s.given(m)
				s.appending++
				s.took = s.took || !raft.IsEmptySnap(m.GetSnapshot())
				s.appends.put(m)
			case raft.LocalApplyThread:
				if k := len(m.GetEntries()); k > 0 {
					s.handed = m.GetEntries()[k-1].GetIndex()
				}
				s.applies.put(m)
			default:
				if m.GetType() == pb.MsgVote {
					votes = append(votes, m)
				} else if s.goesOut(m) {
					away = append(away, m)
				}
			}
		}
		s.out.send(away)
		if m := askForVotes(votes); m != nil {
			s.appending++
			s.appends.put(m)
		}
	}
}

// goesOut reports whether a message goes to another member. raft sends a member nothing
// else after word of a snapshot until it is told what became of that.
func (s *stepper) goesOut(m *pb.Message) bool {
	goes := s.outgoing(m)
	switch {
	case m.GetType() != pb.MsgSnap:
	case goes:
		s.figures.snapshotsSent.Add(1)
		s.source.sentTo(m.GetTo(), m.GetSnapshot().GetData(), time.Now())
	default:
		s.work.put(snapshotFailed{m.GetTo()})
	}
	return goes
}

// given notes what the log is about to get.
func (s *stepper) given(m *pb.Message) {
	if snap := m.GetSnapshot().GetMetadata(); snap.GetIndex() > 0 {
		s.last, s.confAt = snap.GetIndex(), snap.GetIndex()
		s.needs.ahead, s.needs.renewed = nil, snap.GetIndex()
		s.setConf(snap.GetConfState())
	}
	if entries := m.GetEntries(); len(entries) > 0 {
		s.last = entries[len(entries)-1].GetIndex()
		s.proven(entries)
		s.needs.given(s, entries)
	}
}

// noteLead notes who leads, and whether this member does. What it had proposed when it lost
// the lead may be committed by the next leader, or overwritten: nobody here can say, so
// its proposers are told that the outcome is unknown. Reads have no effect, and are
// told to go to the leader.
func (s *stepper) noteLead() {
	status := s.raft.BasicStatus()
	leads := status.RaftState == raft.StateLeader
	s.lead.mute = s.lead.mute && leads
	// A leader goes on when a forced master becomes a voter: it gives that the lead.
	leads = leads && !s.lead.mute && (s.leading.Load() || s.mayLead(s.opt.Member))
	before := s.lead.id
	s.lead.id = status.Lead
	if s.lead.mute || !leads && !s.mayLead(status.Lead) {
		s.lead.id = raft.None
	}
	stands := status.RaftState != raft.StateFollower
	s.figures.noted(s.lead.id, before, stands && !s.stands)
	s.stands = stands
	s.leader.Store(s.lead.id)
	if !s.leading.Swap(leads) || leads {
		return
	}
	s.proposals.drop(fmt.Errorf("%w: this member leads no more", ErrUnknownOutcome))
	if c := s.changes.run; c != nil && c.proposed {
		s.endChange(changed{err: fmt.Errorf("%w: this member leads no more; whoever leads next may finish the change", ErrUnknownOutcome)})
	}
	for round, reads := range s.asked {
		for _, r := range reads {
			r.err <- s.notLeader()
		}
		delete(s.asked, round)
	}
}

// outbox brings messages to where they belong: to other members, or back to raft.
type outbox struct {
	member    uint64
	transport Transport // nil in a group of one
	work      *queue[any]
	stamp     []byte // of what this member acknowledges, nil: none
}

func (o outbox) send(messages []*pb.Message) {
	if len(messages) > 0 && o.transport != nil {
		o.transport.Send(messages)
	}
}

// respond delivers the responses that raft has attached to messages for the log or
// the state, which are now done. Of them the log has had count.
func (o outbox) respond(messages []*pb.Message, count int) {
	var own []any
	var away []*pb.Message
	for _, m := range messages {
		for _, r := range m.GetResponses() {
			if r.GetTo() == o.member {
				own = append(own, r)
			} else {
				o.stamped(r)
				away = append(away, r)
			}
		}
	}
	if count > 0 {
		own = append(own, appended(count))
	}
	o.send(away)
	o.work.put(own...)
}

// askForVotes makes a message for the log that has a candidate's requests sent when all is
// durable that the log was given before: the candidate's term, its vote for itself, and the
// entries that it says it has. raft would have them sent at once. But a candidate whose
// power is cut then would be back in its old term, with fewer entries, and could take the
// late grants of its earlier life for votes in the same term for the log that it has now.
func askForVotes(requests []*pb.Message) *pb.Message {
	if len(requests) == 0 {
		return nil
	}
	return &pb.Message{Type: pb.MsgStorageAppend.Enum(), Responses: requests}
}
