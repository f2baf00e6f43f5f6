package arakoon

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"openvstorage/arakoon/raftlog"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Bounds of what other members' messages may take until the stepper has them. Beyond
// them messages are dropped, as a network may drop them: raft sends again.
const (
	inboxMessages = 4096
	inboxBytes    = 64 << 20
)

// inbox counts the messages of other members.
type inbox struct {
	messages, bytes atomic.Int64 // not taken by the stepper yet
	dropped         atomic.Uint64
}

// received is a message of another member on its way to the stepper.
type received struct {
	m    *pb.Message
	size int64
}

// Step takes a message that a Transport has brought from another member. It does not
// block, and keeps the message. What is for another member, is from one that the group has
// removed, or cannot be a member's, is dropped and counted (Stats.Dropped), and so is what
// comes faster than it is taken. An error says that the message can never be another
// member's, or that the node has ended.
func (n *Node) Step(m *pb.Message) error {
	if raft.IsLocalMsg(m.GetType()) {
		return fmt.Errorf("arakoon: message of type %v is never another member's", m.GetType())
	}
	if err := n.Err(); err != nil {
		return err
	}
	if m.GetTo() != n.opt.Member || !wellFormed(m, n.opt.Member) {
		n.inbox.dropped.Add(1)
		return nil
	}
	r := received{m: m, size: 64 + int64(len(m.GetContext())+len(m.GetSnapshot().GetData()))}
	for _, e := range m.GetEntries() {
		r.size += int64(len(e.GetData())) + 64
	}
	messages, bytes := n.inbox.messages.Add(1), n.inbox.bytes.Add(r.size)
	if messages > inboxMessages || bytes-r.size > inboxBytes {
		n.inbox.taken(r)
		n.inbox.dropped.Add(1)
		return nil
	}
	n.work.put(r)
	return nil
}

func (b *inbox) taken(r received) {
	b.messages.Add(-1)
	b.bytes.Add(-r.size)
}

// wellFormed reports whether a member of this release could have sent a message: raft
// takes the order of entries and the terms on trust, and would end the node over them.
func wellFormed(m *pb.Message, self uint64) bool {
	asks := m.GetType() == pb.MsgReadIndex // without a term
	if m.GetFrom() == 0 || m.GetFrom() == self || raft.IsLocalMsgTarget(m.GetFrom()) || (m.GetTerm() == 0) != asks {
		return false
	}
	switch m.GetType() {
	case pb.MsgReadIndex:
		return asksAge(m, m.GetFrom())
	case pb.MsgReadIndexResp:
		return asksAge(m, self)
	case pb.MsgApp:
		return inOrder(m)
	case pb.MsgSnap:
		meta := m.GetSnapshot().GetMetadata()
		return meta.GetIndex() > 0 && meta.GetTerm() > 0 && meta.GetTerm() <= m.GetTerm() && len(meta.GetConfState().GetVoters()) > 0
	case pb.MsgAppResp, pb.MsgVote, pb.MsgVoteResp, pb.MsgPreVote, pb.MsgPreVoteResp, pb.MsgHeartbeat, pb.MsgHeartbeatResp, pb.MsgTimeoutNow:
		return len(m.GetEntries()) == 0 && m.GetSnapshot() == nil && len(m.GetResponses()) == 0
	}
	return false // members forward nothing else to each other
}

// inOrder reports whether entries follow each other behind the one that the message says
// they follow.
func inOrder(m *pb.Message) bool {
	index, term := m.GetIndex(), m.GetLogTerm()
	if term > m.GetTerm() {
		return false
	}
	for _, e := range m.GetEntries() {
		if e == nil || e.GetIndex() != index+1 || e.GetTerm() < term || e.GetTerm() > m.GetTerm() ||
			e.GetType() > pb.EntryConfChangeV2 || len(e.GetData()) > raftlog.EntryMax {
			return false
		}
		index, term = e.GetIndex(), e.GetTerm()
	}
	return true
}

// receive gives raft a message of another member.
func (s *stepper) receive(r received) {
	m := r.m
	s.inbox.taken(r)
	if !s.welcome(m) {
		s.inbox.dropped.Add(1)
		return
	}
	s.peers.hear(m.GetFrom())
	if m.GetType() == pb.MsgSnap { // raft hears of it when its files are here
		if err := s.incoming.offer(m); err != nil && s.end.err() == nil {
			s.inbox.dropped.Add(1)
			s.opt.Logger.Warn("raft message refused", slog.Any("error", err))
		}
		return
	}
	if m.GetType() == pb.MsgAppResp && s.isMember(m.GetFrom()) {
		s.places.note(m.GetFrom(), m.GetContext())
	}
	if s.synced.active && m.GetType() == pb.MsgAppResp {
		s.synced.hear(s, m)
	}
	if s.denied.by(s, m) {
		return
	}
	if m.GetType() == pb.MsgAppResp && !m.GetReject() && s.zones.active() && s.isMember(m.GetFrom()) {
		s.acknowledged(m)
		return
	}
	s.step(m)
}

// welcome reports whether raft may have a message. It fails the node if the message
// proves that the member's log was lost.
func (s *stepper) welcome(m *pb.Message) bool {
	from := m.GetFrom()
	known := s.isMember(from)
	if !known && s.gone(from) {
		return false
	}
	switch m.GetType() {
	case pb.MsgVote, pb.MsgPreVote:
		// A member that was made a voter held by then that it is a member. One whose
		// log is empty is none yet, or its log was lost, and with it what it had
		// acknowledged: its vote could lose that.
		return s.reaches(s.opt.begin().Index+1) || len(s.conf.GetVoters()) > 0
	case pb.MsgHeartbeat:
		// A leader says of commits no more than the member has acknowledged in the
		// leader's term, and a log loses nothing in a term.
		if m.GetTerm() >= s.raft.BasicStatus().HardState.GetTerm() && !s.reaches(m.GetCommit()) {
			s.end.fail(fmt.Errorf("%w: its log ends at entry %d, and member %d has its acknowledgement of entry %d; replace this member by one with another id",
				ErrLost, s.last, from, m.GetCommit()))
			return false
		}
	case pb.MsgAppResp:
		return m.GetReject() || s.reaches(m.GetIndex())
	case pb.MsgTimeoutNow:
		return known
	case pb.MsgReadIndex:
		// Two that take each other for the leader would send it to and fro. A leader that
		// has nothing of its term yet would keep it, as many as there are.
		return known && s.leading.Load() && s.lead.tells(s)
	}
	return true
}

// reaches reports whether raft has an entry of that index or behind it.
func (s *stepper) reaches(index uint64) bool {
	if index > s.last {
		s.ready() // raft may hold entries that the log was not given yet
	}
	return index <= s.last
}

// isMember reports whether a member is one of those that there are now.
func (s *stepper) isMember(id uint64) bool {
	return slices.Contains(s.conf.GetVoters(), id) || slices.Contains(s.conf.GetLearners(), id) || slices.Contains(s.conf.GetVotersOutgoing(), id)
}

// acknowledged lets an acknowledgement pass as far as the zones have what it is for.
func (s *stepper) acknowledged(m *pb.Message) {
	status := s.raft.BasicStatus()
	if status.RaftState != raft.StateLeader || m.GetTerm() != status.HardState.GetTerm() {
		s.step(m) // raft drops it, or learns of the term
		return
	}
	s.zones.begin(status.HardState.GetTerm())
	s.deliver(s.zones.acknowledge(m.GetFrom(), m.GetIndex()))
}

// deliver gives raft acknowledgements.
func (s *stepper) deliver(acks []ack) {
	for _, a := range acks {
		s.step(&pb.Message{
			Type: pb.MsgAppResp.Enum(), From: new(a.member), To: new(s.opt.Member), Term: new(s.zones.term), Index: new(a.index),
		})
	}
}

func (s *stepper) step(m *pb.Message) {
	if s.synced.active && m.GetType() == pb.MsgAppResp && s.synced.holds(s, m) {
		return
	}
	// Both errors are usual: a member that was removed still sends, and only a leader
	// takes proposals.
	err := s.raft.Step(m)
	if errors.Is(err, raft.ErrStepPeerNotFound) {
		s.inbox.dropped.Add(1)
	} else if err != nil && !errors.Is(err, raft.ErrProposalDropped) {
		s.opt.Logger.Warn("raft message refused", slog.Any("error", err))
	}
}
