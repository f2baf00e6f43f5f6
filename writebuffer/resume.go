package writebuffer

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"openvstorage/sco"
	"openvstorage/tlog"

	"github.com/google/uuid"
)

// Resume takes over the files and entries that Recover found. It is called when the
// new epoch is in the catalog, before the first append. Its steps, of which a crash
// may leave any number undone:
//
//  1. The SCOs with data that no mark calls durable are written again, and all are
//     synced.
//  2. The entries are written to TLogs of this epoch, followed by a mark that calls
//     them all durable, and the TLogs are synced (O11). A restart that reads the mark
//     has read every entry before it.
//  3. Older TLogs are removed. A mark that only one of them had (O2) is not lost: the
//     mark of step 2 covers it, and is durable.
//
// So a restart leaves no less than it found, however many follow one another.
//
// After an error that passes (disk.Cause) nothing is lost, since older files stay
// until the end. Recovered data can be read, and GoOn continues at the step that
// failed. Until it is done appends and commits wait, and the log has nothing to store:
// nothing of this epoch is acknowledged before all earlier entries are in files of
// this epoch.
func (l *Log) Resume(r *Recovered) error {
	// A mark is not believed here: a Resume that was cut short may have left one that
	// calls entries durable which it had not synced yet. Flushes wait for this Resume.
	l.durable.Store(r.opt.StoredSeq)
	l.adopt(r, true)
	a := l.section.enter()
	a.resuming = &resuming{log: l, found: r, entries: r.Entries, scos: slices.Clone(a.backlog.sealed), part: tlogSizeMax}
	a.leave()
	return l.GoOn(context.Background())
}

// resuming is how far Resume has come. Resume and GoOn change it, of which one runs at
// a time; cause is read by others.
type resuming struct {
	log     *Log
	found   *Recovered
	entries []tlog.Entry // that are in no TLog of this epoch yet
	scos    []*SCO       // whose entries are among them
	tlogs   []*TLog      // made so far, durable
	part    int          // bytes of entries that a TLog takes, or so
	cause   error        // of the last attempt, guarded by the append section
}

// GoOn goes on with a Resume that has returned an error. ctx bounds how long it
// waits for numbers of TLogs, of which each attempt may take one.
func (l *Log) GoOn(ctx context.Context) error {
	a := l.section.enter()
	w := a.resuming
	a.leave()
	if w == nil {
		return nil
	}
	return w.goOn(ctx)
}

// goOn goes on to the end, or to an error.
func (w *resuming) goOn(ctx context.Context) error {
	l, r := w.log, w.found
	err := w.rewrite(ctx)
	if err == nil && r.Accepted { // before anything new is acknowledged
		err = l.buf.pool.withRoom(func() error { return l.buf.lossAccepted(r.opt.Volume) })
	}
	if err != nil {
		a := l.section.enter()
		w.cause = err
		a.leave()
		return err
	}
	w.end()
	for _, t := range slices.Backward(r.tlogs) {
		if t.err == nil && r.opt.Keep(t.id) {
			a := l.section.enter()
			a.backlog.addOlder(&TLog{ID: t.id, name: t.name, stored: true})
			a.leave()
			continue
		}
		if err := l.buf.opt.FS.Remove(t.name); err != nil {
			// It says nothing that the new ones do not. The next restart removes it.
			l.buf.opt.Logger.Warn("write buffer: older TLog not removed", "file", t.name, "err", err)
		}
	}
	l.opt.Owner.Changed()
	return nil
}

// Resuming is why a Resume has not come to its end, or nil if it has.
func (l *Log) Resuming() error {
	a := l.section.enter()
	defer a.leave()
	if a.resuming == nil {
		return nil
	}
	return a.resuming.cause
}

// errResuming is the answer to a commit round until Resume has come to its end.
var errResuming = errors.New("what was recovered is not in files of this epoch yet")

// waitResumed waits until that is done.
func (l *Log) waitResumed(ctx context.Context) error {
	for {
		a := l.section.enter()
		w, ready := a.resuming, a.ready.Next()
		a.leave()
		if w == nil {
			return nil
		}
		select {
		case <-ready:
		case <-l.fate.ended:
			return l.fate.err()
		case <-ctx.Done():
			return fmt.Errorf("%w, while it waited for room: %w: %v", ctx.Err(), errResuming, l.Resuming())
		}
	}
}

// end lets appends and commits begin: all that was recovered is durable in files of
// this epoch.
func (w *resuming) end() {
	l := w.log
	a := l.section.enter()
	defer a.leave()
	l.durable.Store(w.found.Reached)
	a.backlog.addResumed(w.tlogs)
	if n := len(w.tlogs); n > 0 {
		end := w.tlogs[n-1] // the map has all of it: a checkpoint may be there only
		l.opt.Owner.ClosedTLog(end.ID, end.LastSeq)
	}
	a.resuming = nil
	a.ready.Send()
}

// Inspect takes the files that Recover found for reading only: the vDisk is halted,
// and its files stay as they are for whoever repairs it.
func (l *Log) Inspect(r *Recovered) { l.adopt(r, false) }

// adopt makes the SCOs that hold data readable. SCOs with data that is not stored
// become sealed ones, the others may be evicted. Files without data are recycled, if
// recycle says so. Writers of other vDisks, which may evict stored SCOs, and the
// background goroutines of this log run already.
func (l *Log) adopt(r *Recovered, recycle bool) {
	blocks := make(map[sco.Number]*SCO)
	var stored, sealed []*SCO
	for _, f := range r.scos {
		s, isStored := f.restore(l, r)
		if s == nil {
			if recycle {
				f.recycle(l.buf, r.opt.Volume)
			}
			continue
		}
		f.file = nil // it is the SCO's now
		blocks[f.number] = s
		if isStored {
			stored = append(stored, s)
		} else {
			sealed = append(sealed, s)
		}
		l.buf.dirty.Add(1) // of stored ones, offer takes it back
	}
	for _, e := range r.Entries {
		if s := blocks[e.Location.Number()]; e.Kind == tlog.KindWrite && s != nil { // without it is damaged: reading it fails
			s.restoreEntry(e, r.Durable)
		}
	}
	a := l.section.enter()
	for _, s := range blocks {
		l.present.put(s)
	}
	a.backlog.addRecovered(sealed)
	for _, s := range stored {
		s.stored = true
	}
	a.leave()
	for _, s := range stored {
		l.buf.offer(s, l.opt.HoldStored)
	}
}

// recycle gives a file that holds nothing back to the pool.
func (f *foundSCO) recycle(b *Buffer, volume uuid.UUID) {
	_ = f.file.Close() // nothing was written to it
	f.file = nil
	if f.header.Volume != volume {
		// Another vDisk's before: a crash may have left it two names.
		b.pool.discard(f.name)
		return
	}
	b.pool.recycle(f.name, true)
}

// restoreEntry notes the blocks of the SCO that a recovered entry names. From the first
// block on that is not known to be durable, they are written again before the SCO is
// synced: an earlier process may have been told of a failed sync, and after that the
// success of a second sync means nothing (P6).
func (s *SCO) restoreEntry(e tlog.Entry, durable uint64) {
	first := e.Location.Index()
	for i := range int(e.Run) {
		at := first - 1 + i
		s.blocks.Sums[at], s.blocks.Addrs[at], s.blocks.Seqs[at] = e.Sum(i), e.Addr+uint64(i), e.Seq
	}
	if e.Seq > durable && !s.syncing.lost {
		s.syncing.lost = true
		s.durable = first - 1
	}
	s.last = first + int(e.Run) - 1
	s.data += int(e.Run)
	s.lastSeq, s.covers = e.Seq, e.Seq
	s.used.Store(int32(s.last))
}

// restore makes an SCO of a file that has something to read: data beyond
// StoredSeq, or a whole footer over data that is stored.
func (f *foundSCO) restore(l *Log, r *Recovered) (s *SCO, stored bool) {
	if f.err != nil || (!f.live && f.footer == nil) {
		return nil, false
	}
	s = &SCO{Number: f.number, log: l, file: f.file, name: f.name, header: f.header, sealed: true}
	s.refs.Store(1)
	if f.live {
		room := sco.Room(f.header.Capacity)
		s.blocks = sco.Blocks{Sums: make([]uint32, room), Addrs: make([]uint64, room), Seqs: make([]uint64, room)}
		for i := range s.blocks.Addrs {
			s.blocks.Addrs[i] = sco.NoAddress
		}
		return s, false
	}
	bound := r.opt.Bound(f.header.Epoch)
	for i, a := range f.footer.Addrs {
		if a == sco.NoAddress {
			continue
		}
		if seq := f.footer.Seqs[i]; seq > r.opt.StoredSeq || seq > bound {
			return nil, false // it died when a later owner began
		}
		s.last = i + 1
	}
	if s.last == 0 {
		return nil, false
	}
	s.blocks = *f.footer
	s.used.Store(int32(f.blocks))
	s.syncing.whole = true
	s.synced.Store(true)
	return s, true
}

// rewrite syncs the data of the recovered entries and then writes these to closed
// TLogs of this epoch. It goes on where an earlier call ended.
func (w *resuming) rewrite(ctx context.Context) error {
	if len(w.entries) == 0 {
		return nil
	}
	for _, s := range w.scos {
		if err := w.log.buf.pool.withRoom(func() error { return s.sync(true) }); err != nil {
			return err
		}
	}
	end := w.entries[len(w.entries)-1].Seq
	for part := range parts(w.entries, w.part) {
		last := part[len(part)-1].Seq
		var t *TLog
		err := w.log.buf.pool.withRoom(func() (err error) {
			t, err = w.rewritePart(ctx, part, last == end)
			return err
		})
		if err != nil {
			return err
		}
		w.scos = slices.DeleteFunc(w.scos, func(s *SCO) bool {
			mine := s.lastSeq <= last
			if mine {
				t.scos = append(t.scos, s)
			}
			return mine
		})
		w.tlogs = append(w.tlogs, t)
		w.entries = w.entries[len(part):]
	}
	return nil
}

// rewritePart makes a TLog of recovered entries, durable on return.
func (w *resuming) rewritePart(ctx context.Context, entries []tlog.Entry, end bool) (*TLog, error) {
	l := w.log
	id, err := w.freeTLog(ctx)
	if err != nil {
		return nil, err
	}
	t, err := l.folder.newTLog(id)
	if err != nil {
		return nil, err // nothing was written under the number
	}
	l.numbers.usedTLog(id)
	h := l.folder.header(id, entries[0].Seq)
	t.seed = tlog.SeedOf(h.Incarnation)
	b := tlog.AppendHeader(nil, h)
	for _, e := range entries {
		b = tlog.AppendEntry(b, t.seed, e)
	}
	last := entries[len(entries)-1].Seq
	if end {
		b = tlog.AppendEntry(b, t.seed, tlog.Entry{Kind: tlog.KindDurable, Seq: last})
	}
	b = tlog.AppendEntry(b, t.seed, tlog.Entry{Kind: tlog.KindSeal, Seq: last})
	if err = t.append(b); err == nil {
		t.note(entries[0].Seq, last)
		err = t.sync(&l.fate)
	}
	if err != nil {
		// Its entries are in the older TLogs, too.
		return nil, errors.Join(err, l.folder.removeTLog(t))
	}
	return &t.TLog, nil
}

// freeTLog returns the next TLog number, reserved. The caller says when it has made a
// file of it: from then on the number is never used again, even if a write to that
// file fails (O11).
func (w *resuming) freeTLog(ctx context.Context) (tlog.ID, error) {
	l := w.log
	id, reserved := l.numbers.freeTLog()
	if reserved {
		return id, nil
	}
	scos, tlogs := l.numbers.next()
	scos, tlogs, err := l.opt.Owner.Reserve(ctx, scos, tlogs)
	if err != nil {
		// Whatever it says of disks, it says nothing of this one.
		return 0, fmt.Errorf("no numbers of TLogs could be reserved: %v", err)
	}
	l.numbers.raise(scos, tlogs)
	return id, nil
}

// parts cuts entries into rows of not much more than size bytes, each the content of a
// TLog. It cuts only where no SCO has data on both sides: a TLog is stored with every
// SCO that it names, and an SCO is stored whole (O3).
func parts(entries []tlog.Entry, size int) iter.Seq[[]tlog.Entry] {
	last := make(map[sco.Number]int)
	for i, e := range entries {
		if e.Kind == tlog.KindWrite {
			last[e.Location.Number()] = i
		}
	}
	return func(yield func([]tlog.Entry) bool) {
		from, bytes, open := 0, 0, -1
		for i, e := range entries {
			if bytes >= size && i > open {
				if !yield(entries[from:i]) {
					return
				}
				from, bytes = i, 0
			}
			bytes += tlog.EntrySize + len(e.Payload)
			if e.Kind == tlog.KindWrite {
				open = max(open, last[e.Location.Number()])
			}
		}
		yield(entries[from:])
	}
}

// LocalTLog returns the entries of the local copy of a TLog that is in the backend, so
// that replay need not fetch it. It fails if the copy is missing or not whole.
func (b *Buffer) LocalTLog(opt RecoverOptions, id tlog.ID, lastSeq uint64) ([]tlog.Entry, error) {
	name := b.volumeDir(opt.Volume) + "/" + id.Name()
	f, err := b.opt.FS.OpenFile(name, 0, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	h, entries, _, err := tlog.Ordered(f, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	last := uint64(0)
	if n := len(entries); n > 0 {
		last = entries[n-1].Seq
	}
	if h.Volume != opt.Volume || h.ID != id || last != lastSeq {
		return nil, fmt.Errorf("%w: %s ends at seq %d, not %d", tlog.ErrCorrupt, name, last, lastSeq)
	}
	return entries, nil
}
