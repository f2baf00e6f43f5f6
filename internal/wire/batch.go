package wire

// Sizes of a batch.
const (
	scratchSize   = 64 << 10  // for heads, and what is copied behind them
	copyMax       = 8 << 10   // headers and pieces up to this are copied; longer ones are written from where they lie
	copyBytes     = 40 << 10  // no further message is taken once so much is to be copied
	batchBytes    = 256 << 10 // or once there is so much in all
	batchFrames   = 256
	clientBatches = 8 // of clients, between two frames of maintenance
)

// batch is what is written at once. It belongs to the one who writes.
type batch struct {
	frames []frame
	gone   []*message // whose last frame is in it
	size   int        // bytes in all
	copied int        // of them, by way of scratch
	last   bool       // the farewell is in it
	free   []*message // scratch of settled

	segs       segments
	pieces     [][]byte
	scratch    []byte
	from, used int // what of scratch is no segment yet
}

// frame is one frame of a batch.
type frame struct {
	h     head
	m     *message // nil: there is no body
	from  int      // of the body
	words string   // header of a goodbye
}

// more reports whether there is something to send. The sender's lock is held here, and in
// all that follows up to settled.
func (s *sender) more() bool {
	if s.closing && len(s.last) == 0 { // nothing goes behind the farewell
		return false
	}
	if len(s.control) > 0 || len(s.last) > 0 {
		return true
	}
	for i := range s.small {
		if s.small[i].len() > 0 || s.large[i].len() > 0 {
			return true
		}
	}
	for i, n := range s.grants {
		if n >= s.grantAt[i] {
			return true
		}
	}
	return false
}

// pick takes the next batch from the queues: signals, then clients, then maintenance if
// there are no clients or it is its turn, and the farewell when nothing else is left.
func (s *sender) pick() {
	b := &s.batch
	for i, n := range s.grants {
		if n >= s.grantAt[i]/2 {
			b.add(frame{h: head{kind: kindWindow, op: uint16(i), word: uint32(n)}})
			s.grants[i] = 0
		}
	}
	n := min(len(s.control), batchFrames/2)
	for _, h := range s.control[:n] {
		b.add(frame{h: h})
	}
	s.control = s.control[:copy(s.control, s.control[n:])]
	switch {
	case !s.take(Client):
		s.passed = 0
		for s.one(Maintenance) && b.size < pieceMax/4 { // a client may come at any time
		}
	case s.passed < clientBatches-1:
		s.passed++
	case s.one(Maintenance):
		s.passed = 0
	}
	if len(s.last) > 0 && len(b.frames) == 0 {
		b.add(s.last[0])
		s.last, b.last = nil, true
	}
}

// take adds messages of a priority until the batch is full: first the small ones, then
// pieces of the large ones, one at least.
func (s *sender) take(p Priority) bool {
	b, before := &s.batch, len(s.batch.frames)
	for s.small[p].len() > 0 && b.size < batchBytes && b.copied < copyBytes && len(b.frames) < batchFrames {
		s.give(s.small[p].pop())
	}
	for one := true; s.large[p].len() > 0 && (one || b.size < batchBytes); one = false {
		s.give(s.large[p].pop())
	}
	return len(b.frames) > before
}

// one adds one frame of a priority, of a small message and of a large one by turns.
func (s *sender) one(p Priority) bool {
	small, large := &s.small[p], &s.large[p]
	switch {
	case small.len() == 0 && large.len() == 0:
		return false
	case small.len() == 0, large.len() > 0 && !s.turned:
		s.turned = true
		s.give(large.pop())
	default:
		s.turned = false
		s.give(small.pop())
	}
	return true
}

// give adds the next frame of m.
func (s *sender) give(m *message) {
	f := frame{h: m.h, m: m, from: m.given}
	f.h.piece = min(pieceMax, m.h.body-uint32(m.given))
	if m.given > 0 {
		f.h = head{kind: kindPiece, flags: m.h.flags, priority: m.h.priority, id: m.h.id, body: m.h.body, piece: f.h.piece}
	}
	m.given += int(f.h.piece)
	s.batch.add(f)
	if m.given < int(m.h.body) {
		m.state = begun
		s.large[m.h.priority].push(m)
		return
	}
	m.state = whole
	s.batch.gone = append(s.batch.gone, m)
}

func (b *batch) add(f frame) {
	b.frames = append(b.frames, f)
	b.size += headSize + int(f.h.header) + int(f.h.piece)
	b.copied += headSize
	if f.h.header <= copyMax {
		b.copied += int(f.h.header)
	}
	if f.h.piece <= copyMax {
		b.copied += int(f.h.piece)
	}
}

// holds reports whether a frame of m is in the batch.
func (b *batch) holds(m *message) bool {
	for i := range b.frames {
		if b.frames[i].m == m {
			return true
		}
	}
	return false
}

// settled empties the batch that has left. It returns the messages whose bodies are not
// read any more, for the caller to release without the lock, and whether the farewell has
// left.
func (s *sender) settled() (free []*message, last bool) {
	b := &s.batch
	free, last = b.free[:0], b.last && s.err == nil
	for i := range b.frames {
		m := b.frames[i].m
		if m != nil && !m.freed && (m.state == whole || m.state == withdrawn || s.err != nil) {
			m.freed = true
			free = append(free, m)
		}
	}
	clear(b.frames)
	clear(b.gone)
	clear(b.segs)
	b.frames, b.gone, b.free = b.frames[:0], b.gone[:0], free
	b.size, b.copied, b.last = 0, 0, false
	return free, last
}

// build makes the bytes of the batch: what is short is copied together, the rest is
// taken from where it lies.
func (b *batch) build() segments {
	for _, m := range b.gone {
		if m.gone != nil {
			m.gone(m)
		}
	}
	b.segs, b.from, b.used = b.segs[:0], 0, 0
	for i := range b.frames {
		f := &b.frames[i]
		b.pieces = b.pieces[:0]
		header := []byte(f.words)
		if f.m != nil {
			if f.h.piece > 0 {
				b.pieces = f.m.body.between(b.pieces, f.from, int(f.h.piece))
			}
			if f.h.kind != kindPiece {
				header = f.m.header
			}
		}
		if f.h.flags&flagSummed != 0 {
			f.h.pieceSum = sumOf(b.pieces)
		}
		b.room(headSize)
		f.h.put(b.scratch[b.used:])
		b.used += headSize
		b.put(header, len(header) <= copyMax)
		for _, p := range b.pieces {
			b.put(p, f.h.piece <= copyMax)
		}
	}
	b.cut()
	clear(b.pieces)
	return b.segs
}

// put adds bytes, by a copy or from where they lie.
func (b *batch) put(p []byte, short bool) {
	switch {
	case len(p) == 0:
	case short:
		b.room(len(p))
		b.used += copy(b.scratch[b.used:], p)
	default:
		b.cut()
		b.segs = append(b.segs, p)
	}
}

// room makes room in scratch. The old one, if it is full, stays with its segments.
func (b *batch) room(n int) {
	if len(b.scratch)-b.used < n {
		b.cut()
		b.scratch, b.from, b.used = make([]byte, scratchSize), 0, 0
	}
}

// cut makes a segment of what was copied since the last one.
func (b *batch) cut() {
	if b.used > b.from {
		b.segs = append(b.segs, b.scratch[b.from:b.used:b.used])
		b.from = b.used
	}
}
