package fragmentcache

import (
	"errors"
	"slices"
)

// load finds what the sealed segments have, newest first. It removes segments that are
// damaged, unfinished, or more than there is room for. It also removes those of a newer
// release: they take room, and everything in a cache is also elsewhere.
func (w *writer) load() {
	slot := 0
	for _, number := range slices.Backward(w.numbers) {
		if w.c.closing.Load() {
			w.stop() // nothing is written beside files that were not counted
			break
		}
		s, err := w.loadSegment(number, slot)
		if err != nil {
			name := segmentName(w.c.opt.Dir, number)
			if !errors.Is(err, errRoom) {
				w.c.opt.Logger.Warn("the fragment cache removes a segment that is not whole", "file", name, "err", err)
			}
			w.remove(name)
			continue
		}
		w.sealed = append(w.sealed, s)
		w.bytes += s.size
		w.c.stats.checksumBytes.Add(4 * int64(len(s.crcs)))
		slot++
		w.count()
	}
	slices.Reverse(w.sealed)
	w.index = nil
	w.numbers = nil
}

// errRoom is the error of a segment for which younger ones have left no room.
var errRoom = errors.New("there is no room for the segment")

func (w *writer) loadSegment(number uint64, slot int) (*segment, error) {
	s, err := openSegment(w.c.opt.FS, w.c.opt.Dir, number)
	if err != nil {
		return nil, err
	}
	if err := w.adopt(s, slot); err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

// adopt enters all extents of a segment in the index, or none.
func (w *writer) adopt(s *segment, slot int) error {
	if w.bytes+s.size > w.budget()+w.c.opt.SegmentBytes || slot >= slotMax-1 {
		return errRoom
	}
	foot, index, err := s.readIndex(w.index)
	w.index = index
	if err != nil {
		return err
	}
	for i := range foot.entries {
		if _, err := foot.decodeEntry(index, i); err != nil {
			return err
		}
	}
	s.slot, s.crcs = slot, foot.decodeCRCs(make([]uint32, 0, foot.blocks-1), index)
	w.c.segments[slot].Store(s)
	w.insert(s, foot, index)
	return nil
}

// insert enters the extents of a checked segment in the index. It cuts them at the borders
// of pages: PageBytes may have been another when they were written.
func (w *writer) insert(s *segment, foot footer, index []byte) {
	for i := range foot.entries {
		e, _ := foot.decodeEntry(index, i)
		for done := uint32(0); done < e.n; {
			p := w.c.part(e.fragment, e.first+done, e.n-done)
			w.c.index.insert(p.fp, p.run, locate(s.slot, e.at+done))
			done += p.run.n()
		}
	}
}
