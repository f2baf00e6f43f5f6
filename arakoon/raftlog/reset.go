package raftlog

import (
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// restart is what a log begins anew with.
type restart struct {
	marker Marker
	hard   *pb.HardState
}

// Reset makes the log begin anew behind an entry that it need not have had: the effects of
// all entries up to there came with another member's state, and must be durable. No entry
// that the log holds counts any more, also none behind the marker. hard is the hard state
// from then on, the one that the log has if it is nil or empty; its commit index is raised
// to the marker.
//
// The marker, as the first thing in a segment of its own, is made durable by the sync of
// that segment's name. So a power cut leaves the old log or the new one, and both whole.
// Segments of the old log go after that. Errors are as those of Append: while Err is nil
// and the cause passes, nothing has changed here and the call may be repeated; but a
// restart may find the new log.
func (l *Log) Reset(m Marker, hard *pb.HardState) error {
	l.w.Lock()
	defer l.w.Unlock()
	if l.err != nil {
		return l.err
	}
	if m.Index <= l.index.marker.Index {
		return fmt.Errorf("raftlog: reset %s: entry %d is behind entry %d, where the log begins", l.opt.Dir, m.Index, l.index.marker.Index)
	}
	m.Conf, m.reset = proto.Clone(m.Conf).(*pb.ConfState), true
	l.restart = &restart{marker: m, hard: raised(m.Index, hard, l.hard)}
	defer func() { l.restart = nil }()
	if err := l.roll(nil); err != nil {
		return err
	}
	return l.dropOld()
}

// raised is hard, or else known, with at least this commit index.
func raised(commit uint64, hard, known *pb.HardState) *pb.HardState {
	if hard.GetTerm() == 0 {
		hard = known
	}
	return &pb.HardState{Term: new(hard.GetTerm()), Vote: new(hard.GetVote()), Commit: new(max(hard.GetCommit(), commit))}
}
