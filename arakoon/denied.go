package arakoon

import (
	"log/slog"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// denied are the members that deny what they have acknowledged to this leader: entries that are
// not committed yet, so that the member cannot know that it lost anything. It is the stepper's.
type denied struct {
	term uint64          // of the leader
	said map[uint64]bool // what was logged in it
}

// by reports whether a member rejects an append and says that its log ends before what it
// has acknowledged in this term. A log that is whole cannot: up to there it is the leader's, so
// what it names as the last place where they may agree is not before. The rejection may be an old
// one that comes late, or the member's log was lost. Raft would try again from the same place at
// once, and be rejected again, as fast as the network goes; so it is not told, and tries again
// with the next heartbeat. The next leader, which counts on no acknowledgement of before, sends
// the member what it lacks.
func (d *denied) by(s *stepper, m *pb.Message) bool {
	status := s.raft.BasicStatus()
	if m.GetType() != pb.MsgAppResp || !m.GetReject() || status.RaftState != raft.StateLeader || m.GetTerm() != status.HardState.GetTerm() {
		return false
	}
	match := uint64(0)
	s.raft.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == m.GetFrom() {
			match = pr.Match
		}
	})
	if m.GetRejectHint() >= match {
		return false
	}
	if d.term != m.GetTerm() {
		d.term, d.said = m.GetTerm(), map[uint64]bool{}
	}
	if !d.said[m.GetFrom()] {
		d.said[m.GetFrom()] = true
		s.opt.Logger.Warn("a member rejects what it has acknowledged; if this goes on, its disk has lost it: replace the member",
			slog.Uint64("from", m.GetFrom()), slog.Uint64("acknowledged", match), slog.Uint64("has", m.GetRejectHint()))
	}
	return true
}
