package writebuffer

import (
	"context"
	"fmt"
	"slices"
	"time"

	"openvstorage/sco"
	"openvstorage/tlog"
)

// Commit returns when every entry up to seq survives a power cut. Calls that
// arrive while a round runs share the next one (group commit, O2).
//
// Each caller waits until its own ctx ends, whoever runs the round. Who runs it and
// has asked the disk for a sync waits for the disk's answer.
//
// What is durable is asked before what has failed, and that is the right order:
// durable moves only when every sync that it rests on has returned, each by the
// one owner of its file's syncs, and no later failure takes that back. Who asks
// for more after a failure gets the failure.
func (l *Log) Commit(ctx context.Context, seq uint64) error {
	if l.durable.Load() >= seq {
		return nil
	}
	l.group.Lock()
	defer l.group.Unlock()
	for try := 0; ; {
		if l.durable.Load() >= seq {
			return nil
		}
		if err := l.Err(); err != nil {
			return err
		}
		if l.group.running {
			if err := l.group.waitLocked(ctx); err != nil {
				return fmt.Errorf("%w, while it waited for the commit of others", err)
			}
			continue
		}
		l.group.running = true
		l.group.Unlock()
		err := l.commitRound(ctx)
		l.group.Lock()
		l.group.running = false
		l.group.tellLocked()
		if err == nil {
			continue
		}
		if err == errResuming { // each waits by itself, until its own ctx ends
			l.group.Unlock()
			err = l.waitResumed(ctx)
			l.group.Lock()
			if err != nil {
				return err
			}
			continue
		}
		if !l.lacksRoom(err) {
			return err
		}
		if gone := ctx.Err(); gone != nil {
			return fmt.Errorf("%w, while it waited for room: %v", gone, err)
		}
		// A sync that found no room waits for some, as a write does (P6).
		l.group.Unlock()
		try++
		err = l.waitForRoom(ctx, try, nil, err)
		l.group.Lock()
		if err != nil {
			return err
		}
	}
}

// commitRound makes everything written so far durable: a commit block behind
// the data in the open SCO, one datasync of that file, and a mark.
func (l *Log) commitRound(ctx context.Context) error {
	var target uint64
	var open *SCO
	var sealed []*SCO
	defer func() {
		for _, s := range sealed {
			s.release()
		}
	}()
	l.flushed.Store(time.Now().UnixNano())
	err := l.whenReady(ctx, func() error {
		if l.resuming != nil {
			return errResuming
		}
		if len(l.pending) > 0 {
			l.preferPrewritten()
		}
		if len(l.pending) > 0 {
			if l.open == nil || l.open.broken {
				if err := l.roll(); err != nil {
					return err
				}
			}
			if err := l.commitBlock(l.open); err != nil {
				return err
			}
			open = l.open
			open.refs.Add(1) // it may be sealed, stored and evicted before it is synced here
		}
		if open == nil && l.open != nil && l.open.covers > l.durable.Load() {
			// An earlier round has written its commit block, and its sync has failed.
			open = l.open
			open.refs.Add(1)
		}
		target = l.nextSeq - 1
		for _, s := range l.unsynced { // held: stored, they might be evicted meanwhile
			if s.acquire() {
				sealed = append(sealed, s)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if open != nil {
		defer open.release()
	}
	for _, s := range sealed {
		if err := s.sync(true); err != nil {
			return err
		}
	}
	if open != nil {
		if err := open.sync(false); err != nil {
			return err
		}
	}
	l.advance(target)
	return nil
}

// preferPrewritten moves on from an SCO that is not pre-written when it turns
// out to be flushed: its syncs allocate and journal. The rest of it stays
// unused until it is recycled.
func (l *Log) preferPrewritten() {
	s := l.open
	if s == nil || !s.sparse || s.broken {
		return
	}
	l.wantFast = true
	if l.next == nil || l.next.sparse {
		l.prepare.Ring()
		return
	}
	s.early = true
	if l.roll() == nil {
		l.wantFast = false
	}
}

// commitBlock appends a commit block to s that covers all pending entries.
func (l *Log) commitBlock(s *SCO) error {
	if len(l.pending) == 0 {
		return nil
	}
	l.round++
	index := int(s.used.Load()) + 1
	l.scratch = l.scratch[:0]
	off := int64(index) * sco.ClusterSize
	if index == 1 {
		s.header.FirstSeq = l.pendingFirst
		l.scratch = sco.AppendHeader(l.scratch, s.header)
		off = 0
	}
	l.scratch = sco.AppendCommit(l.scratch, s.header.Incarnation, sco.Commit{
		Index: index, Round: l.round, FirstSeq: l.pendingFirst, Seq: l.nextSeq - 1,
		Durable: l.durable.Load(), Entries: l.pending,
	})
	if _, err := s.file.WriteAt(l.scratch, off); err != nil {
		s.broken = true
		return fmt.Errorf("append to %s at %d: %w", s.name, off, err)
	}
	n := sco.CommitBlocks(len(l.pending))
	blocks := l.scratch[len(l.scratch)-n*sco.ClusterSize:]
	for i := range n {
		at := index - 1 + i
		s.blocks.Sums[at] = sco.Sum(blocks[i*sco.ClusterSize : (i+1)*sco.ClusterSize])
		s.blocks.Addrs[at], s.blocks.Seqs[at] = sco.NoAddress, 0
	}
	s.used.Add(int32(n))
	s.covers = l.nextSeq - 1
	l.pending = l.pending[:0]
	return nil
}

// advance records that everything up to seq is durable, and leaves a mark in
// the TLog, unsynced, that says so: a restart takes damage below it for what
// it is.
func (l *Log) advance(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.durable.Load() >= seq {
		return
	}
	l.durable.Store(seq)
	l.markDurable()
	for len(l.unsynced) > 0 && l.unsynced[0].synced.Load() {
		l.unsynced = l.unsynced[1:]
	}
}

// markDurable leaves the mark in the open TLog. If that was closed since the
// last write, the next one is opened for it: without a mark a restart would
// take damage of what was flushed for the end of the log. One that is not there
// yet gets the mark when it comes.
func (l *Log) markDurable() {
	l.unmarked = true
	if l.tl != nil {
		l.leaveMark()
	}
	if l.allStored() {
		return
	}
	if l.markNext() != nil || l.unmarked {
		l.prepare.Ring() // the one after it takes it
	}
}

// markNext leaves a mark that the open TLog could not take in the one after it, if
// that is there.
func (l *Log) markNext() error {
	switch {
	case !l.unmarked || l.nextTL == nil || l.Err() != nil || l.allStored():
		return nil
	case l.tl == nil:
		return l.beginTLog()
	}
	l.tlogReady() // moves on from the broken one
	return nil
}

// allStored reports whether the catalog has every entry. No mark is needed then,
// and a vDisk that rests keeps no TLog open for one: the first entry that comes
// opens a TLog, which begins with the mark. l.mu is held.
func (l *Log) allStored() bool {
	return l.open == nil && len(l.pending)+len(l.sealed)+len(l.unstored) == 0 &&
		(l.tl == nil || l.tl.FirstSeq == 0) && !slices.ContainsFunc(l.closed, func(t *TLog) bool { return !t.stored })
}

// leaveMark says in the open TLog what is durable. It is not synced, and later
// commit blocks carry the figure too. If it cannot, the next TLog does.
func (l *Log) leaveMark() {
	if l.tl.broken {
		return
	}
	l.mark = tlog.AppendEntry(l.mark[:0], l.tl.seed, tlog.Entry{Kind: tlog.KindDurable, Seq: l.durable.Load()})
	l.unmarked = l.tl.append(l.mark) != nil
}

// When the background syncs a sealed SCO: soon, if the vDisk is flushed now and
// then, so that the next flush finds little to do; otherwise late, because
// what is overwritten before it is stored never has to reach the medium.
const (
	syncFlushed = 2 * time.Second // a flush so long ago counts
	syncAge     = 5 * time.Second // an SCO so old is synced anyway
)

// backgroundSync syncs sealed SCOs in order (O10).
func (l *Log) backgroundSync(ctx context.Context) {
	tick := time.NewTicker(syncFlushed / 2)
	defer tick.Stop()
	for {
		select {
		case <-l.syncer.Rung():
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for {
			s := l.nextSync(time.Now())
			if s == nil {
				break
			}
			err := s.sync(true)
			s.release()
			if err != nil {
				if l.Err() == nil { // who halts says so
					l.buf.opt.Logger.Warn("write buffer: SCO not synced yet", "vdisk", l.opt.Volume, "err", err)
				}
				break
			}
			// In order: all sealed before s are synced or stored, so what its
			// commit blocks cover is durable.
			l.advance(s.covers)
			l.changed()
		}
	}
}

// nextSync returns the SCO that the background is to sync, held.
func (l *Log) nextSync(now time.Time) *SCO {
	l.mu.Lock()
	defer l.mu.Unlock()
	flushed := now.Sub(time.Unix(0, l.flushed.Load())) < syncFlushed
	for _, s := range l.unsynced {
		if s.synced.Load() {
			continue
		}
		if (flushed || now.Sub(s.sealedAt) >= syncAge) && s.acquire() {
			return s
		}
		return nil
	}
	return nil
}
