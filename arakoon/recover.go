package arakoon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"openvstorage/arakoon/raftlog"
	"openvstorage/arakoon/state"

	"go.etcd.io/raft/v3/confchange"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// Errors of Recover that callers match with errors.Is.
var (
	// ErrNoMember: the directory is that of no member that a group can go on from. It never
	// learned who the members are, or the group has removed it.
	ErrNoMember = errors.New("arakoon: nothing to recover from")
	// ErrLife: the member is of a later life, or of the one that is asked for and not alone.
	ErrLife = errors.New("arakoon: the life is not a later one")
)

// Survivor is what a member that does not run holds of its group.
type Survivor struct {
	Member uint64
	Life   uint64 // of the group, as the member knows it
	// Last is the last entry of the log, and Term its term. Of several survivors the one with
	// the highest Term, and among these the highest Last, lacks the least. Committed is up to
	// where the member knows that entries are committed; those behind may have been answered.
	Last, Term, Committed uint64
	// Members are those as of the last entry, whether that is committed or not.
	Members Members
	// InSync says of a learner that, as of its last entry, nothing was answered that it lacks
	// (Options.SyncPatience). It cannot know whether it was dropped since.
	InSync bool
	// Requirement of zones, as far as the member knows it to be in force. One that is lowered
	// by an entry of which the member does not know whether it is committed is lowered here.
	Requirement Requirement
}

// Alone reports whether the member is its group's only one.
func (s Survivor) Alone() bool {
	return len(s.Members.Outgoing) == 0 && len(s.Members.Learners) == 0 && slices.Equal(s.Members.Voters, []uint64{s.Member})
}

// Survey says what a member holds that does not run. It opens the files as a start does, and
// so it may cut a torn tail off; nothing else changes.
func Survey(opt Options) (s Survivor, err error) {
	err = survive(opt, func(n stopped, conf *pb.ConfState) error {
		s, err = n.survivor(conf)
		return err
	})
	return s, err
}

// Recover makes a member that does not run, voter or learner, the only voter of its group in
// a later life. It is for a person who knows that the members that it needs are gone for
// good. Open opens the member then, which leads at once.
//
// # What is kept
//
// All that the member's log and state hold durably, also what it does not know to be
// committed. An entry is answered when it is committed, and the member learns of that later
// than it learns of the entry, or never. So what was answered may be in the log's tail, and
// nobody can say which of it was; dropping an entry that was answered is the one thing that
// must not happen. What was not answered yet is done too then: whoever waited for it was told
// that the outcome is unknown.
//
// # The order of what is durable
//
// There is one step (raftlog.Renew): a segment of the later life, which begins with the
// entries that make this member the only voter, in a new term, and with a commit index behind
// them. A power cut leaves the old member, which Recover takes again, or the new one, of which
// Recover says so and changes nothing. The state takes the life over when it is opened, and
// applies the tail, as after any start.
//
// # What is refused from then on
//
// Members, clients and files of older lives are refused in every preface (package wire), and
// the member's own files by whoever opens them for an older life. The members that were there
// are removed: their numbers are never taken again. Between the two lives no message passes,
// so that the new term is never compared with one of the old life.
func Recover(opt Options, life uint64) (s Survivor, err error) {
	err = survive(opt, func(n stopped, conf *pb.ConfState) error {
		if s, err = n.survivor(conf); err != nil {
			return err
		}
		switch {
		case s.Life == life && s.Alone():
			return nil // done before
		case s.Life >= life:
			return fmt.Errorf("%w: member %d is of life %d, with %v, and is to be recovered as life %d", ErrLife, s.Member, s.Life, s.Members, life)
		}
		round, err := n.renewal(s, conf)
		if err != nil {
			return err
		}
		if err := raftlog.Renew(n.log, life, round); err != nil {
			return err
		}
		last := s.Last + uint64(len(round.Entries))
		s.Life, s.Last, s.Committed, s.Term = life, last, last, round.HardState.GetTerm()
		s.Members = Members{Voters: []uint64{s.Member}}
		s.Requirement, err = n.required(last)
		return err
	})
	return s, err
}

// stopped is a member whose files are open, and none of whose goroutines runs.
type stopped struct{ *Node }

// survive opens the files of a member, calls fn with the members as of the end of its log, and
// closes the files. None of the member's goroutines runs.
func survive(opt Options, fn func(stopped, *pb.ConfState) error) error {
	opt.Existing, opt.HoldCompaction, opt.Life, opt.SameLife, opt.Transport, opt.Fetcher = true, true, 0, false, nil, nil
	n := stopped{unopened(opt)}
	err := n.open(context.Background())
	if err == nil {
		var conf *pb.ConfState
		if conf, err = n.confAtEnd(); err == nil {
			err = fn(n, conf)
		}
	}
	if err = errors.Join(err, n.closeStores()); err != nil {
		return fmt.Errorf("arakoon: recover %s: %w", opt.Dir, err)
	}
	return nil
}

// survivor says what the member holds.
func (n stopped) survivor(conf *pb.ConfState) (s Survivor, err error) {
	s = Survivor{Member: n.opt.Member, Life: raftlog.Life(n.log), Members: membersOf(conf)}
	life, _ := n.state.state().Lineage()
	s.Life = max(s.Life, life)
	if s.Last, err = n.log.LastIndex(); err != nil {
		return s, err
	}
	if s.Term, err = n.log.Term(s.Last); err != nil {
		return s, err
	}
	hard, _, err := n.log.InitialState()
	if err != nil {
		return s, err
	}
	s.Committed = max(hard.GetCommit(), n.state.Applied().Index)
	if s.Requirement, err = n.required(s.Committed); err != nil {
		return s, err
	}
	switch {
	case len(s.Members.Voters) == 0:
		return s, fmt.Errorf("%w: member %d never learned who the members of the group are, so the group has answered nothing that is here alone", ErrNoMember, s.Member)
	case !s.Members.Has(s.Member):
		return s, fmt.Errorf("%w: the group has removed member %d, and went on with %v", ErrNoMember, s.Member, s.Members)
	}
	s.InSync, err = n.inSync(s)
	return s, err
}

// confAtEnd is who the members are when the whole log is applied.
func (n stopped) confAtEnd() (*pb.ConfState, error) {
	at := n.state.Applied()
	conf := at.Conf
	err := n.tail(func(e *pb.Entry) (err error) {
		if e.GetType() != pb.EntryNormal {
			conf, err = afterChange(conf, e)
		}
		return err
	})
	return conf, err
}

// required is the requirement of zones as of the end of the log. An entry that raises it
// counts if it is known to be committed.
func (n stopped) required(committed uint64) (Requirement, error) {
	q, _ := n.state.state().Requirement()
	err := n.tail(func(e *pb.Entry) error {
		zones, asserted, ok := state.RequiredBy(e.GetData())
		if ok && e.GetType() == pb.EntryNormal && zones != q.Zones && (e.GetIndex() <= committed || zones < q.Zones) {
			q = q.After(e.GetIndex(), zones, asserted)
		}
		return nil
	})
	return q, err
}

// endRequirement is the entry behind the last one that ends a requirement of zones, if there
// is or may be one: one member is in one zone. So that is on record with the rest.
func (n stopped) endRequirement(last, term uint64) ([]*pb.Entry, error) {
	q, err := n.required(last)
	if err != nil || q.Zones < 2 {
		return nil, err
	}
	body, err := state.Require(1, true).Encode()
	if err != nil {
		return nil, err
	}
	data := state.AppendBatch(nil, state.Batch{Origin: rand.Uint64(), Number: 1, Commands: []state.Command{{Body: body}}})
	return []*pb.Entry{{Term: new(term), Index: new(last + 1), Data: data}}, nil
}

// tail calls fn with the entries that the log holds and the state has not applied.
func (n stopped) tail(fn func(*pb.Entry) error) error {
	last, err := n.log.LastIndex()
	if err != nil {
		return err
	}
	return walk(n.log.Entries, n.state.Applied().Index+1, last, func(entries []*pb.Entry) error {
		for _, e := range entries {
			if err := fn(e); err != nil {
				return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
			}
		}
		return nil
	})
}

// walk calls fn with the entries of a log from next to last, some at a time.
func walk(of func(lo, hi, limit uint64) ([]*pb.Entry, error), next, last uint64, fn func([]*pb.Entry) error) error {
	for next <= last {
		entries, err := of(next, last+1, 4<<20)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			return fmt.Errorf("%w: entry %d is not in the log", ErrFailed, next)
		}
		if err := fn(entries); err != nil {
			return err
		}
		next += uint64(len(entries))
	}
	return nil
}

// afterChange is who the members are after a change of them, as raft will have it.
func afterChange(conf *pb.ConfState, e *pb.Entry) (*pb.ConfState, error) {
	change, err := confChangeOf(e)
	if err != nil {
		return nil, err
	}
	cc := change.AsV2()
	if len(conf.GetVoters()) == 0 {
		if conf, err = decodeBase(cc.GetContext()); err != nil {
			return nil, err
		}
	}
	c := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: e.GetIndex()}
	if c.Tracker.Config, c.Tracker.Progress, err = confchange.Restore(c, conf); err != nil {
		return nil, err
	}
	if cc.LeaveJoint() {
		c.Tracker.Config, c.Tracker.Progress, err = c.LeaveJoint()
	} else if leave, joint := cc.EnterJoint(); joint {
		c.Tracker.Config, c.Tracker.Progress, err = c.EnterJoint(leave, cc.Changes...)
	} else {
		c.Tracker.Config, c.Tracker.Progress, err = c.Simple(cc.Changes...)
	}
	return c.Tracker.ConfState(), err
}

// renewal is what goes into the log behind all that it has: changes of the members, one voter
// at a time, of which the member is the only one in the end, and that all of it is committed.
func (n stopped) renewal(s Survivor, conf *pb.ConfState) (r raftlog.Round, err error) {
	hard, _, err := n.log.InitialState()
	if err != nil {
		return r, err
	}
	term := max(hard.GetTerm(), s.Term) + 1
	last := s.Last
	add := func(steps ...*pb.ConfChangeSingle) error {
		cc := &pb.ConfChangeV2{Changes: steps}
		if len(steps) > 0 {
			cc.Context = appendBase(nil, conf)
		}
		kind, data, err := pb.MarshalConfChange(cc)
		if err != nil {
			return err
		}
		last++
		e := &pb.Entry{Term: new(term), Index: new(last), Type: kind.Enum(), Data: data}
		if conf, err = afterChange(conf, e); err != nil {
			return fmt.Errorf("entry %d: %w", last, err)
		}
		r.Entries = append(r.Entries, e)
		return nil
	}
	one := func(t pb.ConfChangeType, id uint64) *pb.ConfChangeSingle {
		return &pb.ConfChangeSingle{Type: t.Enum(), NodeId: new(id)}
	}
	if r.Entries, err = n.endRequirement(s.Last, term); err != nil {
		return r, err
	}
	last += uint64(len(r.Entries))
	if len(conf.GetVotersOutgoing()) > 0 {
		if err := add(); err != nil { // it leaves the joint configuration
			return r, err
		}
	}
	if !slices.Contains(conf.GetVoters(), s.Member) {
		if err := add(one(pb.ConfChangeAddNode, s.Member)); err != nil {
			return r, err
		}
	}
	for _, id := range membersOf(conf).All() {
		if id != s.Member {
			if err := add(one(pb.ConfChangeRemoveNode, id)); err != nil {
				return r, err
			}
		}
	}
	if !soleVoter(conf, s.Member) || !alone(conf, s.Member) {
		return r, fmt.Errorf("the members would be %v", membersOf(conf))
	}
	r.HardState = &pb.HardState{Term: new(term), Vote: new(s.Member), Commit: new(last)}
	return r, nil
}
