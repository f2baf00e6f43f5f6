package arakoon

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// transfer is a wish to give the lead away that somebody waits for.
type transfer struct {
	to   uint64     // 0: to whoever is best
	done chan error // has room for the one answer that it gets
}

// Leader is the member that leads, as far as this one knows; 0 if it knows of none.
func (n *Node) Leader() uint64 { return n.leader.Load() }

// Transfer gives the lead to another member, to the best one if to is 0, and returns when
// that leads. It refuses with *NotLeaderError by a member that does not lead,
// *NotCaughtUpError for one that cannot take over, and ErrTransfer if the other one did not
// within an election's time; this member leads on then. Meanwhile writes are refused, and
// nothing of them is done.
func (n *Node) Transfer(ctx context.Context, to uint64) error {
	if err := n.Err(); err != nil {
		return err
	}
	t := &transfer{to: to, done: make(chan error, 1)}
	n.work.put(t)
	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: the lead may be given away yet: %w", ErrUnknownOutcome, ctx.Err())
	case <-n.end.failed:
	case <-n.end.stop:
	}
	return n.Err()
}

// ReportUnreachable tells raft that messages to a member were lost, so that it sends one at
// a time until that member answers. A Transport calls it; it does not block.
func (n *Node) ReportUnreachable(id uint64) {
	if n.Err() == nil { // nobody takes it after that
		n.work.put(unreachable(id))
	}
}

// unreachable is a member that messages do not reach.
type unreachable uint64

// lead is what a member does about leading beside what raft does. It is the stepper's.
type lead struct {
	id        uint64      // who leads, 0: not known
	transfers []*transfer // wait for the one that runs
	preferred preference
	stall     stall
	// mute: this member leads in raft's eyes and its disk does not answer. It sends
	// nothing that keeps the others from electing another one, and takes no requests.
	mute bool
}

// takeTransfer begins to give the lead away.
func (s *stepper) takeTransfer(t *transfer) {
	err := s.beginTransfer(t.to)
	if err != nil {
		t.done <- err
		return
	}
	s.lead.transfers = append(s.lead.transfers, t)
}

func (s *stepper) beginTransfer(to uint64) error {
	if !s.leading.Load() {
		return s.notLeader()
	}
	if s.raft.BasicStatus().LeadTransferee != 0 {
		return fmt.Errorf("%w: it is being given to member %d", ErrTransfer, s.raft.BasicStatus().LeadTransferee)
	}
	if to == 0 {
		to = s.successor(func(id uint64) bool { return s.mayLead(id) })
	}
	switch {
	case to == 0:
		return fmt.Errorf("%w: no other voter is heard from and has caught up", ErrTransfer)
	case to == s.opt.Member:
		return nil
	case !slices.Contains(s.conf.GetVoters(), to):
		return fmt.Errorf("%w: member %d is no voter", ErrTransfer, to)
	case !s.mayLead(to):
		return fmt.Errorf("%w: member %d is not among the forced masters %v", ErrTransfer, to, s.opt.Preferred)
	}
	if err := s.caughtUp(to); err != nil {
		return err
	}
	s.raft.TransferLeader(to)
	return nil
}

// mayLead reports whether a member may lead by Options.Forced. Before a forced master is a
// voter all may: nobody else could make it one.
func (s *stepper) mayLead(id uint64) bool {
	if !s.opt.Forced || s.isPreferred(id) {
		return true
	}
	return !slices.ContainsFunc(s.conf.GetVoters(), s.isPreferred)
}

func (s *stepper) isPreferred(id uint64) bool { return slices.Contains(s.opt.Preferred, id) }

// standsIn reports whether this member leads in raft's eyes alone, until a forced master
// can. Raft elects nobody whose log lacks what is committed, and no member gets that but
// from a leader: if none but forced masters were elected, one that was away while the
// others committed something would never lead again. So others are elected too. They
// bring the logs of all up to date, take no requests, and give the lead to the first
// forced master that has caught up.
func (s *stepper) standsIn() bool {
	return !s.lead.mute && !s.leading.Load() && s.raft.BasicStatus().RaftState == raft.StateLeader
}

// endTransfers answers those who wait for the lead to be given away, once it is or raft
// has given up.
func (s *stepper) endTransfers() {
	if len(s.lead.transfers) == 0 {
		return
	}
	status := s.raft.BasicStatus()
	leads := status.RaftState == raft.StateLeader
	if leads && status.LeadTransferee != 0 || !leads && status.Lead == raft.None {
		return
	}
	for _, t := range s.lead.transfers {
		var err error
		if leads && t.to != s.opt.Member || t.to != 0 && t.to != status.Lead {
			err = fmt.Errorf("%w: member %d leads", ErrTransfer, status.Lead)
		}
		t.done <- err
	}
	s.lead.transfers = nil
}

// notLeader is what requests are told that only a leader can do.
func (s *stepper) notLeader() error {
	leader := s.lead.id
	if leader == s.opt.Member {
		leader = s.raft.BasicStatus().LeadTransferee
	}
	return &NotLeaderError{Leader: leader}
}

// tickAll is one tick: raft's, and all that is counted in ticks. A member that is alone
// has nobody to count for.
func (s *stepper) tickAll() {
	s.ticking.tick()
	if !s.lead.mute {
		s.raft.Tick()
	}
	// Reads that wait for a leader may wait for days, and as many others come and go.
	s.reads = slices.DeleteFunc(s.reads, func(r *read) bool { return r.ctx.Err() != nil })
	if !s.several && !s.lead.mute { // one that fell silent must still see that its disk answers
		return
	}
	s.peers.tick++
	s.leaveJoint()
	s.watchDisk()
	s.needs.watch(s)
	s.prefer()
	s.synced.tick(s)
	s.endTransfers()
}

// tells reports whether a leader may tell up to where a read must see: it knows, and nothing
// speaks for a group that has gone on without it.
func (l *lead) tells(s *stepper) bool {
	_, term := s.progress.now()
	return term == s.raft.BasicStatus().HardState.GetTerm() && s.needs.refused() == nil && !s.synced.outlived()
}

// watchDisk gives the lead away when the disk does not answer, as nothing would be
// committed sooner by waiting for it: the others commit without this one.
func (s *stepper) watchDisk() {
	began, busy := s.storing()
	stalled := s.lead.stall.look(began, busy)
	if s.lead.mute && !stalled {
		s.lead.mute = false
		s.opt.Logger.Info("arakoon node's disk answers again")
		s.noteLead()
	}
	if s.lead.mute || !stalled || !s.leading.Load() {
		return
	}
	if s.raft.BasicStatus().LeadTransferee != 0 {
		return
	}
	if !s.lead.stall.tried {
		s.lead.stall.tried = true
		if err := s.beginTransfer(0); err == nil {
			s.opt.Logger.Warn("arakoon node gives the lead away: its disk does not answer")
			return
		}
	}
	s.lead.mute = true
	s.opt.Logger.Warn("arakoon node leads no more: its disk does not answer, and it could give the lead to nobody")
	s.noteLead()
}

// stallTicks is for how long the log may be in one store before the lead is given away:
// three elections.
const stallTicks = 3 * electionTicks

// stall counts for how many ticks the log has been in one store.
type stall struct {
	store uint64 // its number
	ticks int
	tried bool // to give the lead away
}

// look notes that the log is in a store, or is not, and reports whether it has been in that
// one for too long.
func (l *stall) look(store uint64, busy bool) bool {
	if !busy || store != l.store {
		*l = stall{store: store}
		return false
	}
	l.ticks++
	return l.ticks >= stallTicks
}

// prefer gives the lead to a preferred master, when one can take it for good.
func (s *stepper) prefer() {
	if len(s.opt.Preferred) == 0 {
		return
	}
	standsIn := s.standsIn()
	if !s.leading.Load() && !standsIn {
		s.lead.preferred.none()
		return
	}
	if s.isPreferred(s.opt.Member) || s.raft.BasicStatus().LeadTransferee != 0 {
		s.lead.preferred.none()
		return
	}
	to := s.successor(s.isPreferred)
	if standsIn {
		// At once, and again and again: nobody serves meanwhile.
		if to != raft.None {
			s.raft.TransferLeader(to)
		}
		return
	}
	if !s.lead.preferred.look(s.peers.tick, to) {
		return
	}
	s.opt.Logger.Info("arakoon node gives the lead to a preferred master", slog.Uint64("member", to))
	if err := s.beginTransfer(to); err != nil {
		s.opt.Logger.Info("a preferred master did not take the lead", slog.Any("error", err))
	}
}

// Hysteresis of preferred masters, in ticks.
const (
	preferAfter   = 20 * heartbeatTicks   // for so long one must be able to lead
	preferAgain   = 50 * heartbeatTicks   // so long after one try the next one may follow, doubled each time
	preferAtMost  = 6000 * heartbeatTicks // up to this
	preferForgets = 4                     // a member that kept the lead for so many times the last wait begins anew
)

// preference decides when the lead goes to a preferred master: when the same one was able
// to take it for a while, and ever more rarely if it does not keep it, so that a master that
// fails as soon as it leads does not stop the group again and again.
type preference struct {
	candidate uint64
	since     uint64 // the tick from which on it was able to
	tried     bool
	last      uint64 // the tick of the last try
	wait      uint64 // after it
}

// none notes that there is no preferred master to give the lead to.
func (p *preference) none() { p.candidate = 0 }

// look notes at a tick who could take the lead, 0 if nobody, and reports whether it is to
// be given now.
func (p *preference) look(tick, candidate uint64) bool {
	if candidate != p.candidate {
		p.candidate, p.since = candidate, tick
	}
	if candidate == 0 || tick-p.since < preferAfter {
		return false
	}
	if p.tried && tick-p.last < p.wait {
		return false
	}
	switch {
	case !p.tried || tick-p.last >= preferForgets*p.wait:
		p.wait = preferAgain
	default:
		p.wait = min(2*p.wait, preferAtMost)
	}
	p.tried, p.last = true, tick
	return true
}

// outgoing drops what a member must not send: one that gives the lead up because of its
// disk, heartbeats and appends, so that the others elect another one.
func (s *stepper) outgoing(m *pb.Message) bool {
	switch m.GetType() {
	case pb.MsgApp, pb.MsgHeartbeat, pb.MsgSnap:
		return !s.lead.mute
	}
	return true
}
