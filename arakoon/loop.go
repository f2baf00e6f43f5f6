package arakoon

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"openvstorage/arakoon/raftlog"
	"openvstorage/arakoon/state"
	"openvstorage/internal/disk"

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

// stepper is what only the goroutine that steps raft knows.
type stepper struct {
	*Node
	appending int // messages that the log has not answered
	batch     uint64
	round     uint64 // of ReadIndex
	proposals []*proposal
	reads     []*read
	asked     map[uint64][]*read // by round
}

// ahead is how many messages the log may have while proposals are harvested:
// one being written, one that collects. Until then clients' proposals gather.
const ahead = 2

func (n *Node) loop() {
	s := &stepper{Node: n, asked: map[uint64][]*read{}}
	tick := time.NewTicker(n.opt.Tick)
	defer tick.Stop()
	s.ready()
	for {
		select {
		case <-n.work.wake.Rung():
		case <-tick.C:
			s.raft.Tick()
		case <-n.stop:
			return
		case <-n.failed:
			return
		}
		s.turn()
	}
}

// turn does what is queued, and what raft makes of it.
func (s *stepper) turn() {
	for _, item := range s.work.take() {
		switch w := item.(type) {
		case *pb.Message:
			if err := s.raft.Step(w); err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) && !errors.Is(err, raft.ErrProposalDropped) {
				s.opt.Logger.Warn("raft message refused", slog.Any("error", err))
			}
		case appended:
			s.appending -= int(w)
		case confChange:
			w.reply <- s.raft.ApplyConfChange(decodeConfChange(w.entry))
		case *proposal:
			s.proposals = append(s.proposals, w)
		case *read:
			s.reads = append(s.reads, w)
		}
	}
	s.ready()
	s.propose()
	s.ask()
	s.ready()
}

func decodeConfChange(e *pb.Entry) pb.ConfChangeI {
	cc, err := confChangeOf(e)
	if err != nil {
		panic(fmt.Sprintf("entry %d: %v", e.GetIndex(), err))
	}
	return cc
}

// propose harvests the proposals into entries.
func (s *stepper) propose() {
	if len(s.proposals) == 0 || s.appending >= ahead {
		return
	}
	if !s.Leading() {
		s.refuse(s.proposals, ErrNotLeader)
		s.proposals = nil
		return
	}
	now := s.opt.Now().UnixNano()
	for len(s.proposals) > 0 {
		s.batch++
		b := state.Batch{Origin: s.origin, Number: s.batch}
		size := 0
		for len(b.Commands) < len(s.proposals) {
			c := s.proposals[len(b.Commands)].command
			if size += c.Size(); size > s.opt.EntryBytes && len(b.Commands) > 0 {
				break
			}
			c.Time = now
			b.Commands = append(b.Commands, c)
		}
		taken := s.proposals[:len(b.Commands):len(b.Commands)]
		s.proposals = s.proposals[len(b.Commands):]
		if !s.expect(s.batch, taken) {
			continue
		}
		if err := s.raft.Propose(state.AppendBatch(make([]byte, 0, size+64), b)); err != nil {
			s.forget(s.batch)
			s.refuse(taken, fmt.Errorf("%w: %w", ErrNotLeader, err))
		}
	}
	s.proposals = nil
}

// ask asks raft for the index that all waiting reads must see. Before the
// first entry of its own term is applied a leader does not know it.
func (s *stepper) ask() {
	if len(s.reads) == 0 {
		return
	}
	status := s.raft.BasicStatus()
	if !s.Leading() {
		if status.RaftState == raft.StateFollower && status.Lead != raft.None {
			for _, r := range s.reads {
				r.err <- ErrNotLeader
			}
			s.reads = nil
		}
		return
	}
	if _, term := s.progress.now(); term != status.HardState.GetTerm() {
		return
	}
	s.round++
	s.asked[s.round] = s.reads
	s.reads = nil
	s.raft.ReadIndex(binary.BigEndian.AppendUint64(nil, s.round))
}

// ready hands out what raft wants done.
func (s *stepper) ready() {
	for s.raft.HasReady() {
		rd := s.raft.Ready()
		if rd.SoftState != nil {
			s.soft(rd.SoftState)
		}
		for _, r := range rd.ReadStates {
			round := binary.BigEndian.Uint64(r.RequestCtx)
			for _, w := range s.asked[round] {
				w.index <- r.Index
			}
			delete(s.asked, round)
		}
		var away []*pb.Message
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				s.appending++
				s.appends.put(m)
			case raft.LocalApplyThread:
				s.applies.put(m)
			default:
				away = append(away, m)
			}
		}
		s.send(away)
	}
}

// soft notes who leads. What a leader had proposed when it lost the lead may
// happen or not.
func (s *stepper) soft(state *raft.SoftState) {
	leads := state.RaftState == raft.StateLeader
	if s.leading.Swap(leads) && !leads {
		s.drop(fmt.Errorf("%w: this member leads no more", ErrUnknownOutcome))
		for round, reads := range s.asked {
			for _, r := range reads {
				r.err <- ErrNotLeader
			}
			delete(s.asked, round)
		}
	}
}

func (n *Node) send(messages []*pb.Message) {
	if len(messages) > 0 && n.opt.Transport != nil {
		n.opt.Transport.Send(messages)
	}
}

// Step takes a message that a Transport has brought from another member.
func (n *Node) Step(m *pb.Message) error {
	if raft.IsLocalMsg(m.GetType()) {
		return fmt.Errorf("arakoon: message of type %v is never another member's", m.GetType())
	}
	if err := n.Err(); err != nil {
		return err
	}
	n.work.put(m)
	return nil
}

// respond delivers the responses that raft attached to a message.
func (n *Node) respond(messages []*pb.Message, count int) {
	var own []any
	var away []*pb.Message
	for _, m := range messages {
		for _, r := range m.GetResponses() {
			if r.GetTo() == n.opt.Member {
				own = append(own, r)
			} else {
				away = append(away, r)
			}
		}
	}
	if count > 0 {
		own = append(own, appended(count))
	}
	n.send(away)
	n.work.put(own...)
}

// appendLoop stores what raft wants stored: all that is queued with one sync.
func (n *Node) appendLoop() {
	hard, _, _ := n.log.InitialState()
	for {
		select {
		case <-n.appends.wake.Rung():
		case <-n.stop:
			return
		case <-n.failed:
			return
		}
		messages := n.appends.take()
		var rounds []raftlog.Round
		for _, m := range messages {
			if !raft.IsEmptySnap(m.GetSnapshot()) {
				n.fail(errors.New("a snapshot came from a cluster of one"))
				return
			}
			r := raftlog.Round{Entries: m.GetEntries()}
			h := &pb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
			// A commit index that has merely moved is not worth a sync: a
			// restart learns it again.
			if !raft.IsEmptyHardState(h) && (len(r.Entries) > 0 || h.GetTerm() != hard.GetTerm() || h.GetVote() != hard.GetVote()) {
				r.HardState, hard = h, h
			}
			if len(r.Entries) > 0 || r.HardState != nil {
				rounds = append(rounds, r)
			}
		}
		if err := n.store(rounds); err != nil {
			n.fail(err)
			return
		}
		n.respond(messages, len(messages))
	}
}

// storeAgain is how long the log waits for what hinders it, and tellFull how many
// times before it says again that it has no room.
const (
	storeAgain = 100 * time.Millisecond
	tellFull   = 5
)

// store appends rounds. While the log is as it was, and what hinders it may
// pass, as a want of room or of descriptors for a new segment does, the group
// waits, which is said once.
func (n *Node) store(rounds []raftlog.Round) error {
	for try := 0; ; try++ {
		err := n.log.Append(rounds...)
		if err == nil {
			if n.stalled.Load() != nil {
				n.stalled.Store(nil)
			}
			return nil
		}
		if n.log.Err() != nil || !disk.CauseOf(err).Passes() {
			return err
		}
		if n.stalled.Swap(&err) == nil {
			n.opt.Logger.Error("arakoon node waits: it cannot store anything", slog.Any("error", err))
		}
		if disk.CauseOf(err) == disk.Full && try%tellFull == 0 {
			n.opt.OnFull(err)
		}
		select {
		case <-time.After(storeAgain):
		case <-n.stop:
			return err
		case <-n.failed:
			return n.Err()
		}
	}
}

// applyLoop applies what is committed: all that is queued as one batch.
func (n *Node) applyLoop() {
	begun, replayed := uint64(0), false
	for {
		select {
		case <-n.applies.wake.Rung():
		case <-n.stop:
			return
		case <-n.failed:
			return
		}
		messages := n.applies.take()
		var entries []*pb.Entry
		for _, m := range messages {
			entries = append(entries, m.GetEntries()...)
		}
		if len(entries) > 0 {
			applied, err := n.state.Apply(entries, n.changeMembers)
			if err != nil {
				n.fail(err)
				return
			}
			last := entries[len(entries)-1]
			n.progress.advance(last.GetIndex(), last.GetTerm())
			for _, a := range applied {
				if a.Origin == n.origin {
					n.answer(a)
				}
			}
			// What lies behind grows by whole segments, however little is in them, and
			// all at once when what the log held at the start is applied.
			end := !replayed && last.GetIndex() >= n.held
			if b := n.log.Begun(); b != begun || end {
				begun, replayed = b, replayed || end
				n.compact.Ring()
			}
		}
		n.respond(messages, 0)
		if len(messages) > 0 {
			n.work.wake.Ring() // reads may wait for the first entry of a term
		}
	}
}

func (n *Node) changeMembers(e *pb.Entry) (*pb.ConfState, error) {
	c := confChange{e, make(chan *pb.ConfState, 1)}
	n.work.put(c)
	select {
	case conf := <-c.reply:
		return conf, nil
	case <-n.stop:
		return nil, ErrClosed
	case <-n.failed:
		return nil, n.Err()
	}
}

// compactLoop truncates the log behind a finished flush of the state. It closes
// first when it has looked once.
func (n *Node) compactLoop(first chan struct{}) {
	select {
	case <-n.compactable:
	case <-n.stop:
		return
	case <-n.failed:
		return
	}
	var again <-chan time.Time // what failed and may pass is tried again, also when nothing is written
	for {
		passed, err := n.compactOnce()
		if err != nil && !passed {
			n.fail(err)
			return
		}
		again = nil
		if err != nil {
			again = time.After(compactAgain)
		}
		if first != nil {
			close(first)
			first = nil
		}
		select {
		case <-n.compact.Rung():
		case <-again:
		case <-n.stop:
			return
		case <-n.failed:
			return
		}
	}
}

// compactAgain is how long after a failure that may pass the log is compacted
// again, and compactPatience how long a start waits for it: on a full disk the
// flush waits for room.
const (
	compactAgain    = 5 * time.Second
	compactPatience = 2 * time.Second
)

// compactOnce truncates the log if enough lies behind. passed says of an error
// that nothing has changed, and it may pass.
func (n *Node) compactOnce() (passed bool, err error) {
	if n.log.Behind(n.Applied()) <= n.opt.CompactBytes {
		return false, nil
	}
	at, err := n.state.Flush()
	if err != nil {
		return false, err
	}
	n.log.StateDurable(at.Index)
	err = n.log.Compact(at.Index, at.Conf)
	return err != nil && n.log.Err() == nil && disk.CauseOf(err).Passes(), err
}
