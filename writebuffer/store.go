package writebuffer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"slices"

	"openvstorage/internal/disk"
	"openvstorage/sco"
	"openvstorage/tlog"
)

// Work is what waits to be stored: upload SCOs (in any order, several at a
// time), then the TLogs in order, then the catalog (O3).
type Work struct {
	SCOs  []*SCO  // sealed, of TLogs closed and open, in order
	TLogs []*TLog // closed, in order
}

// Work returns what waits to be stored now.
func (l *Log) Work() Work {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := Work{SCOs: append(slices.Clone(l.unstored), l.sealed...)}
	for _, t := range l.closed {
		if !t.stored {
			w.TLogs = append(w.TLogs, t)
		}
	}
	return w
}

// SCOs are those that the TLog's entries name, in order.
func (t *TLog) SCOs() []*SCO { return t.scos }

// Empty reports whether an SCO holds commit blocks only: it has no object.
func (s *SCO) Empty() bool { return s.last == 0 }

// FirstSeq is at or below the seq of everything that the SCO holds.
func (s *SCO) FirstSeq() uint64 { return s.header.FirstSeq }

// Marks says which clusters of an SCO are to be stored, a bit for each. Nil
// means all.
type Marks []uint64

func (m Marks) has(index int) bool { return m == nil || m[index/64]&(1<<(index%64)) != 0 }

// Count is how many clusters are marked.
func (m Marks) Count() int64 {
	n := 0
	for _, word := range m {
		n += bits.OnesCount64(word)
	}
	return int64(n)
}

// Mark asks keep about every cluster of a sealed SCO, the newest first.
func (s *SCO) Mark(keep func(addr, seq uint64) bool) Marks {
	m := make(Marks, s.last/64+1)
	for i, addr := range slices.Backward(s.blocks.Addrs[:s.last]) {
		if addr != sco.NoAddress && keep(addr, s.blocks.Seqs[i]) {
			m[(i+1)/64] |= 1 << ((i + 1) % 64)
		}
	}
	return m
}

// Object returns the bytes of the SCO's object in buf, grown if need be: synced
// first (O10), every cluster verified (P2), commit blocks zeroed, with a
// footer. Clusters that are not marked are left out like commit blocks. If
// nothing is left the object is empty.
func (s *SCO) Object(buf []byte, marks Marks) ([]byte, error) {
	if marks != nil && marks.Count() == 0 {
		return buf[:0], nil // it need not even be synced
	}
	if err := s.sync(true); err != nil {
		return nil, err
	}
	n := (1 + s.last) * sco.ClusterSize
	buf = slices.Grow(buf[:0], n+sco.FooterBlocks(s.last)*sco.ClusterSize)[:n]
	if err := readFull(s.file, buf, 0); err != nil {
		return nil, err
	}
	h, err := sco.DecodeHeader(buf)
	if err != nil || h != s.header {
		return nil, &CorruptError{s.name, 0, "the header is not the one written"}
	}
	t := sco.Blocks{Sums: slices.Clone(s.blocks.Sums[:s.last]), Addrs: slices.Clone(s.blocks.Addrs[:s.last]), Seqs: slices.Clone(s.blocks.Seqs[:s.last])}
	last := 0
	for i := range s.last {
		c := buf[(i+1)*sco.ClusterSize : (i+2)*sco.ClusterSize]
		if t.Addrs[i] == sco.NoAddress {
			clear(c)
			continue
		}
		if !marks.has(i + 1) {
			t.Sums[i], t.Addrs[i], t.Seqs[i] = 0, sco.NoAddress, 0
			clear(c)
			continue
		}
		if got, want := sco.Sum(c), t.Sums[i]; got != want {
			return nil, &CorruptError{s.name, int64(i+1) * sco.ClusterSize, fmt.Sprintf("CRC is %08x, not %08x", got, want)}
		}
		last = i + 1
	}
	if last == 0 {
		return buf[:0], nil
	}
	return sco.AppendFooter(buf[:(1+last)*sco.ClusterSize], s.header, t, last, last+1), nil
}

// SameFile reports whether head, the first block of an object, is of this very
// SCO: what an earlier attempt to store it left.
func (s *SCO) SameFile(head []byte) bool {
	h, err := sco.DecodeHeader(head)
	return err == nil && h == s.header
}

// Object returns the bytes of the TLog's object: synced first, every entry
// verified.
func (t *TLog) Object(l *Log) ([]byte, error) {
	if err := t.sync(l); err != nil {
		return nil, err
	}
	return t.read()
}

// readFull reads all of p. A file that ends before is damaged.
func readFull(f disk.File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		return &CorruptError{f.Name(), off + int64(n), "the file is too short"}
	}
	return fmt.Errorf("read %s at %d: %w", f.Name(), off, err)
}

// Stored records that the TLogs up to id, and with them their SCOs, are in the
// catalog (O3): the SCOs may leave the buffer (O5). Those of which narrow, which
// may be nil, says that their object is not at full width yet leave it only
// under pressure, until Widened.
func (l *Log) Stored(id tlog.ID, narrow func(sco.Number) bool) {
	l.mu.Lock()
	var done []*SCO
	var last uint64
	for _, t := range l.closed {
		if t.ID <= id && !t.stored {
			t.stored = true
			if err := t.close(); err != nil { // nobody reads it any more
				l.buf.opt.Logger.Warn("write buffer: stored TLog not closed", "file", t.name, "err", err)
			}
			last = max(last, t.LastSeq)
			done = append(done, t.scos...)
			t.scos = nil
		}
	}
	l.unstored = slices.DeleteFunc(l.unstored, func(s *SCO) bool { return slices.Contains(done, s) })
	for _, s := range done {
		s.stored = true
	}
	// The catalog has their entries: nobody needs these files to be durable.
	l.unsynced = slices.DeleteFunc(l.unsynced, func(s *SCO) bool { return s.stored })
	l.mu.Unlock()
	l.advance(last)
	l.rest()
	for _, s := range done {
		settle(s.file)
		l.buf.offer(s, narrow != nil && narrow(s.Number))
	}
}

// rest closes the open TLog of a log that has nothing to store: it holds a mark at
// most. It stays, as those that are stored do, until Free.
func (l *Log) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tl == nil || !l.allStored() {
		return
	}
	t := l.tl
	l.tl = nil
	t.stored = true
	if err := t.close(); err != nil {
		l.buf.opt.Logger.Warn("write buffer: TLog of a vDisk that rests not closed", "file", t.name, "err", err)
	}
	l.closed = append(l.closed, &t.TLog)
}

// offer makes a stored SCO evictable, a narrow one after all others.
func (b *Buffer) offer(s *SCO, narrow bool) {
	b.dirty.Add(-1)
	b.mu.Lock()
	b.listLocked(s, narrow)
	b.mu.changed.Send()
	b.mu.Unlock()
}

// listLocked puts a stored SCO behind the others of its list. b.mu is held.
func (b *Buffer) listLocked(s *SCO, narrow bool) {
	s.list = b.mu.evictable
	if narrow {
		s.list = b.mu.narrow
	}
	s.element = s.list.PushBack(s)
}

// unlistLocked takes an SCO off its list, and reports whether it was on one.
// b.mu is held.
func (b *Buffer) unlistLocked(s *SCO) bool {
	if s.element == nil {
		return false
	}
	s.list.Remove(s.element)
	s.element, s.list = nil, nil
	return true
}

// Narrow returns the SCOs of the vDisk that are kept because their objects are
// not at full width.
func (l *Log) Narrow() []sco.Number {
	l.buf.mu.Lock()
	defer l.buf.mu.Unlock()
	var list []sco.Number
	for e := l.buf.mu.narrow.Front(); e != nil; e = e.Next() {
		if s := e.Value.(*SCO); s.log == l {
			list = append(list, s.Number)
		}
	}
	return list
}

// Widened records that the objects of SCOs are at full width.
func (l *Log) Widened(numbers []sco.Number) {
	t := l.table.Load()
	l.buf.mu.Lock()
	defer l.buf.mu.Unlock()
	for _, n := range numbers {
		if s := t.find(n); s != nil && s.list == l.buf.mu.narrow && l.buf.unlistLocked(s) {
			l.buf.listLocked(s, false)
		}
	}
}

// Forget drops a stored SCO whose object was deleted.
func (l *Log) Forget(n sco.Number) {
	s := l.table.Load().find(n)
	if s == nil {
		return
	}
	l.buf.mu.Lock()
	listed := l.buf.unlistLocked(s)
	l.buf.mu.Unlock()
	if listed {
		l.drop(s)
	}
}

// Free removes the closed, stored TLogs up to id: a checkpoint covers them (O4).
func (l *Log) Free(id tlog.ID) error {
	l.mu.Lock()
	var gone []*TLog
	l.closed = slices.DeleteFunc(l.closed, func(t *TLog) bool {
		if t.ID <= id && t.stored {
			gone = append(gone, t)
			return true
		}
		return false
	})
	l.mu.Unlock()
	var errs []error
	for _, t := range gone {
		errs = append(errs, t.close(), l.buf.opt.FS.Remove(t.name))
	}
	return errors.Join(errs...)
}

// Backlog is how many bytes of the vDisk are in the buffer and not stored yet,
// Local how many are in the buffer at all. Both count whole SCO files' used
// blocks.
func (l *Log) Backlog() (backlog, local int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open != nil {
		backlog += int64(l.open.used.Load()) * sco.ClusterSize
	}
	for _, s := range l.unstored {
		backlog += int64(s.used.Load()) * sco.ClusterSize
	}
	for _, s := range l.sealed {
		backlog += int64(s.used.Load()) * sco.ClusterSize
	}
	for _, s := range l.table.Load().scos {
		if s != nil {
			local += int64(s.used.Load()) * sco.ClusterSize
		}
	}
	return backlog, local
}

// TLogBytes is how many bytes of TLogs the vDisk has in the buffer.
func (l *Log) TLogBytes() (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.closed {
		n += t.Size
	}
	if l.tl != nil {
		n += l.tl.Size
	}
	return n
}

// Activity changes with every append.
func (l *Log) Activity() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.active
}

// Close commits what is written, unless the log has failed, and lets go of
// all files. Nobody may use the log any more.
func (l *Log) Close(commit func() error) error {
	var errs []error
	if commit != nil && l.Err() == nil {
		errs = append(errs, commit())
	}
	l.stop()
	l.done.Wait()
	if commit != nil && l.Err() == nil && l.Resuming() == nil {
		if err := l.syncMark(); err != nil {
			// All that was flushed is there. Only damage below it would not be told
			// from the end of the log.
			l.buf.opt.Logger.Warn("write buffer: the mark of the last flush is not durable", "vdisk", l.opt.Volume, "err", err)
		}
	}
	l.fail(ErrClosed)
	l.buf.mu.Lock()
	delete(l.buf.mu.logs, l.opt.Volume)
	l.buf.mu.Unlock()
	return errors.Join(append(errs, l.closeFiles())...)
}

// syncMark makes the newest mark durable: a clean stop may be followed by a power
// cut. Nothing else of the log runs any more.
func (l *Log) syncMark() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.markNext(); err != nil {
		return err
	}
	if l.unmarked && l.nextTL == nil && l.numbers.tlog < l.numbers.tlogLimit {
		next, err := l.newTLog(l.numbers.tlog)
		l.numbers.tlog++
		if err != nil {
			return err
		}
		l.nextTL = next
		if err := l.markNext(); err != nil {
			return err
		}
	}
	switch n := len(l.closed); {
	case l.tl != nil:
		return l.tl.sync(l)
	case n > 0 && !l.closed[n-1].stored:
		return l.closed[n-1].sync(l)
	}
	return nil
}

// closeFiles closes what is open. SCOs stay as files, and in the buffer's
// count, for the next start to find, or Discard.
func (l *Log) closeFiles() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, s := range l.table.Load().scos {
		if s == nil {
			continue
		}
		l.buf.mu.Lock()
		if s.stored && s.element == nil { // being evicted: that closes it
			l.buf.mu.Unlock()
			continue
		}
		if !l.buf.unlistLocked(s) {
			l.buf.dirty.Add(-1)
		}
		l.buf.mu.Unlock()
		if s.refs.CompareAndSwap(1, 0) {
			errs = append(errs, s.file.Close())
			continue
		}
		s.left.Store(true) // who reads it closes it
		s.release()
	}
	l.table.Store(&table{})
	if l.next != nil {
		l.next.release()
		l.next = nil
	}
	for _, t := range l.closed {
		errs = append(errs, t.close())
	}
	if l.resuming != nil {
		for _, t := range l.resuming.tlogs {
			errs = append(errs, t.close())
		}
	}
	if l.tl != nil {
		errs = append(errs, l.tl.file.Close())
	}
	if l.nextTL != nil {
		errs = append(errs, l.nextTL.file.Close())
		if err := l.buf.opt.FS.Remove(l.nextTL.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Numbers are the next SCO and TLog numbers to be used.
func (l *Log) Numbers() (sco.Number, tlog.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.numbers.sco, l.numbers.tlog
}

// SetLimits raises the numbers below which SCOs and TLogs may be opened.
func (l *Log) SetLimits(scos sco.Number, tlogs tlog.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.numbers.scoLimit = max(l.numbers.scoLimit, scos)
	l.numbers.tlogLimit = max(l.numbers.tlogLimit, tlogs)
}

// AtRest calls fn in the append section with the last seq, if every entry is
// in a closed TLog.
func (l *Log) AtRest(fn func(lastSeq uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if (l.tl == nil || l.tl.FirstSeq == 0) && l.resuming == nil && l.Err() == nil {
		fn(l.nextSeq - 1)
	}
}
