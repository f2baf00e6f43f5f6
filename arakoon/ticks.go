package arakoon

import (
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// ticking has an idle member wake up once for several ticks, which then come together: while
// nothing but heartbeats comes, nothing that is counted in ticks is due between two of them. A
// follower that misses a heartbeat counts each tick again, long before an election is due, so
// that its time is as exact as ever. It is the stepper's.
type ticking struct {
	busy  bool // something else than heartbeats came since the last tick
	quiet int  // ticks without, up to quietTicks
}

// quietTicks is for how long nothing must have come.
const quietTicks = 10 * heartbeatTicks

// note notes an item of the stepper's work.
func (k *ticking) note(item any) {
	switch w := item.(type) {
	case received:
		if t := w.m.GetType(); t == pb.MsgHeartbeat || t == pb.MsgHeartbeatResp {
			return
		}
	case wantsAge, *statusRequest, *asking:
		return
	}
	k.busy, k.quiet = true, 0
}

// tick counts a tick.
func (k *ticking) tick() {
	if !k.busy {
		k.quiet = min(k.quiet+1, quietTicks)
	}
	k.busy = false
}

// stride is how many ticks come together from now on.
func (k *ticking) stride(s *stepper) time.Duration {
	if k.quiet < quietTicks || !s.several || s.lead.mute || s.appending > 0 || len(s.waiting)+len(s.reads)+len(s.asked) > 0 {
		return 1
	}
	switch status := s.raft.BasicStatus(); {
	case status.RaftState == raft.StateLeader && status.LeadTransferee == raft.None:
		return heartbeatTicks
	case status.RaftState == raft.StateFollower && status.Lead != raft.None && s.peers.tick-s.peers.heard[status.Lead] <= 2*heartbeatTicks:
		return heartbeatTicks
	}
	return 1
}

// untilTick is how long it takes until the time since beat is a whole number of d.
func untilTick(beat time.Time, d time.Duration) time.Duration {
	since := time.Since(beat) % d
	if since < 0 {
		since += d
	}
	return d - since
}

// tickOf is the number of the tick that was last, where ticks are d apart and beat is number 0.
func tickOf(beat time.Time, d time.Duration) time.Duration {
	since := time.Since(beat)
	if since < 0 {
		since -= d - 1
	}
	return since / d
}
