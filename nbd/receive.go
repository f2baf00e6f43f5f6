package nbd

import "openvstorage/device"

// The payload of a large WRITE gets memory of its own. That is taken as the bytes arrive,
// not when they are announced, so a client that sends heads alone makes the server hold next
// to nothing. A long payload is given to the device in pieces, so that even the longest needs
// no more memory than a connection may always have.

// incoming is the WRITE whose payload is being received, the reader's own.
type incoming struct {
	on    bool
	req   Request
	got   int   // bytes of the payload, all pieces
	whole *task // of a WRITE in pieces: the task that answers; its left counts the reader too

	part *task // the piece
	room int   // of its buffers together
	buf  *buffer
	fill int // bytes of buf that are for the payload
	n    int // bytes of these that have come
}

// done tells whether nothing of the payload is missing.
func (w *incoming) done() bool { return w.got == int(w.req.Length) }

// beginBig begins a WRITE whose payload is received into buffers of its own. Only the bytes
// that came along with the head are copied.
func (c *reader) beginBig(req Request) error {
	w := &c.big
	*w = incoming{on: true, req: req}
	if req.Length+req.Offset%PreferredBlock > pieceMax { // with what setFill leaves out
		if w.whole = c.acquire(0, nil); w.whole == nil {
			w.on = false
			return c.failure()
		}
		w.whole.req, w.whole.left = req, 1
	}
	c.limit = headRead // the next is likely to be large too
	if err := c.nextBuffer(); err != nil {
		return err
	}
	for c.r < c.w && w.on {
		n := copy(w.buf.b[w.n:w.fill], c.in.b[c.r:c.w])
		c.r += n
		if err := c.receivedBig(n); err != nil {
			return err
		}
	}
	return nil
}

// nextBuffer gets memory for the next bytes: as much as has come of the payload already, or
// as has come on this connection within the second. A client that sends fast gets larger
// buffers.
func (c *reader) nextBuffer() error {
	w := &c.big
	left, n := int(w.req.Length)-w.got, firstBuffer
	if come := max(w.got, int(min(c.received-c.ticked, pieceMax))); come > n {
		n = come
	}
	n = min(floorPower(min(n, pieceMax-w.room)), classSize(left))
	if w.part == nil {
		if w.part = c.acquire(n, w.whole); w.part == nil {
			return c.failure()
		}
		w.part.commit, w.part.whole = true, w.whole
		if w.whole == nil {
			w.part.reqs = append(w.part.reqs, w.req)
		} else {
			c.mu.Lock()
			w.whole.left++
			c.mu.Unlock()
		}
		w.buf, w.part.buf = w.part.buf, nil
	} else if w.buf = c.more(w.part, n); w.buf == nil {
		return c.failure()
	}
	w.room += len(w.buf.b)
	w.n = 0
	c.setFill()
	return nil
}

// floorPower is the largest power of two up to n.
func floorPower(n int) int {
	size := classSize(n)
	if size > n {
		size /= 2
	}
	return size
}

// setFill makes every buffer but the last end where a cluster of the device ends, so that no
// cluster is written in two parts.
func (c *reader) setFill() {
	w := &c.big
	start := w.got - w.n
	w.fill = len(w.buf.b)
	if left := int(w.req.Length) - start; w.fill >= left {
		w.fill = left
		return
	}
	w.fill -= int((w.req.Offset + uint64(start)) % PreferredBlock)
}

// receivedBig takes n more bytes in the buffer. With the last one of a piece the
// piece is written.
func (c *reader) receivedBig(n int) error {
	w := &c.big
	w.n += n
	w.got += n
	if w.n < w.fill {
		return nil
	}
	t := w.part
	t.spans = append(t.spans, device.Span{Off: int64(w.req.Offset) + int64(w.got-w.fill), Data: w.buf.b[:w.fill]})
	t.bufs = append(t.bufs, w.buf)
	w.buf = nil
	switch {
	case w.done():
		return c.endBig()
	case w.whole == nil || pieceMax-w.room >= firstBuffer:
		return c.nextBuffer() // of the same piece
	}
	w.part, w.room = nil, 0
	if err := c.startPiece(t); err != nil {
		return err
	}
	return c.nextBuffer()
}

// startPiece writes a piece, or has a worker do it. An error says that the client has hung
// up, and that the piece was dropped.
func (c *reader) startPiece(t *task) error {
	if err := c.begin(); err != nil {
		c.abandon(t)
		return err
	}
	defer c.ownTime() // the device's
	// Measured: a payload is cheapest to copy on the CPU that has it in its cache.
	if t.whole != nil || t.reqs[0].Flags&FlagFUA == 0 {
		if err := c.disk.TryWrite(t.spans); err != device.ErrWouldBlock {
			if t.whole == nil {
				c.inline(t.reqs[0], err)
				c.abandon(t)
			} else {
				t.endPiece(err)
			}
			return nil
		}
	}
	t.change()
	c.srv.workers.run(t)
	return nil
}

// endBig writes the last piece.
func (c *reader) endBig() error {
	w := c.big
	c.big = incoming{}
	c.parsed++
	c.in.round.counts[CmdWrite]++
	c.in.round.written += w.req.Length
	if err := c.startPiece(w.part); err != nil {
		c.dropWhole(w.whole)
		return err
	}
	if w.whole == nil {
		return nil
	}
	c.mu.Lock()
	w.whole.left--
	last, err := w.whole.left == 0, w.whole.failed
	c.mu.Unlock()
	switch {
	case !last: // the last of the workers answers
	case err == nil && w.req.Flags&FlagFUA != 0:
		c.srv.workers.run(w.whole)
	default:
		c.inline(w.req, err)
		c.abandon(w.whole)
	}
	return nil
}

// dropBig gives up a WRITE of which not all has come.
func (c *reader) dropBig() {
	w := c.big
	c.big = incoming{}
	if !w.on {
		return
	}
	if w.part != nil {
		if w.buf != nil {
			w.part.bufs = append(w.part.bufs, w.buf)
		}
		c.abandon(w.part)
	}
	c.dropWhole(w.whole)
}

// dropWhole gives up the task of a WRITE in pieces, which is not answered.
func (c *conn) dropWhole(t *task) {
	if t == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropPieceLocked(t)
}

// dropPieceLocked notes that a piece of a WRITE will not come. whole is the task that would
// have answered.
func (c *conn) dropPieceLocked(whole *task) {
	whole.dropped = true
	whole.left--
	if whole.left == 0 {
		c.abandonLocked(whole)
	}
}

// endPiece ends the task of a piece. The last piece to end answers the WRITE; while payload
// is still being received, the reader counts as one more piece.
func (t *task) endPiece(err error) {
	c, whole := t.c, t.whole
	c.mu.Lock()
	if whole.failed == nil {
		whole.failed = err
	}
	whole.left--
	last := whole.left == 0
	answers := last && !whole.dropped
	if last && whole.dropped {
		c.abandonLocked(whole)
	}
	t.whole = nil
	c.abandonLocked(t)
	c.mu.Unlock()
	if answers {
		whole.run()
	}
}

// runWhole answers a WRITE all pieces of which are done.
func (t *task) runWhole() {
	err := t.failed
	if err == nil && t.req.Flags&FlagFUA != 0 {
		err = t.c.flushDisk()
	}
	t.finish(t.req, err)
}

// shrinkBig copies the little that has come of a payload into a smaller buffer, as the client
// is slow.
func (c *reader) shrinkBig() {
	w := &c.big
	need := w.n + PreferredBlock // setFill must leave room for a byte
	if !w.on || w.buf == nil || classSize(need) >= len(w.buf.b) {
		return
	}
	small := c.srv.buffers.get(need)
	copy(small.b, w.buf.b[:w.n])
	less := int64(len(w.buf.b) - len(small.b))
	c.srv.buffers.put(w.buf)
	c.mu.Lock()
	w.part.charge -= charge(less)
	c.unchargeLocked(charge(less))
	c.mu.Unlock()
	w.buf = small
	w.room -= int(less)
	c.setFill()
}
