package arakoon

import (
	"time"

	"openvstorage/arakoon/raftlog"

	pb "go.etcd.io/raft/v3/raftpb"
)

// applier applies to the state what is committed, and answers whoever proposed it.
// One goroutine runs it.
type applier struct {
	state     *current
	log       *raftlog.Log
	queue     *queue[*pb.Message]
	work      *queue[any]
	out       outbox
	end       *shutdown
	progress  *progress
	proposals *proposals
	compactor *compactor
	leaser    *leaser
	took      func(time.Duration)
	origin    uint64 // of the batches that this start of the node proposes

	held     uint64 // the last entry that the log held when it was opened
	replayed bool   // that entry is applied
	begun    uint64 // segments of the log, when compaction was last asked for
}

// loop applies all that is queued as one batch of Pebble's.
func (a *applier) loop() {
	for {
		select {
		case <-a.queue.wake.Rung():
		case <-a.end.stop:
			return
		case <-a.end.failed:
			return
		}
		messages := a.queue.take()
		var entries []*pb.Entry
		for _, m := range messages {
			entries = append(entries, m.GetEntries()...)
		}
		if len(entries) > 0 {
			if err := a.apply(entries); err != nil {
				a.end.fail(err)
				return
			}
		}
		a.out.respond(messages, 0)
		if len(messages) > 0 {
			a.work.wake.Ring() // reads may wait for the first entry of a term
		}
	}
}

// apply applies entries. An error fails the node: an entry that one member skips and
// another applies would make their states differ for ever.
func (a *applier) apply(entries []*pb.Entry) error {
	began := time.Now()
	applied, err := a.state.state().ApplyOf(a.origin, entries, a.changeMembers)
	a.took(time.Since(began))
	if err != nil {
		return err
	}
	// Members must be known after a restart, when the commit index may be an older one:
	// a leader that knew only itself, and had to wait for another zone, would wait for ever.
	if changesMembers(entries) && a.compactor.may() {
		at, err := a.state.Flush()
		if err != nil {
			return err
		}
		a.log.StateDurable(at.Index)
	}
	last := entries[len(entries)-1]
	// Readers first: a write that was answered must be visible.
	a.progress.advance(last.GetIndex(), last.GetTerm())
	a.leaser.applied(last.GetTerm(), a.state.LeasesVersion())
	for _, done := range applied {
		// Batches of another origin were proposed by another member, or before this
		// start: nobody here waits, and their numbers may be those of batches here.
		if done.Origin == a.origin {
			a.proposals.answer(done)
		}
	}
	// What lies behind grows by whole segments, however little is in them, and all
	// at once when what the log held at the start is applied.
	end := !a.replayed && last.GetIndex() >= a.held
	if begun := a.log.Begun(); begun != a.begun || end {
		a.begun, a.replayed = begun, a.replayed || end
		a.compactor.wake.Ring()
	}
	return nil
}

// changeMembers has the goroutine that steps raft apply a change of the members, as
// raft is that goroutine's, and waits for it: the entries that follow belong to the
// new members.
func (a *applier) changeMembers(e *pb.Entry) (*pb.ConfState, error) {
	c := confChange{e, make(chan *pb.ConfState, 1)}
	a.work.put(c)
	select {
	case conf := <-c.reply:
		return conf, nil
	case <-a.end.stop:
		return nil, ErrClosed
	case <-a.end.failed:
		return nil, a.end.err()
	}
}
