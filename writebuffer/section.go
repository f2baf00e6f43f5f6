package writebuffer

import (
	"fmt"
	"sync"

	"openvstorage/internal/broadcast"
	"openvstorage/internal/disk"
	"openvstorage/sco"
	"openvstorage/tlog"
)

// section is the append section of a Log (O9): whoever is in it alone hands out
// seqs, appends to the open SCO and TLog, and moves on to the prepared ones. It is
// reached only through Log.section.enter, which takes its lock, so that each of its
// methods has it.
//
// Lock order: the section comes before the locks of Buffer, and before those of the
// Owner. Nothing in it waits for a file or for room: a method that lacks one returns
// disk.ErrWouldBlock or the disk's error, and Log.whenReady waits outside.
type section struct {
	mu  sync.Mutex
	log *Log

	nextSeq      uint64
	round        uint64 // number of the last commit block
	open         *SCO
	next         *SCO // prepared, its name durable
	tl           *openTLog
	nextTL       *openTLog // prepared, its name durable
	unbegun      int       // TLogs in a row that could not be begun
	unmarked     bool      // a mark waits for nextTL
	pending      []byte    // entries that no commit block covers yet, as in the TLog
	pendingFirst uint64
	backlog      backlog
	wantFast     bool // the open SCO is flushed and not pre-written
	lacking      int  // how many wait for a prepared file
	scratch      []byte
	mark         []byte
	resuming     *resuming           // nil: what was recovered is in files of this epoch
	ready        broadcast.Broadcast // next or nextTL has come, or resuming has gone
	active       uint64              // counts appends: whoever looks twice sees whether it is idle
}

// entrance is the only way into a section.
type entrance struct{ inside section }

// begin makes the section of a new log whose next seq is nextSeq.
func (e *entrance) begin(l *Log, nextSeq uint64) { e.inside.log, e.inside.nextSeq = l, nextSeq }

// enter waits until nobody else is in the section, and returns it. It is not used
// after leave.
func (e *entrance) enter() *section {
	e.inside.mu.Lock()
	return &e.inside
}

// leave lets the next one in.
func (a *section) leave() { a.mu.Unlock() }

// space returns how many clusters fit s when entries bytes of entries come
// with them: room for the commit block that must cover them is kept back.
func (a *section) space(s *SCO, entries int) int {
	if s == nil || s.broken {
		return 0
	}
	return a.log.room - int(s.used.Load()) - sco.CommitBlocks(len(a.pending)+entries)
}

// wasteShare bounds how much of an SCO stays unused because a batch does not fit into
// the rest of it: 1/wasteShare of its room. If more is left, the batch is split, by an
// append that can wait.
const wasteShare = 32

// append is the append section for data. whole: all goes to one SCO, or nothing
// is written.
func (a *section) append(b *Batch, whole bool) error {
	if err := a.log.fate.err(); err != nil {
		return err
	}
	if b.Check != nil && !b.Check() {
		return ErrChanged
	}
	bytes := (tlog.EntrySize+4)*len(b.Spans) + 4*b.clusters + 2*tlog.EntrySize
	if !a.tlogReady() || (a.space(a.open, bytes) < b.clusters && a.next == nil) {
		a.log.preparer.bell.Ring()
		return disk.ErrWouldBlock
	}
	if whole && a.space(a.open, bytes) < b.clusters {
		if err := a.beginWhole(b.clusters, bytes); err != nil {
			return err
		}
	}
	a.active++
	for at := (position{}); at.span < len(b.Spans); {
		n := a.space(a.open, bytes)
		if n <= 0 {
			if err := a.roll(); err != nil {
				return err
			}
			continue
		}
		if err := a.appendTo(a.open, b, &at, n); err != nil {
			return err
		}
	}
	return nil
}

// beginWhole moves on to an SCO that takes so many clusters, with bytes of entries,
// if little is lost by that.
func (a *section) beginWhole(clusters, bytes int) error {
	if a.space(a.open, bytes) > a.log.room/wasteShare {
		return disk.ErrWouldBlock
	}
	if err := a.roll(); err != nil {
		return err
	}
	if a.space(a.open, bytes) < clusters {
		return disk.ErrWouldBlock // entries that no commit block covers yet take the room
	}
	return nil
}

// appendTo writes up to room clusters of the batch, from at on, to s, their
// entries to the TLog, and applies them. One write to each file.
func (a *section) appendTo(s *SCO, b *Batch, at *position, room int) error {
	first := int(s.used.Load()) + 1
	a.gather(s, b, at, room, first)
	off := int64(first) * sco.ClusterSize
	if first == 1 { // the header goes with the first data
		off = 0
	}
	if _, err := s.file.WritevAt(b.iov, off); err != nil {
		s.broken = true
		return fmt.Errorf("append to %s at %d: %w", s.name, off, err)
	}
	if err := a.tl.append(b.entries); err != nil {
		// The blocks are written, and nothing refers to them. They may have been synced,
		// and a synced block is never written again (O2): so they are passed over.
		a.skip(s, b)
		return err
	}
	if len(a.pending) == 0 {
		a.pendingFirst = b.runs[0].seq
	}
	a.pending = append(a.pending, b.entries...)
	return a.apply(s, b, first)
}

// gather fills the batch's vectors, entries and runs with what fits.
func (a *section) gather(s *SCO, b *Batch, at *position, room, first int) {
	b.iov, b.entries, b.runs = b.iov[:0], b.entries[:0], b.runs[:0]
	if first == 1 {
		s.header.FirstSeq = a.nextSeq
		b.iov = append(b.iov, sco.AppendHeader(nil, s.header))
	}
	index, seq := first, a.nextSeq
	for at.span < len(b.Spans) && room > 0 {
		sp := b.Spans[at.span]
		n := min(len(sp.Data)/sco.ClusterSize-at.cluster, room, tlog.RunMax)
		from := at.cluster * sco.ClusterSize
		b.iov = append(b.iov, sp.Data[from:from+n*sco.ClusterSize])
		addr := sp.Addr + uint64(at.cluster)
		loc := sco.At(a.log.opt.Origin, s.Number, index)
		sums := b.sums[at.sum : at.sum+n]
		b.entries = tlog.AppendWrite(b.entries, a.tl.seed, seq, addr, loc, sums)
		b.runs = append(b.runs, run{seq, addr, n, loc})
		copy(s.blocks.Sums[index-1:], sums)
		for i := range n {
			s.blocks.Addrs[index-1+i], s.blocks.Seqs[index-1+i] = addr+uint64(i), seq
		}
		index, seq, room = index+n, seq+1, room-n
		at.sum += n
		if at.cluster += n; at.cluster == len(sp.Data)/sco.ClusterSize {
			at.span, at.cluster = at.span+1, 0
		}
	}
}

// apply has the owner apply what was written, in the order of seq: from then on reads
// find it.
func (a *section) apply(s *SCO, b *Batch, first int) error {
	end := b.runs[len(b.runs)-1]
	s.used.Store(int32(end.loc.Index() + end.n - 1))
	s.last, s.lastSeq = end.loc.Index()+end.n-1, end.seq
	for _, r := range b.runs {
		s.data += r.n
		if err := a.log.opt.Owner.ApplyWrite(r.seq, r.addr, r.n, r.loc); err != nil {
			err = fmt.Errorf("map of %s at seq %d: %w", a.log.opt.Volume, r.seq, err)
			a.log.fate.fail(err)
			return err
		}
	}
	a.nextSeq = end.seq + 1
	a.tl.note(b.runs[0].seq, end.seq)
	a.log.written.Store(end.seq)
	return nil
}

// skip marks blocks as written, and as the data of no cluster. Their sums stay true.
func (a *section) skip(s *SCO, b *Batch) {
	for _, r := range b.runs {
		for i := range r.n {
			at := r.loc.Index() - 1 + i
			s.blocks.Addrs[at], s.blocks.Seqs[at] = sco.NoAddress, 0
		}
	}
	end := b.runs[len(b.runs)-1]
	s.used.Store(int32(end.loc.Index() + end.n - 1))
}

// entryFits returns nil if n bytes of entry find room, in the open SCO or, if that is
// full, in the next one; ErrWouldBlock if there is none yet.
func (a *section) entryFits(n int) (full bool, err error) {
	if err := a.log.fate.err(); err != nil {
		return false, err
	}
	full = a.open == nil || a.open.broken || a.space(a.open, n) < 0
	if !a.tlogReady() || (full && a.next == nil) {
		a.log.preparer.bell.Ring()
		return full, disk.ErrWouldBlock
	}
	return full, nil
}

// appendEntry is the append section for an entry without data.
func (a *section) appendEntry(e tlog.Entry) (uint64, error) {
	full, err := a.entryFits(tlog.EntrySize + len(e.Payload))
	if err != nil {
		return 0, err
	}
	if full {
		if err := a.roll(); err != nil {
			return 0, err
		}
	}
	a.active++
	e.Seq = a.nextSeq
	if e.Kind == tlog.KindSnapshot {
		above, _ := a.log.numbers.next() // every SCO that has been opened
		e.Addr = uint64(above)
	}
	at := len(a.pending)
	a.pending = tlog.AppendEntry(a.pending, a.tl.seed, e)
	if err := a.tl.append(a.pending[at:]); err != nil {
		a.pending = a.pending[:at]
		return 0, err
	}
	if at == 0 {
		a.pendingFirst = e.Seq
	}
	if err := a.log.opt.Owner.ApplyEntry(e); err != nil {
		err = fmt.Errorf("map of %s at seq %d: %w", a.log.opt.Volume, e.Seq, err)
		a.log.fate.fail(err)
		return 0, err
	}
	a.nextSeq++
	a.tl.note(e.Seq, e.Seq)
	a.log.written.Store(e.Seq)
	return e.Seq, nil
}
