package fragmentcache

import "math/rand/v2"

// copyBytes bounds the memory for extents that have a second chance.
const copyBytes = 1 << 20

// writer is the goroutine that writes, and all that it alone knows.
type writer struct {
	c       *Cache
	numbers []uint64 // of the files found at Open, ascending
	next    uint64   // number of the next segment
	sealed  []*segment
	bytes   int64 // of the sealed segments

	// The open segment, if there is one: its extents, the next free block, and
	// what is to be written at block from.
	open    *segment
	entries []entry
	blocks  int
	from    int
	bufs    [][]byte
	writes  []write

	failures int      // since something was written
	left     []string // files that could not be removed

	index  []byte // scratch for a segment's index
	copied []byte
	found  []extent
}

// write is an extent that enters the index when its bytes are in the file.
type write struct {
	extent
	second bool // it moves there from extent.loc; otherwise it is new
	to     location
}

func (w *writer) run() {
	defer close(w.c.finished)
	if w.c.lock != nil {
		w.load()
	}
	var b *batch
	for b = w.c.queue.take(b); b != nil; b = w.c.queue.take(b) {
		w.put(b)
	}
	w.flush()
	w.seal()
	w.end()
}

// put appends those blocks of a batch that the cache does not have.
func (w *writer) put(b *batch) {
	w.yield(w.c.queue.owes())
	w.resume()
	for i := range b.items {
		it := &b.items[i]
		missing := it.run.mask() &^ w.c.index.present(it.fp)
		for first, n := nextRun(missing, 0); n > 0; first, n = nextRun(missing, first+n) {
			at := it.at + first - it.run.first()
			e := entry{fragment: it.fragment, first: it.first + first - it.run.first(), n: n}
			if !w.c.off.Load() && !w.room(int(n)) {
				w.rotate()
			}
			if w.c.off.Load() {
				w.c.stats.dropped.Add(uint64(n) * blockSize)
				continue
			}
			w.append(e, extent{fp: it.fp, run: makeRun(first, n)}, false, b.data[at*blockSize:(at+n)*blockSize], b.crcs[at:at+n])
		}
	}
	w.flush()
}

// room reports whether the open segment has room for an extent of n blocks.
func (w *writer) room(n int) bool {
	return w.open != nil && segmentSize(w.blocks+n, len(w.entries)+1) <= w.c.opt.SegmentBytes
}

// append adds an extent to the open segment, which has room. data is written by
// the next flush.
func (w *writer) append(e entry, x extent, second bool, data []byte, crcs []uint32) {
	e.at = uint32(w.blocks)
	copy(w.open.crcs[w.blocks-1:], crcs)
	w.entries = append(w.entries, e)
	w.writes = append(w.writes, write{extent: x, second: second, to: locate(w.open.slot, e.at)})
	w.blocks += int(e.n)
	if n := len(w.bufs); n > 0 && follows(w.bufs[n-1], data) {
		w.bufs[n-1] = w.bufs[n-1][:len(w.bufs[n-1])+len(data)]
		return
	}
	w.bufs = append(w.bufs, data)
}

// follows reports whether q lies in memory behind p.
func follows(p, q []byte) bool {
	return cap(p)-len(p) >= len(q) && &p[:len(p)+1][len(p)] == &q[0]
}

// flush writes what was appended, and enters it in the index.
func (w *writer) flush() {
	if len(w.writes) > 0 && !w.c.off.Load() {
		if _, err := w.open.file.WritevAt(w.bufs, int64(w.from)*blockSize); err != nil {
			w.turnOff(err)
		} else {
			w.failures = 0
		}
	}
	for i := range w.writes {
		x := &w.writes[i]
		n := uint64(x.run.n()) * blockSize
		switch {
		case w.c.off.Load():
			w.c.stats.dropped.Add(n)
		case x.second:
			if w.c.index.move(x.extent, x.to) {
				w.c.stats.kept.Add(n)
			}
		default:
			w.c.index.insert(x.fp, x.run, x.to)
			w.c.stats.written.Add(n)
		}
	}
	clear(w.bufs)
	w.bufs, w.writes, w.copied, w.from = w.bufs[:0], w.writes[:0], w.copied[:0], w.blocks
	w.count()
}

// seal ends the open segment.
func (w *writer) seal() {
	s := w.open
	if s == nil || w.c.off.Load() {
		return
	}
	w.index = appendIndex(w.index[:0], w.entries, s.crcs[:w.blocks-1], s.incarnation)
	if _, err := s.file.WriteAt(w.index, int64(w.blocks)*blockSize); err != nil {
		w.turnOff(err)
		return
	}
	s.size = segmentSize(w.blocks, len(w.entries))
	w.sealed = append(w.sealed, s)
	w.bytes += s.size
	w.open, w.entries, w.blocks, w.from = nil, w.entries[:0], 0, 0
	w.count()
}

// rotate seals the open segment, begins another, and evicts what there is no more room for
// beside it. Until the evicted segments are removed, the files may be half a segment
// longer; room for a whole one is kept free for that.
func (w *writer) rotate() {
	w.flush()
	w.seal()
	if w.c.off.Load() {
		return
	}
	slot, ok := w.freeSlot()
	if !ok { // the files are all small: as after many starts
		if !w.evict(w.sealed[0], false) {
			return
		}
		slot, _ = w.freeSlot()
	}
	s, err := createSegment(w.c.opt.FS, w.c.opt.Dir, w.next, rand.Uint64())
	w.next++
	if err != nil {
		w.turnOff(err)
		w.left = append(w.left, segmentName(w.c.opt.Dir, w.next-1))
		return
	}
	s.slot, s.crcs = slot, make([]uint32, w.c.opt.SegmentBytes/blockSize)
	w.c.segments[slot].Store(s)
	w.c.stats.checksumBytes.Add(4 * int64(len(s.crcs)))
	w.open, w.blocks, w.from = s, 1, 1
	for w.bytes > w.budget() && len(w.sealed) > 0 {
		if !w.evict(w.sealed[0], true) {
			return
		}
	}
}

// budget is what the sealed segments may take, in bytes, while another is filled. Before
// that they may take one segment more.
func (w *writer) budget() int64 { return w.c.opt.Bytes - 2*w.c.opt.SegmentBytes }

func (w *writer) freeSlot() (int, bool) {
	for i := range w.c.segments {
		if w.c.segments[i].Load() == nil {
			return i, true
		}
	}
	return 0, false
}

// count brings the figures up to date.
func (w *writer) count() {
	bytes, n := w.bytes, len(w.sealed)
	if w.open != nil {
		bytes, n = bytes+int64(w.blocks)*blockSize, n+1
	}
	w.c.stats.bytes.Store(bytes)
	w.c.stats.segments.Store(int64(n))
}

// end releases the segments. Gets that read them go on.
func (w *writer) end() {
	w.c.index.clear()
	for i := range w.c.segments {
		if s := w.c.segments[i].Swap(nil); s != nil {
			s.release()
		}
	}
	w.c.stats.checksumBytes.Store(0)
}
