package arakoon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Bounds of a group.
const (
	// VotersMax is the most voters of a group. Their number is odd at rest: an even one
	// has the same room for failures as one voter less, and one more that can fail.
	VotersMax = 5
	// LearnersMax is the most learners of a group at once.
	LearnersMax = 8
)

// Members are the members of a group, each list ascending.
type Members struct {
	Voters   []uint64
	Learners []uint64 // they hold everything and do not vote
	// Outgoing are the voters before a change that is under way: until it is done,
	// nothing is committed without a majority of them too. Nil at rest.
	Outgoing []uint64
}

// Has reports whether a member is one of them.
func (m Members) Has(id uint64) bool {
	return slices.Contains(m.Voters, id) || slices.Contains(m.Learners, id) || slices.Contains(m.Outgoing, id)
}

// All are the members, each once, ascending.
func (m Members) All() []uint64 {
	all := slices.Concat(m.Voters, m.Learners, m.Outgoing)
	slices.Sort(all)
	return slices.Compact(all)
}

func (m Members) String() string {
	s := fmt.Sprintf("voters %v", m.Voters)
	if len(m.Learners) > 0 {
		s += fmt.Sprintf(", learners %v", m.Learners)
	}
	if len(m.Outgoing) > 0 {
		s += fmt.Sprintf(", until now %v", m.Outgoing)
	}
	return s
}

// sorted is m with its lists ascending.
func (m Members) sorted() Members {
	for _, l := range []*[]uint64{&m.Voters, &m.Learners, &m.Outgoing} {
		*l = slices.Sorted(slices.Values(*l))
	}
	return m
}

func (m Members) equal(o Members) bool {
	return slices.Equal(m.Voters, o.Voters) && slices.Equal(m.Learners, o.Learners) && slices.Equal(m.Outgoing, o.Outgoing)
}

// membersOf are the members of raft's configuration. Whoever is to become a learner at the
// end of a joint change is an outgoing voter until then.
func membersOf(c *pb.ConfState) Members {
	return Members{
		Voters: slices.Clone(c.GetVoters()), Learners: slices.Clone(c.GetLearners()), Outgoing: slices.Clone(c.GetVotersOutgoing()),
	}.sorted()
}

// Members are the members as of the entry applied last. A member that has joined, and has
// heard from nobody yet, knows of none.
func (n *Node) Members() Members { return membersOf(n.state.Applied().Conf) }

// ChangeMembers changes voters and learners to those of want, in one change that is done
// when it returns nil: the old voters have no say any more, also after a power cut of all
// members, and those that were removed may be destroyed. That holds too where there was
// nothing to change, so whoever does not know whether a change is done asks for it again. It
// is refused, and nothing was done, with
//
//   - *NotLeaderError by a member that does not lead, or that led and is to go: the member
//     that it names then has the lead, and is to be asked,
//   - ErrChanging while another change runs,
//   - ErrUsed for a new member whose id the group has had before,
//   - *NotCaughtUpError for a new voter that was no learner, or is too far behind,
//   - ErrMembers where the change would end the group: an even number of voters, no
//     majority of those that are heard from, fewer zones than are required (ZoneCalls.RequireZones).
//
// After ErrUnknownOutcome the change may still happen.
func (n *Node) ChangeMembers(ctx context.Context, want Members) error {
	return n.changeTo(ctx, func(Members) Members {
		return Members{Voters: slices.Clone(want.Voters), Learners: slices.Clone(want.Learners)}
	})
}

// AddLearner has a member that was opened with Options.Joining begin to follow. The errors
// are those of ChangeMembers.
func (n *Node) AddLearner(ctx context.Context, ids ...uint64) error {
	return n.changeTo(ctx, func(now Members) Members {
		for _, id := range ids {
			if !now.Has(id) {
				now.Learners = append(now.Learners, id)
			}
		}
		return now
	})
}

// Promote makes voters of learners, all in one change, as an even number of voters is
// refused. The errors are those of ChangeMembers.
func (n *Node) Promote(ctx context.Context, ids ...uint64) error {
	return n.changeTo(ctx, func(now Members) Members {
		now.Learners = without(now.Learners, ids)
		now.Voters = append(without(now.Voters, ids), ids...)
		return now
	})
}

// Remove removes members, all in one change. Their ids are never taken again. The errors
// are those of ChangeMembers.
func (n *Node) Remove(ctx context.Context, ids ...uint64) error {
	return n.changeTo(ctx, func(now Members) Members {
		now.Voters, now.Learners = without(now.Voters, ids), without(now.Learners, ids)
		return now
	})
}

func without(list, ids []uint64) []uint64 {
	return slices.DeleteFunc(slices.Clone(list), func(id uint64) bool { return slices.Contains(ids, id) })
}

// changeTo has the stepper change the members to what want makes of them at that moment.
func (n *Node) changeTo(ctx context.Context, want func(Members) Members) error {
	if err := errors.Join(ctx.Err(), n.Err()); err != nil {
		return err
	}
	c := &change{ctx: ctx, want: want, done: make(chan changed, 1)}
	n.work.put(c)
	var out changed
	select {
	case out = <-c.done:
	case <-ctx.Done():
		return fmt.Errorf("%w: change of the members: %w", ErrUnknownOutcome, ctx.Err())
	case <-n.end.failed:
		return fmt.Errorf("%w: change of the members: %w", ErrUnknownOutcome, n.Err())
	case <-n.end.stop:
		return fmt.Errorf("%w: change of the members: %w", ErrUnknownOutcome, n.Err())
	}
	if out.err != nil {
		return out.err
	}
	return n.readers.applied(ctx, out.index)
}
