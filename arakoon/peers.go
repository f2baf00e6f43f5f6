package arakoon

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

// Ticks are a quarter of Options.Tick where there are several members. A leader sends a
// heartbeat every Options.Tick. A follower that hears of none for 16 to 31 ticks begins an
// election: by default that and the votes take 0.4 to 0.8 s. The finer the ticks, the more
// rarely two followers begin at once, and both win nothing. Neither heartbeats nor their
// answers wait for a disk. A member that is alone ticks once in Options.Tick.
const (
	heartbeatTicks = 4
	electionTicks  = 4 * heartbeatTicks
	// aliveTicks is for how long a member counts as alive that was heard from: the time
	// in which it would have answered several heartbeats.
	aliveTicks = 2 * electionTicks
)

// peers is when the other members were heard from last, in ticks of this member: whoever
// counts on a wall clock is wrong when it jumps. It is the stepper's.
type peers struct {
	tick  uint64
	heard map[uint64]uint64
}

// hear notes a message. Only members enter: what others send is not to take memory.
func (p *peers) hear(id uint64) {
	if _, ok := p.heard[id]; ok {
		p.heard[id] = p.tick
	}
}

// setMembers notes the members; a new one counts as heard from, as it had no time yet.
func (p *peers) setMembers(ids []uint64) {
	was := p.heard
	p.heard = make(map[uint64]uint64, len(ids))
	for _, id := range ids {
		if at, ok := was[id]; ok {
			p.heard[id] = at
		} else {
			p.heard[id] = p.tick
		}
	}
}

// alive reports whether a member was heard from lately.
func (p *peers) alive(id uint64) bool {
	at, ok := p.heard[id]
	return ok && p.tick-at < aliveTicks
}

// aliveOf are those of a list that were heard from lately. Whoever asks is.
func (s *stepper) aliveOf(ids []uint64) (alive []uint64) {
	for _, id := range ids {
		if id == s.opt.Member || s.peers.alive(id) {
			alive = append(alive, id)
		}
	}
	return alive
}

// caughtUp refuses a member that may not become a voter or the leader yet: it is not heard
// from, or too far behind. Only a leader knows.
func (s *stepper) caughtUp(id uint64) error {
	commit := s.raft.BasicStatus().HardState.GetCommit()
	e := &NotCaughtUpError{Member: id, Commit: commit, Active: s.peers.alive(id)}
	replicates := false
	s.raft.WithProgress(func(member uint64, _ raft.ProgressType, pr tracker.Progress) {
		if member == id {
			e.Match, replicates = pr.Match, pr.State == tracker.StateReplicate
		}
	})
	if e.Active && replicates && e.Match+caughtUpLag >= commit {
		return nil
	}
	return e
}

// successor is the member that can take the lead best: a voter that is heard from, has
// caught up, and holds the longest log; of those equal, the one with the lowest id. 0 if
// there is none.
func (s *stepper) successor(among func(id uint64) bool) uint64 {
	best, longest := uint64(0), uint64(0)
	match := map[uint64]uint64{}
	s.raft.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) { match[id] = pr.Match })
	voters := slices.Sorted(slices.Values(s.conf.GetVoters()))
	for _, id := range voters {
		if id == s.opt.Member || !among(id) || s.caughtUp(id) != nil {
			continue
		}
		if best == 0 || match[id] > longest {
			best, longest = id, match[id]
		}
	}
	return best
}
