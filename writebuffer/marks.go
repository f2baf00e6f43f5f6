package writebuffer

import (
	"fmt"

	"openvstorage/sco"
	"openvstorage/tlog"
)

// preferPrewritten moves on from an SCO that is not pre-written when it turns
// out to be flushed: its syncs allocate and journal. The rest of it stays
// unused until it is recycled.
func (a *section) preferPrewritten() {
	s := a.open
	if s == nil || !s.sparse || s.broken {
		return
	}
	a.wantFast = true
	if a.next == nil || a.next.sparse {
		a.log.preparer.bell.Ring()
		return
	}
	s.early = true
	if a.roll() == nil {
		a.wantFast = false
	}
}

// commitBlock appends a commit block to s that covers all pending entries.
func (a *section) commitBlock(s *SCO) error {
	if len(a.pending) == 0 {
		return nil
	}
	a.round++
	index := int(s.used.Load()) + 1
	a.scratch = a.scratch[:0]
	off := int64(index) * sco.ClusterSize
	if index == 1 {
		s.header.FirstSeq = a.pendingFirst
		a.scratch = sco.AppendHeader(a.scratch, s.header)
		off = 0
	}
	a.scratch = sco.AppendCommit(a.scratch, s.header.Incarnation, sco.Commit{
		Index: index, Round: a.round, FirstSeq: a.pendingFirst, Seq: a.nextSeq - 1,
		Durable: a.log.durable.Load(), Entries: a.pending,
	})
	if _, err := s.file.WriteAt(a.scratch, off); err != nil {
		s.broken = true
		return fmt.Errorf("append to %s at %d: %w", s.name, off, err)
	}
	n := sco.CommitBlocks(len(a.pending))
	blocks := a.scratch[len(a.scratch)-n*sco.ClusterSize:]
	for i := range n {
		at := index - 1 + i
		s.blocks.Sums[at] = sco.Sum(blocks[i*sco.ClusterSize : (i+1)*sco.ClusterSize])
		s.blocks.Addrs[at], s.blocks.Seqs[at] = sco.NoAddress, 0
	}
	s.used.Add(int32(n))
	s.covers = a.nextSeq - 1
	a.pending = a.pending[:0]
	return nil
}

// advance records that everything up to seq is durable, and leaves a mark in
// the TLog, unsynced, that says so: a restart then knows that whatever is missing
// below the mark is damage, and not the end of the log.
func (a *section) advance(seq uint64) {
	if a.log.durable.Load() >= seq {
		return
	}
	a.log.durable.Store(seq)
	a.markDurable()
	a.backlog.passSynced()
}

// markDurable leaves the mark in the open TLog. If no TLog is open, it opens the
// prepared one for the mark: without a mark a restart would take damage to flushed
// data for the end of the log. If no TLog is prepared yet, the mark goes to the next
// one, when that comes.
func (a *section) markDurable() {
	a.unmarked = true
	if a.tl != nil {
		a.leaveMark()
	}
	if a.allStored() {
		return
	}
	if a.markNext() != nil || a.unmarked {
		a.log.preparer.bell.Ring() // the one after it takes it
	}
}

// markNext leaves a mark that still waits for a TLog in the prepared one, if there is
// one.
func (a *section) markNext() error {
	switch {
	case !a.unmarked || a.nextTL == nil || a.log.fate.err() != nil || a.allStored():
		return nil
	case a.tl == nil:
		return a.beginTLog()
	}
	a.tlogReady() // moves on from the broken one
	return nil
}

// allStored reports whether the catalog has every entry. No mark is needed then,
// and a vDisk that rests keeps no TLog open for one: the first entry that comes
// opens a TLog, which begins with the mark.
func (a *section) allStored() bool {
	return a.open == nil && len(a.pending) == 0 && a.tlogEmpty() && a.backlog.empty()
}

// tlogEmpty reports whether no entry is in the open TLog.
func (a *section) tlogEmpty() bool { return a.tl == nil || a.tl.FirstSeq == 0 }

// leaveMark appends to the open TLog up to which seq all is durable. The mark is not
// synced: later commit blocks carry the figure too. If the append fails, the mark
// waits for the next TLog.
func (a *section) leaveMark() {
	if a.tl.broken {
		return
	}
	a.mark = tlog.AppendEntry(a.mark[:0], a.tl.seed, tlog.Entry{Kind: tlog.KindDurable, Seq: a.log.durable.Load()})
	a.unmarked = a.tl.append(a.mark) != nil
}
