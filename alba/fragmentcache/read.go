package fragmentcache

import "math/bits"

// plan is what a get reads: pieces of segments. It holds a reference to each segment.
type plan struct {
	pieces [2 * runMax]piece
	n      int
}

// piece is a run of blocks in one segment. All are in blocks.
type piece struct {
	seg   *segment
	block uint32 // in the segment
	at    uint32 // in what was asked for
	n     uint32
}

// room reports whether another page's pieces fit.
func (pl *plan) room() bool { return pl.n <= len(pl.pieces)-runMax }

// add adds a piece and takes the reference, or makes the last piece longer.
func (pl *plan) add(p piece) {
	if pl.n > 0 {
		last := &pl.pieces[pl.n-1]
		if last.seg == p.seg && last.block+last.n == p.block && last.at+last.n == p.at {
			last.n += p.n
			return
		}
	}
	p.seg.acquire()
	pl.pieces[pl.n] = p
	pl.n++
}

func (pl *plan) release() {
	for i := range pl.pieces[:pl.n] {
		pl.pieces[i].seg.release()
	}
	pl.n = 0
}

// lookup adds the pieces of a part, which lies at block at of what was asked for. It returns
// false if not all of the part is there. While the shard is locked, the writer's reference
// keeps each segment that an extent of the shard lies in.
func (c *Cache) lookup(pl *plan, p part, at uint32) bool {
	want := p.run.mask()
	s := c.index.shard(p.fp)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, ok := s.first(p.fp); ok && want != 0; i, ok = s.find(p.fp, s.next(i)) {
		r, l := s.runs[i], s.locs[i]
		have := r.mask() & want // one run, as both are
		if have == 0 {
			continue
		}
		seg := c.segments[l.slot()].Load()
		if seg == nil {
			return false
		}
		first := uint32(bits.TrailingZeros32(have))
		pl.add(piece{seg: seg, block: l.block() + first - r.first(), at: at + first - p.run.first(), n: uint32(bits.OnesCount32(have))})
		s.locs[i] = l | hit
		want &^= have
	}
	return want == 0
}

// read reads the pieces and releases them. Pages that the disk fails to give are dropped.
func (c *Cache) read(pl *plan, f fragment, p []byte, crcs []uint32) bool {
	defer pl.release()
	for i := range pl.pieces[:pl.n] {
		x := &pl.pieces[i]
		if err := readFull(x.seg.file, p[x.at*blockSize:][:x.n*blockSize], int64(x.block)*blockSize); err != nil {
			return c.readFailed(x.seg, err)
		}
		copy(crcs[x.at:][:x.n], x.seg.crcs[x.block-1:])
	}
	return true
}

// readFailed counts an error of a segment, and logs the first of each segment.
func (c *Cache) readFailed(s *segment, err error) bool {
	c.stats.readErrors.Add(1)
	if !s.failed.Swap(true) {
		c.opt.Logger.Warn("the fragment cache cannot read a segment; what it cannot read is missed", "file", s.name, "err", err)
	}
	return false
}
