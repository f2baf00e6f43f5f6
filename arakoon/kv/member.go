package kv

import (
	"context"

	"openvstorage/arakoon"
	"openvstorage/internal/wire"

	"go.etcd.io/raft/v3/tracker"
)

// Status is what a member says of itself and its group. On the wire: version u8, flags u8
// (1 leads, 2 has no room, 4 has failed, 8 zones are or were required), zero u16, then u64 each: member, leader, term,
// commit, applied, bytes of proposals; then u32 each: proposals, reads; then voters,
// learners and outgoing voters, each its number u32 and ids u64; then the followers as the
// leader sees them: their number u32, and of each id u64, match u64, lag u64, and flags u8
// (1 heard from lately, 2 a snapshot is on its way, 4 entries are, 8 a learner); then role
// and obstacle as byte strings; then, with flag 8, the requirement (zones.go).
type Status struct {
	Member   uint64
	Leader   uint64 // as far as the member knows; 0: it does not
	Term     uint64
	Commit   uint64
	Applied  uint64
	Leads    bool
	Full     bool   // it waits for room on the disk
	Failed   bool   // it must be opened again
	Role     string // as in arakoon.Status
	Obstacle string // why writes would not go on, "" if nothing is known to stand in the way
	Voters   []uint64
	Learners []uint64
	Outgoing []uint64 // voters until a change that is under way is done

	Requirement arakoon.Requirement // of zones, as far as the member has applied

	Proposals     int // under way
	ProposalBytes int64
	Reads         int // that wait for their index

	Followers []Follower // by the leader only, itself among them
}

// Follower is a member as the leader sees it.
type Follower struct {
	Member      uint64
	Match       uint64 // the last entry that it holds durably, as the leader knows
	Lag         uint64 // entries of what is committed that it lacks
	Active      bool   // heard from lately
	Snapshot    bool   // one is on its way to it
	Replicating bool   // entries are sent to it one after the other; otherwise one at a time
	Learner     bool
}

const (
	statusLeads  = 1
	statusFull   = 2
	statusFailed = 4
	statusZones  = 8

	followerActive      = 1
	followerSnapshot    = 2
	followerReplicating = 4
	followerLearner     = 8
	followerSize        = 3*8 + 1
)

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

func (s *Status) append(dst []byte) []byte {
	zones := s.Requirement.Since > 0
	dst = append(dst, Version, flag(s.Leads, statusLeads)|flag(s.Full, statusFull)|flag(s.Failed, statusFailed)|flag(zones, statusZones), 0, 0)
	for _, v := range []uint64{s.Member, s.Leader, s.Term, s.Commit, s.Applied, uint64(s.ProposalBytes)} {
		dst = le.AppendUint64(dst, v)
	}
	dst = le.AppendUint32(le.AppendUint32(dst, uint32(s.Proposals)), uint32(s.Reads))
	for _, list := range [][]uint64{s.Voters, s.Learners, s.Outgoing} {
		dst = le.AppendUint32(dst, uint32(len(list)))
		for _, id := range list {
			dst = le.AppendUint64(dst, id)
		}
	}
	dst = le.AppendUint32(dst, uint32(len(s.Followers)))
	for _, f := range s.Followers {
		dst = le.AppendUint64(le.AppendUint64(le.AppendUint64(dst, f.Member), f.Match), f.Lag)
		dst = append(dst, flag(f.Active, followerActive)|flag(f.Snapshot, followerSnapshot)|flag(f.Replicating, followerReplicating)|flag(f.Learner, followerLearner))
	}
	dst = appendBytes(appendBytes(dst, []byte(s.Role)), []byte(s.Obstacle[:min(len(s.Obstacle), wordsMax)]))
	if zones {
		dst = appendRequirement(dst, s.Requirement)
	}
	return dst
}

// ReadStatus reads an answer.
func ReadStatus(header []byte) (s Status, err error) {
	r := &reader{b: header}
	r.version(0)
	flags := r.u8()
	r.zero(2)
	if flags > statusLeads|statusFull|statusFailed|statusZones {
		r.fail("flags %#x of a status", flags)
	}
	s.Leads, s.Full, s.Failed = flags&statusLeads != 0, flags&statusFull != 0, flags&statusFailed != 0
	s.Member, s.Leader, s.Term, s.Commit, s.Applied, s.ProposalBytes = r.u64(), r.u64(), r.u64(), r.u64(), r.u64(), int64(r.u64())
	s.Proposals, s.Reads = int(r.u32()), int(r.u32())
	for _, list := range []*[]uint64{&s.Voters, &s.Learners, &s.Outgoing} {
		for n := r.number(8); n > 0; n-- {
			*list = append(*list, r.u64())
		}
	}
	for n := r.number(followerSize); n > 0; n-- {
		s.Followers = append(s.Followers, r.follower())
	}
	s.Role, s.Obstacle = string(r.bytes()), string(r.bytes())
	if flags&statusZones != 0 {
		s.Requirement = r.requirement()
	}
	return s, r.end()
}

func (r *reader) follower() Follower {
	f := Follower{Member: r.u64(), Match: r.u64(), Lag: r.u64()}
	flags := r.u8()
	if flags > followerActive|followerSnapshot|followerReplicating|followerLearner {
		r.fail("flags %#x of a follower", flags)
	}
	f.Active, f.Snapshot = flags&followerActive != 0, flags&followerSnapshot != 0
	f.Replicating, f.Learner = flags&followerReplicating != 0, flags&followerLearner != 0
	return f
}

// number reads how many things of a size follow, and fails if they cannot.
func (r *reader) number(size uint64) uint32 {
	n := r.u32()
	if uint64(n)*size > uint64(len(r.b)) {
		r.fail("%d things of %d bytes in %d bytes", n, size, len(r.b))
		return 0
	}
	return n
}

func (s *Server) status(_ context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	b := reader{b: r.Header}
	b.version(0)
	if err := b.end(); err != nil {
		return wire.Answer{}, err
	}
	now := g.status()
	return wire.Answer{Header: now.append(nil)}, nil
}

// status is what the member says at the moment.
func (g *Group) status() Status {
	stats, now := g.Node.Stats(), g.Node.Status()
	s := Status{
		Member: now.ID, Leader: now.Leader, Term: now.Term, Commit: now.Commit, Applied: now.Applied, Role: now.Role, Obstacle: now.Obstacle, Requirement: now.Requirement,
		Leads: now.Role == arakoon.RoleLeader, Failed: now.Role == arakoon.RoleFailed, Full: stats.Full,
		Voters: now.Members.Voters, Learners: now.Members.Learners, Outgoing: now.Members.Outgoing,
		Proposals: stats.Proposals, ProposalBytes: stats.ProposalBytes, Reads: stats.Reads,
	}
	for _, p := range now.Peers {
		s.Followers = append(s.Followers, Follower{
			Member: p.ID, Match: p.Match, Lag: p.Lag, Active: p.RecentActive, Learner: p.Learner,
			Snapshot: p.State == tracker.StateSnapshot.String(), Replicating: p.State == tracker.StateReplicate.String(),
		})
	}
	return s
}
