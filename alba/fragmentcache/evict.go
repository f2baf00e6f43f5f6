package fragmentcache

import (
	"errors"
	"io/fs"
)

// evict appends the extents of the oldest sealed segment that were hit to the open segment,
// and then removes the old one. It returns false if writing was turned off meanwhile: the
// segment is still there then, though the index may lack some of its extents.
func (w *writer) evict(s *segment, second bool) bool {
	if err := w.rescue(s, second); err != nil {
		w.c.readFailed(s, err)
		w.flush()
		w.c.index.sweep(s.slot)
	}
	w.flush()
	if w.c.off.Load() {
		return false
	}
	w.shed()
	return !w.c.off.Load()
}

// shed removes the oldest segment, of which nothing is in the index any more.
func (w *writer) shed() {
	s := w.sealed[0]
	w.sealed = append(w.sealed[:0], w.sealed[1:]...)
	w.bytes -= s.size
	w.c.segments[s.slot].Store(nil)
	w.c.stats.checksumBytes.Add(-4 * int64(len(s.crcs)))
	w.c.stats.evicted.Add(uint64(s.size))
	s.release()
	w.remove(s.name)
	w.count()
}

// yield removes the oldest segments, n bytes, even while writing is turned off. No extent of
// them is kept.
func (w *writer) yield(n int64) {
	for n > 0 && len(w.sealed) > 0 {
		s := w.sealed[0]
		n -= s.size
		w.c.index.sweep(s.slot)
		w.shed()
	}
}

// remove removes a file. If that fails, nothing more is written before the file is gone:
// the cache would exceed its bound.
func (w *writer) remove(name string) {
	if err := w.c.opt.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.left = append(w.left, name)
		w.turnOff(err)
	}
}

// rescue takes the extents of a segment out of the index, except those that it appends to
// the open segment: they move when they are written.
func (w *writer) rescue(s *segment, second bool) error {
	foot, index, err := s.readIndex(w.index)
	w.index = index
	if err != nil {
		return err
	}
	for i := range foot.entries {
		e, err := foot.decodeEntry(index, i)
		if err != nil {
			return err
		}
		for done := uint32(0); done < e.n; {
			p := w.c.part(e.fragment, e.first+done, e.n-done)
			w.found = w.c.index.claim(w.found[:0], p.fp, locate(s.slot, e.at+done), p.run.n())
			for _, x := range w.found {
				page := p.first - p.run.first()
				if !second || !w.again(s, entry{fragment: e.fragment, first: page + x.run.first(), n: x.run.n()}, x) {
					w.c.index.forget(x)
				}
			}
			done += p.run.n()
		}
	}
	return nil
}

// again appends an extent of another segment to the open one, if that is not half full yet.
// It does not check the bytes: whoever gets them does.
func (w *writer) again(s *segment, e entry, x extent) bool {
	n := int(e.n)
	if w.c.off.Load() || !w.room(n) || segmentSize(w.blocks+n, len(w.entries)+1) > w.c.opt.SegmentBytes/2 {
		return false
	}
	if w.copied == nil {
		w.copied = make([]byte, 0, copyBytes)
	}
	at := len(w.copied)
	if at+n*blockSize > cap(w.copied) {
		w.flush()
		at = 0
	}
	data := w.copied[at : at+n*blockSize]
	block := x.loc.block()
	if err := readFull(s.file, data, int64(block)*blockSize); err != nil {
		return w.c.readFailed(s, err)
	}
	w.copied = w.copied[:at+len(data)]
	w.append(e, x, true, data, s.crcs[block-1:][:n])
	return true
}
