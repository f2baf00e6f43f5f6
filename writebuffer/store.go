package writebuffer

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"

	"openvstorage/internal/disk"
	"openvstorage/sco"
	"openvstorage/tlog"
)

// Work is what waits to be stored. The SCOs are uploaded first, in any order and
// several at a time; then the TLogs, in order; then the catalog is put (O3).
type Work struct {
	SCOs  []*SCO  // sealed, of TLogs closed and open, in order
	TLogs []*TLog // closed, in order
}

// Work returns what waits to be stored now.
func (l *Log) Work() Work {
	a := l.section.enter()
	defer a.leave()
	return a.backlog.work()
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
// SCO: an earlier attempt to store it may have left such an object.
func (s *SCO) SameFile(head []byte) bool {
	h, err := sco.DecodeHeader(head)
	return err == nil && h == s.header
}

// Object returns the bytes of the TLog's object: synced first, every entry
// verified.
func (t *TLog) Object(l *Log) ([]byte, error) {
	if err := t.sync(&l.fate); err != nil {
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
// catalog (O3): the SCOs may leave the buffer (O5). narrow, which may be nil, tells
// which of them have an object that is not at full width yet. Such an SCO leaves only
// when no other can and somebody waits, until Widened is called for it.
func (l *Log) Stored(id tlog.ID, narrow func(sco.Number) bool) {
	a := l.section.enter()
	tlogs, scos := a.backlog.stored(id)
	last := uint64(0)
	for _, t := range tlogs {
		last = max(last, t.LastSeq)
		a.closeStored(t)
	}
	a.advance(last)
	a.closeIdleTLog()
	a.leave()
	for _, s := range scos {
		settle(s.file)
		l.buf.offer(s, narrow != nil && narrow(s.Number))
	}
}

// closeStored closes the file of a stored TLog: nobody reads it any more.
func (a *section) closeStored(t *TLog) {
	if err := t.close(); err != nil {
		a.log.buf.opt.Logger.Warn("write buffer: stored TLog not closed", "file", t.name, "err", err)
	}
}

// closeIdleTLog closes the open TLog of a log that has nothing to store: that TLog
// holds a mark at most. Like a stored one, it stays until Free.
func (a *section) closeIdleTLog() {
	if a.tl == nil || !a.allStored() {
		return
	}
	t := &a.tl.TLog
	a.tl = nil
	t.stored = true
	a.closeStored(t)
	a.backlog.addStored(t)
}

// offer makes a stored SCO evictable, a narrow one after all others.
func (b *Buffer) offer(s *SCO, narrow bool) {
	b.dirty.Add(-1)
	b.evictable.add(s, narrow)
	b.pool.wake() // comes last: a writer that has missed the SCO waits by now
}

// Narrow returns the SCOs of the vDisk that are kept because their objects are
// not at full width.
func (l *Log) Narrow() []sco.Number { return l.buf.evictable.narrowOf(l) }

// Widened records that the objects of SCOs are at full width.
func (l *Log) Widened(numbers []sco.Number) {
	for _, n := range numbers {
		if s := l.present.find(n); s != nil {
			l.buf.evictable.widen(s)
		}
	}
}

// Forget drops a stored SCO whose object was deleted.
func (l *Log) Forget(n sco.Number) {
	if s := l.present.find(n); s != nil && l.buf.evictable.remove(s) {
		l.drop(s)
	}
}

// Free removes the closed, stored TLogs up to id: a checkpoint covers them (O4).
func (l *Log) Free(id tlog.ID) error {
	a := l.section.enter()
	gone := a.backlog.free(id)
	a.leave()
	var errs []error
	for _, t := range gone {
		errs = append(errs, t.close(), l.buf.opt.FS.Remove(t.name))
	}
	return errors.Join(errs...)
}

// Backlog returns how many bytes of the vDisk are in the buffer and not stored yet, and
// how many are in the buffer at all. It counts the used blocks of SCO files, commit
// blocks included.
func (l *Log) Backlog() (backlog, local int64) {
	a := l.section.enter()
	defer a.leave()
	backlog = a.backlog.bytes()
	if a.open != nil {
		backlog += int64(a.open.used.Load()) * sco.ClusterSize
	}
	for s := range l.present.all() {
		local += int64(s.used.Load()) * sco.ClusterSize
	}
	return backlog, local
}

// TLogBytes is how many bytes of TLogs the vDisk has in the buffer.
func (l *Log) TLogBytes() (n int64) {
	a := l.section.enter()
	defer a.leave()
	n = a.backlog.tlogBytes()
	if a.tl != nil {
		n += a.tl.Size
	}
	return n
}

// Activity changes with every append.
func (l *Log) Activity() uint64 {
	a := l.section.enter()
	defer a.leave()
	return a.active
}

// Numbers are the next SCO and TLog numbers to be used.
func (l *Log) Numbers() (sco.Number, tlog.ID) {
	return l.numbers.next()
}

// SetLimits raises the numbers below which SCOs and TLogs may be opened.
func (l *Log) SetLimits(scos sco.Number, tlogs tlog.ID) {
	l.numbers.raise(scos, tlogs)
}

// AtRest calls fn in the append section with the last seq, if every entry is
// in a closed TLog.
func (l *Log) AtRest(fn func(lastSeq uint64)) {
	a := l.section.enter()
	defer a.leave()
	if a.tlogEmpty() && a.resuming == nil && l.fate.err() == nil {
		fn(a.nextSeq - 1)
	}
}
