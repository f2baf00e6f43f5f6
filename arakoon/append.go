package arakoon

import (
	"log/slog"
	"sync/atomic"
	"time"

	"openvstorage/arakoon/raftlog"
	"openvstorage/internal/disk"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// appender stores in the log what raft wants stored. One goroutine runs it; others
// see only whether it waits.
type appender struct {
	log       *raftlog.Log
	queue     *queue[*pb.Message]
	out       outbox
	end       *shutdown
	logger    *slog.Logger
	onFull    func(error)
	took      func(time.Duration)
	stored    func(index uint64) // of the first entry of each round, before it is
	hard      *pb.HardState      // as the log has it
	later     *pb.HardState      // a newer one that goes into the log with the next entries, nil if there is none
	installer *installer
	stalled   atomic.Pointer[error] // why the log cannot take anything now, nil if it can
	stores    atomic.Uint64         // begun and ended, together: odd while one runs
}

// storing is the number of a store, and whether it runs. Any goroutine may ask.
func (a *appender) storing() (number uint64, busy bool) {
	number = a.stores.Load()
	return number, number%2 == 1
}

// loop stores all that is queued with one write and one sync. What comes during that
// sync gathers for the next: the busier the log is, the more a sync carries.
func (a *appender) loop() {
	a.hard, _, _ = a.log.InitialState()
	for {
		select {
		case <-a.queue.wake.Rung():
		case <-a.end.stop:
			return
		case <-a.end.failed:
			return
		}
		for messages := a.queue.take(); len(messages) > 0; {
			n, err := a.some(messages)
			if err != nil {
				a.end.fail(err)
				return
			}
			a.out.respond(messages[:n], n)
			messages = messages[n:]
		}
	}
}

// some does what the first n messages ask for: all that come before a snapshot, or a
// snapshot with what its message has beside it.
func (a *appender) some(messages []*pb.Message) (n int, err error) {
	if !raft.IsEmptySnap(messages[0].GetSnapshot()) {
		if err := a.install(messages[0]); err != nil {
			return 0, err
		}
		return 1, a.store(a.rounds(messages[:1]))
	}
	for n = 1; n < len(messages) && raft.IsEmptySnap(messages[n].GetSnapshot()); n++ {
	}
	return n, a.store(a.rounds(messages[:n]))
}

// rounds are what messages ask to be stored.
func (a *appender) rounds(messages []*pb.Message) (rounds []raftlog.Round) {
	for _, m := range messages {
		r := raftlog.Round{Entries: m.GetEntries()}
		h := &pb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
		// A commit index that has merely moved is not worth a sync: a restart learns it
		// again. Term and vote are: a member that forgot its vote could vote twice in
		// one term. But the commit index goes into the log with the next entries. So
		//
		//   - whoever has the entry that ends a joint change knows that the one that began
		//     it was committed. Otherwise it would campaign by the members before both, and
		//     two majorities could exist that share no member;
		//   - whoever has an entry behind one that changed which zones are required knows
		//     that this was committed: a recovery goes by it, and a leader (require.go).
		moved := false
		switch {
		case !raft.IsEmptyHardState(h):
			moved = h.GetTerm() != a.hard.GetTerm() || h.GetVote() != a.hard.GetVote()
			a.later = h
		case a.later != nil && len(r.Entries) > 0:
			h = a.later
		}
		if !raft.IsEmptyHardState(h) && (len(r.Entries) > 0 || moved) {
			r.HardState, a.hard, a.later = h, h, nil
		}
		if len(r.Entries) > 0 {
			a.stored(r.Entries[0].GetIndex())
		}
		if len(r.Entries) > 0 || r.HardState != nil {
			rounds = append(rounds, r)
		}
	}
	return rounds
}

// storeAgain is how long the log waits before it tries again, and tellFull how many
// tries lie between two calls of Options.OnFull.
const (
	storeAgain = 100 * time.Millisecond
	tellFull   = 5
)

// store appends rounds.
func (a *appender) store(rounds []raftlog.Round) error {
	if len(rounds) == 0 {
		return a.patiently(func() error { return a.log.Append() })
	}
	began := time.Now()
	err := a.patiently(func() error { return a.log.Append(rounds...) })
	a.took(time.Since(began))
	return err
}

// patiently changes the log or what is beside it. It waits, and the node with it, while
// all is as it was before and the obstacle may pass: there is no room, or no descriptor,
// for a new segment. A node that has failed must be opened again; a wait ends by itself.
// Any other error fails the node, as nobody knows then what the log holds (rule P6).
func (a *appender) patiently(change func() error) error {
	a.stores.Add(1)
	defer a.stores.Add(1)
	for try := 0; ; try++ {
		err := change()
		if err == nil {
			if a.stalled.Load() != nil {
				a.stalled.Store(nil)
			}
			return nil
		}
		if a.log.Err() != nil || !disk.CauseOf(err).Passes() {
			return err
		}
		if a.stalled.Swap(&err) == nil { // logged once for each wait, not for each try
			a.logger.Error("arakoon node waits: it cannot store anything", slog.Any("error", err))
		}
		if disk.CauseOf(err) == disk.Full && try%tellFull == 0 {
			a.onFull(err)
		}
		select {
		case <-time.After(storeAgain):
		case <-a.end.stop:
			return err
		case <-a.end.failed:
			return a.end.err()
		}
	}
}

// changesMembers reports whether a change of the members is among entries.
func changesMembers(entries []*pb.Entry) bool {
	for _, e := range entries {
		if e.GetType() != pb.EntryNormal {
			return true
		}
	}
	return false
}
