package arakoon

import (
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// takeSnapshot gives raft the snapshot that has arrived, once all that raft has given to be
// applied is applied. From then on raft gives nothing more until the snapshot is in place.
// So nobody applies while that happens, and no change of the members that the old state
// still had to hear of meets the members that the snapshot brings.
func (s *stepper) takeSnapshot() {
	a := s.next
	if a == nil {
		return
	}
	if applied, _ := s.progress.now(); applied < s.handed {
		return // the applier's answer wakes this goroutine
	}
	// The files have taken a while, and another member may lead. What they hold was
	// committed, and is no less so for that.
	m, status := a.message, s.raft.BasicStatus()
	if status.HardState.GetTerm() > m.GetTerm() && status.Lead != s.opt.Member {
		if status.Lead == raft.None {
			return // raft listens to a leader alone; the next one is heard of soon
		}
		m.From, m.Term = new(status.Lead), new(status.HardState.GetTerm())
	}
	s.next, s.took = nil, false
	s.step(m)
	s.ready()
	if !s.took {
		s.incoming.refused(a.prepared)
		return
	}
	s.source.changes(func() *pb.ConfState { return m.GetSnapshot().GetMetadata().GetConfState() })
}

// lookAfter tells the source of snapshots how far the other members are, or raft that some
// have not fetched what was offered.
func (s *stepper) lookAfter(item any) {
	if failed, ok := item.(snapshotFailed); ok {
		for _, id := range failed {
			s.raft.ReportSnapshot(id, raft.SnapshotFailure)
		}
		return
	}
	status := s.raft.Status()
	var matches map[uint64]uint64
	if status.RaftState == raft.StateLeader {
		matches = make(map[uint64]uint64, len(status.Progress))
		for id, p := range status.Progress {
			matches[id] = p.Match
		}
	}
	s.source.observe(matches, status.HardState.GetCommit(), time.Now())
}
