package writebuffer

import (
	"errors"
	"fmt"
	"path"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/sco"
	"openvstorage/tlog"
)

// tlogSizeMax is when a TLog closes whatever it covers, in bytes: a TLog is
// read and uploaded as a whole.
const tlogSizeMax = 16 << 20

// tlogFirst is how many bytes a new TLog has room for on any disk. What it takes
// beyond them may lack room.
const tlogFirst = 16 << 10

// openTLog is the TLog that entries go to.
type openTLog struct {
	TLog
	seed   tlog.Seed
	bytes  int64 // of SCO blocks that its entries cover
	broken bool  // a write failed: nothing more is appended
}

// TLog is a closed TLog, waiting to be stored or to be covered by a
// checkpoint.
type TLog struct {
	ID       tlog.ID
	FirstSeq uint64 // 0 if it has no entry
	LastSeq  uint64
	Size     int64

	file disk.File
	name string
	scos []*SCO // that its entries name, sealed

	stored  bool // guarded by Log.mu
	syncing syncs
}

// close lets go of the file. One that is stored has none.
func (t *TLog) close() error {
	if t.file == nil {
		return nil
	}
	f := t.file
	t.file = nil
	return f.Close()
}

func (l *Log) tlogPath(id tlog.ID) string { return path.Join(l.dir, id.Name()) }

// newTLog makes an empty TLog file with a durable name.
func (l *Log) newTLog(id tlog.ID) (*openTLog, error) {
	name := l.tlogPath(id)
	var f disk.File
	err := l.buf.named(l.dir, func() (err error) {
		f, err = l.buf.opt.FS.OpenFile(name, disk.Write|disk.Create|disk.Truncate, 0o600)
		if err == nil {
			err = f.Allocate(0, tlogFirst) // with it, it can be begun
		}
		return err
	})
	if err == nil {
		err = pin(f)
	}
	if err != nil && f != nil {
		return nil, errors.Join(err, f.Close(), l.buf.opt.FS.Remove(name))
	}
	return &openTLog{TLog: TLog{ID: id, file: f, name: name}}, err
}

// begin writes the header.
func (t *openTLog) begin(l *Log) error {
	h := tlog.Header{Volume: l.opt.Volume, ID: t.ID, Incarnation: l.buf.opt.Random(), Epoch: l.opt.Epoch, FirstSeq: l.nextSeq}
	t.seed = tlog.SeedOf(h.Incarnation)
	return t.append(tlog.AppendHeader(nil, h))
}

// append writes whole entries. After an error nothing more is appended: what
// follows the last good entry is a torn one, where a reader stops.
func (t *openTLog) append(b []byte) error {
	if t.broken {
		return fmt.Errorf("%s: closed after a failed write", t.name)
	}
	if _, err := t.file.WriteAt(b, t.Size); err != nil {
		// Entries of the refused request must not be found by a restart.
		t.broken = true
		_ = t.file.Truncate(t.Size)
		return fmt.Errorf("append to %s at %d: %w", t.name, t.Size, err)
	}
	t.Size += int64(len(b))
	return nil
}

func (t *openTLog) note(first, last uint64) {
	if t.FirstSeq == 0 {
		t.FirstSeq = first
	}
	t.LastSeq = last
}

// tlogReady reports whether entries can be appended, opening the prepared TLog
// if that is what it takes.
func (l *Log) tlogReady() bool {
	if l.tl != nil && !l.tl.broken {
		return true
	}
	if l.nextTL == nil {
		return false
	}
	if l.tl != nil {
		// O3: a TLog is stored with every SCO that its entries name.
		if l.open != nil && !l.seal() {
			return false
		}
		l.retireTLog()
	}
	if l.openTLog() != nil || l.tl.broken {
		l.prepare.Ring()
		return false
	}
	return true
}

// openTLog begins the prepared TLog, and has the next one prepared.
func (l *Log) openTLog() error {
	l.prepare.Ring()
	return l.beginTLog()
}

// beginTLog begins the prepared TLog. The next one, and with it an SCO, is
// prepared when there is a write: an idle log keeps no file that others need.
func (l *Log) beginTLog() error {
	t := l.nextTL
	l.nextTL = nil
	if err := t.begin(l); err != nil {
		_ = errors.Join(t.file.Close(), l.buf.opt.FS.Remove(t.name)) // it never held anything
		l.unbegun++
		_ = l.lacksRoom(err)
		return err
	}
	l.unbegun = 0
	l.tl = t
	l.leaveMark()
	return nil
}

// retireTLog moves the open TLog to the closed ones with the SCOs sealed since. One
// without entries too: it may hold the newest mark, and goes when all that was
// written before it is stored, and no mark below that is needed.
func (l *Log) retireTLog() {
	t := l.tl
	l.tl = nil
	t.scos = l.sealed
	l.unstored = append(l.unstored, t.scos...)
	l.sealed = nil
	l.closed = append(l.closed, &t.TLog)
	l.opt.Applier.ClosedTLog(t.ID, l.nextSeq-1)
	l.changed()
}

// CloseTLog seals the open SCO and closes the open TLog, so that everything
// written so far can be stored. It reports whether there was anything.
func (l *Log) CloseTLog() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closeTLogLocked()
}

// CloseTLogOf is CloseTLog if the open TLog has an entry up to seq: what came
// later need not be stored for it.
func (l *Log) CloseTLogOf(seq uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tl != nil && l.tl.FirstSeq <= seq && l.closeTLogLocked()
}

func (l *Log) closeTLogLocked() bool {
	if l.Err() != nil || l.tl == nil || l.tl.FirstSeq == 0 {
		return false
	}
	if l.open != nil && !l.seal() {
		return false
	}
	if !l.tl.broken {
		// A failed seal leaves a torn tail, which is where a reader stops: all
		// entries are before it.
		_ = l.tl.append(tlog.AppendEntry(nil, l.tl.seed, tlog.Entry{Kind: tlog.KindSeal, Seq: l.nextSeq - 1}))
	}
	l.retireTLog()
	return true
}

// roll seals the open SCO and opens the prepared one, which must be there. A
// TLog that covers its share of the buffer closes with it.
func (l *Log) roll() error {
	if l.open != nil {
		if !l.seal() {
			return disk.ErrWouldBlock
		}
		if t := l.tl; t != nil && l.nextTL != nil && (t.bytes >= l.buf.TLogBytes() || t.Size >= tlogSizeMax) {
			// One that cannot be closed, for want of an SCO for its last entries,
			// stays open and is due at the next roll.
			if l.closeTLogLocked() {
				if err := l.openTLog(); err != nil {
					return err
				}
			}
		}
		if l.open != nil { // a broken one was replaced
			return nil
		}
	}
	if l.next == nil {
		l.prepare.Ring()
		return disk.ErrWouldBlock
	}
	s := l.next
	l.next = nil
	l.open = s
	l.prepare.Ring()
	l.table.Store(l.table.Load().with(s.Number, s))
	l.buf.dirty.Add(1)
	return nil
}

// seal ends the open SCO: a commit block that covers what no earlier one does,
// and the footer, so that the file can be read without the TLog. It returns
// false if the entries must first be committed in another SCO that is not
// there yet.
func (l *Log) seal() bool {
	s := l.open
	if s.broken && len(l.pending) > 0 && l.next == nil {
		l.prepare.Ring()
		return false // pending entries would have no home
	}
	if !s.broken {
		if err := l.commitBlock(s); err == nil {
			l.footer(s)
		}
	}
	s.sealed, s.sealedAt = true, time.Now()
	l.open = nil
	if l.tl != nil {
		l.tl.bytes += int64(s.used.Load()) * sco.ClusterSize
	}
	l.unsynced = append(l.unsynced, s)
	l.sealed = append(l.sealed, s)
	l.syncer.Ring()
	l.changed()
	if s.broken && len(l.pending) > 0 {
		return l.roll() == nil
	}
	return true
}

// footer writes the footer at the end of the file. Without one the file is
// still whole for recovery: commit blocks say it all.
func (l *Log) footer(s *SCO) {
	off, footer := s.footer(l.scratch[:0])
	l.scratch = footer
	if _, err := s.file.WriteAt(footer, off); err != nil {
		s.broken = true
		return
	}
	s.footed.Store(true)
}

// footer appends the SCO's footer, and tells where it is written.
func (s *SCO) footer(dst []byte) (off int64, footer []byte) {
	n := int(s.used.Load())
	first := s.header.Capacity - sco.FooterBlocks(n)
	return int64(first) * sco.ClusterSize, sco.AppendFooter(dst, s.header, s.blocks, n, first)
}

func (l *Log) changed() {
	if l.opt.OnChange != nil {
		l.opt.OnChange()
	}
}
