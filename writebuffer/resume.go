package writebuffer

import (
	"errors"
	"fmt"

	"openvstorage/sco"
	"openvstorage/tlog"
)

// Resume takes over what Recover found, once the new epoch is in the catalog:
// the entries go to a TLog of this epoch, synced, before any older file is
// given up (O11). Call it before the first append.
func (l *Log) Resume(r *Recovered) error {
	if err := l.adopt(r, true); err != nil {
		return errors.Join(err, r.Release())
	}
	if len(r.Entries) > 0 {
		if err := l.rewrite(r.Entries); err != nil {
			return err
		}
	}
	for _, t := range r.tlogs {
		if t.err == nil && r.opt.Keep(t.id) {
			f, err := l.buf.opt.FS.OpenFile(t.name, 0, 0)
			if err != nil {
				return err
			}
			l.closed = append([]*TLog{{ID: t.id, file: f, name: t.name, stored: true}}, l.closed...)
			continue
		}
		if err := l.buf.opt.FS.Remove(t.name); err != nil {
			return err
		}
	}
	l.changed()
	l.kick(l.syncer)
	return nil
}

// Inspect takes what Recover found for reading only: the vDisk is halted, and
// its files stay as they are for whoever repairs it.
func (l *Log) Inspect(r *Recovered) error { return l.adopt(r, false) }

// adopt puts the SCOs that hold something into the table. The others are
// recycled, if that is allowed.
func (l *Log) adopt(r *Recovered, recycle bool) error {
	blocks := make(map[sco.Number]*SCO)
	t := l.table.Load()
	for _, f := range r.scos {
		s, stored := f.restore(l, r)
		if s == nil {
			if !recycle {
				continue
			}
			if err := f.file.Close(); err != nil {
				return err
			}
			f.file = nil
			if f.header.Volume != r.opt.Volume {
				// Another vDisk's before: a crash may have left it two names.
				l.buf.discardFile(f.name)
				continue
			}
			l.buf.recycle(f.name, true)
			continue
		}
		f.file = nil // it is the SCO's now
		t = t.with(f.number, s)
		blocks[f.number] = s
		if stored {
			s.stored = true
			l.buf.dirty.Add(1) // offer takes it back
			l.buf.offer(s, l.opt.HoldStored)
			continue
		}
		l.buf.dirty.Add(1)
		l.unsynced = append(l.unsynced, s)
		l.sealed = append(l.sealed, s)
	}
	for _, e := range r.Entries {
		if e.Kind != tlog.KindWrite {
			continue
		}
		s := blocks[e.Location.Number()]
		if s == nil {
			continue // damaged: reading it fails
		}
		for i := range int(e.Run) {
			at := e.Location.Index() - 1 + i
			s.blocks.Sums[at], s.blocks.Addrs[at], s.blocks.Seqs[at] = e.Sum(i), e.Addr+uint64(i), e.Seq
		}
		s.last = e.Location.Index() + int(e.Run) - 1
		s.data += int(e.Run)
		s.lastSeq, s.covers = e.Seq, e.Seq
		s.used.Store(int32(s.last))
	}
	l.table.Store(t)
	return nil
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
	s.syncing.done = true
	s.synced.Store(true)
	return s, true
}

// rewrite puts the recovered entries into a closed TLog of this epoch.
func (l *Log) rewrite(entries []tlog.Entry) error {
	id := l.numbers.tlog
	l.numbers.tlog++
	t, err := l.newTLog(id)
	if err != nil {
		return err
	}
	h := tlog.Header{Volume: l.opt.Volume, ID: id, Incarnation: l.buf.opt.Random(), Epoch: l.opt.Epoch, FirstSeq: entries[0].Seq}
	t.seed = tlog.SeedOf(h.Incarnation)
	b := tlog.AppendHeader(nil, h)
	for _, e := range entries {
		b = tlog.AppendEntry(b, t.seed, e)
	}
	last := entries[len(entries)-1].Seq
	b = tlog.AppendEntry(b, t.seed, tlog.Entry{Kind: tlog.KindSeal, Seq: last})
	if err := t.append(b); err != nil {
		return errors.Join(err, t.file.Close())
	}
	t.note(entries[0].Seq, last)
	if err := t.sync(l); err != nil {
		return err
	}
	// Their entries are durable in this TLog; their data must be as well
	// before anything newer is acknowledged as durable.
	for _, s := range l.unsynced {
		if err := s.sync(); err != nil {
			return err
		}
	}
	l.unsynced = nil
	t.scos = l.sealed
	l.unstored = append(l.unstored, l.sealed...)
	l.sealed = nil
	l.closed = append(l.closed, &t.TLog)
	l.opt.Applier.ClosedTLog(id, last)
	return nil
}

// LocalTLog returns the bytes of a local TLog that the catalog has too, if it
// is there and whole, so that replay need not fetch it.
func (b *Buffer) LocalTLog(opt RecoverOptions, id tlog.ID, lastSeq uint64) ([]byte, error) {
	name := b.volumeDir(opt.Volume) + "/" + id.Name()
	data, err := readFile(b.opt.FS, name)
	if err != nil {
		return nil, err
	}
	last := uint64(0)
	h, end, _, err := tlog.Scan(data, func(_ int64, e tlog.Entry) error {
		if e.Kind.Ordered() {
			last = e.Seq
		}
		return nil
	})
	if err == nil && (h.Volume != opt.Volume || h.ID != id || last != lastSeq) {
		err = fmt.Errorf("%w: %s ends at seq %d, not %d", tlog.ErrCorrupt, name, last, lastSeq)
	}
	if err != nil {
		return nil, err
	}
	return data[:end], nil
}
