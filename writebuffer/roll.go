package writebuffer

import (
	"time"

	"openvstorage/internal/disk"
	"openvstorage/sco"
	"openvstorage/tlog"
)

// roll seals the open SCO and opens the prepared one, which must be there. A
// TLog that covers its share of the buffer closes with it.
func (a *section) roll() error {
	if a.open != nil {
		if !a.seal() {
			return disk.ErrWouldBlock
		}
		if t := a.tl; t != nil && a.nextTL != nil && (t.bytes >= a.log.buf.TLogBytes() || t.Size >= tlogSizeMax) {
			// A TLog that cannot be closed, for want of an SCO for its last entries,
			// stays open; the next roll tries again.
			if a.closeTLog() {
				if err := a.openTLog(); err != nil {
					return err
				}
			}
		}
		if a.open != nil { // a broken one was replaced
			return nil
		}
	}
	if a.next == nil {
		a.log.preparer.bell.Ring()
		return disk.ErrWouldBlock
	}
	s := a.next
	a.next = nil
	a.open = s
	a.log.preparer.bell.Ring()
	a.log.present.put(s)
	a.log.buf.dirty.Add(1)
	return nil
}

// seal ends the open SCO. It writes a commit block for what no earlier one covers, and
// the footer, so that the file can be read without the TLog. It returns false if a write
// to the SCO has failed and there is no other SCO yet for its last entries.
func (a *section) seal() bool {
	s := a.open
	if s.broken && len(a.pending) > 0 && a.next == nil {
		a.log.preparer.bell.Ring()
		return false // pending entries would have no home
	}
	if !s.broken {
		if err := a.commitBlock(s); err == nil {
			a.footer(s)
		}
	}
	s.sealed, s.sealedAt = true, time.Now()
	a.open = nil
	if a.tl != nil {
		a.tl.bytes += int64(s.used.Load()) * sco.ClusterSize
	}
	a.backlog.addSCO(s)
	a.log.syncer.bell.Ring()
	a.log.opt.Owner.Changed()
	if s.broken && len(a.pending) > 0 {
		return a.roll() == nil
	}
	return true
}

// footer writes the footer at the end of the file. Without one the file is
// still whole for recovery: commit blocks say it all.
func (a *section) footer(s *SCO) {
	off, footer := s.footer(a.scratch[:0])
	a.scratch = footer
	if _, err := s.file.WriteAt(footer, off); err != nil {
		s.broken = true
		return
	}
	s.footed.Store(true)
}

// tlogReady reports whether entries can be appended, opening the prepared TLog
// if that is what it takes.
func (a *section) tlogReady() bool {
	if a.tl != nil && !a.tl.broken {
		return true
	}
	if a.nextTL == nil {
		return false
	}
	if a.tl != nil {
		// O3: a TLog is stored with every SCO that its entries name.
		if a.open != nil && !a.seal() {
			return false
		}
		a.retireTLog()
	}
	if a.openTLog() != nil || a.tl.broken {
		a.log.preparer.bell.Ring()
		return false
	}
	return true
}

// openTLog begins the prepared TLog, and has the next one prepared.
func (a *section) openTLog() error {
	a.log.preparer.bell.Ring()
	return a.beginTLog()
}

// beginTLog begins the prepared TLog. The next one, and with it an SCO, is
// prepared when there is a write: an idle log keeps no file that others need.
func (a *section) beginTLog() error {
	t := a.nextTL
	a.nextTL = nil
	if err := t.begin(a.log.folder.header(t.ID, a.nextSeq)); err != nil {
		_ = a.log.folder.removeTLog(t) // it never held anything
		a.unbegun++
		_ = a.log.lacksRoom(err)
		return err
	}
	a.unbegun = 0
	a.tl = t
	a.leaveMark()
	return nil
}

// retireTLog moves the open TLog to the closed ones, with the SCOs that were sealed
// since it was opened. It does so with a TLog without entries, too: that one may hold
// the newest mark. Free removes such a TLog once everything written before it is stored,
// since then no mark is needed.
func (a *section) retireTLog() {
	t := a.tl
	a.tl = nil
	a.backlog.addTLog(&t.TLog)
	a.log.opt.Owner.ClosedTLog(t.ID, a.nextSeq-1)
	a.log.opt.Owner.Changed()
}

// closeTLog seals the open SCO and closes the open TLog. It returns false if there is
// nothing in it, or the SCO cannot be sealed yet.
func (a *section) closeTLog() bool {
	if a.log.fate.err() != nil || a.tlogEmpty() {
		return false
	}
	if a.open != nil && !a.seal() {
		return false
	}
	if !a.tl.broken {
		// A failed seal leaves a torn tail, which is where a reader stops: all
		// entries are before it.
		_ = a.tl.append(tlog.AppendEntry(nil, a.tl.seed, tlog.Entry{Kind: tlog.KindSeal, Seq: a.nextSeq - 1}))
	}
	a.retireTLog()
	return true
}
