package arakoon

import (
	"cmp"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

// Roles of a member.
const (
	RoleLeader    = "leader"
	RoleFollower  = "follower"
	RoleCandidate = "candidate" // it asks for votes
	RoleLearner   = "learner"
	RoleJoining   = "joining" // it has heard from nobody yet
	RoleRemoved   = "removed" // the group goes on without it
	RoleFailed    = "failed"  // or closed
)

// Status is what a member knows of its group.
type Status struct {
	ID      uint64
	Leader  uint64 // 0: not known
	Term    uint64
	Role    string
	Commit  uint64 // 0 of a member that has ended
	Applied uint64
	Members Members
	// Requirement is of zones that must hold everything, as far as the member has applied.
	Requirement Requirement
	Missing     *ZonesError // the zones that are away while they are required; on a leader alone
	// Obstacle says why writes would not go on now, as far as this member knows; "" if
	// nothing stands in the way, which promises nothing.
	Obstacle string
	Peers    []PeerStatus // all members, ascending; on a leader alone
	// InSync are the learners of a group with one voter that hold all that is answered, and
	// Behind those that do not; on a leader alone.
	InSync, Behind []uint64
}

// PeerStatus is what a leader knows of a member.
type PeerStatus struct {
	ID           uint64
	Match        uint64 // up to this entry it holds the log
	Lag          uint64 // entries of what is committed that it lacks
	State        string // StateProbe, StateReplicate or StateSnapshot
	RecentActive bool   // it was heard from in the time of the last 8 heartbeats
	Learner      bool
	Zone         string // where it is, "" if that is not known or it is in none
}

// ExpectProgressPossible reports whether writes can be expected to go on.
func (s Status) ExpectProgressPossible() bool { return s.Obstacle == "" }

type statusRequest struct{ done chan Status }

// Status asks the node for what it knows now. It waits for nothing but the node's own
// stepper, which waits for no disk and no network.
func (n *Node) Status() Status {
	if n.Err() == nil {
		r := &statusRequest{done: make(chan Status, 1)}
		n.work.put(r)
		select {
		case s := <-r.done:
			return s
		case <-n.end.failed:
		case <-n.end.stop:
		}
	}
	return Status{ID: n.opt.Member, Role: RoleFailed, Applied: n.Applied(), Members: n.Members(), Obstacle: n.Err().Error()}
}

func (s *stepper) status() Status {
	raw := s.raft.BasicStatus()
	applied, _ := s.progress.now()
	out := Status{
		ID: s.opt.Member, Leader: s.lead.id, Term: raw.HardState.GetTerm(), Role: s.role(raw.RaftState),
		Commit: raw.HardState.GetCommit(), Applied: applied, Members: membersOf(s.conf),
	}
	out.Requirement, _ = s.needs.state()
	if raw.RaftState == raft.StateLeader {
		out.Missing = s.needs.away(s)
		s.raft.WithProgress(func(id uint64, t raft.ProgressType, pr tracker.Progress) {
			p := PeerStatus{
				ID: id, Match: pr.Match, State: pr.State.String(), Learner: t == raft.ProgressTypeLearner,
				Zone: s.places.zone(id), RecentActive: id == s.opt.Member || s.peers.alive(id),
			}
			p.Lag = out.Commit - min(out.Commit, pr.Match)
			out.Peers = append(out.Peers, p)
		})
		slices.SortFunc(out.Peers, func(a, b PeerStatus) int { return cmp.Compare(a.ID, b.ID) })
	}
	out.InSync, out.Behind = s.synced.lists(s)
	out.Obstacle = s.obstacle(out)
	return out
}

func (s *stepper) role(state raft.StateType) string {
	switch {
	case len(s.conf.GetVoters()) == 0:
		return RoleJoining
	case !s.isMember(s.opt.Member):
		return RoleRemoved
	case slices.Contains(s.conf.GetLearners(), s.opt.Member):
		return RoleLearner
	case state == raft.StateLeader:
		return RoleLeader
	case state == raft.StateFollower:
		return RoleFollower
	}
	return RoleCandidate
}

// obstacle is why writes would not go on.
func (s *stepper) obstacle(now Status) string {
	switch {
	case s.lead.mute:
		return "the leader's disk does not answer, and no other member has taken over"
	case s.standsIn():
		return fmt.Sprintf("this member stands in for the forced masters %v, none of which is there and has caught up", s.opt.Preferred)
	case now.Leader == raft.None:
		return "no member is known to lead"
	case now.Leader != s.opt.Member && s.isMember(now.Leader) && !s.peers.alive(now.Leader):
		return fmt.Sprintf("member %d leads and is not heard from", now.Leader)
	case now.Leader != s.opt.Member:
		return ""
	}
	for _, voters := range [][]uint64{now.Members.Voters, now.Members.Outgoing} {
		if alive := s.aliveOf(voters); len(voters) > 0 && len(alive) <= len(voters)/2 {
			return fmt.Sprintf("of the voters %v only %v are heard from", voters, alive)
		}
	}
	if e := s.needs.away(s); e != nil {
		return e.Error()
	}
	return s.synced.obstacle(s)
}
