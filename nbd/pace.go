package nbd

import "time"

// A connection that waits for its client gives back what it holds, step by step. All steps
// are driven by the read deadline, which is set once a second at most, so that a request
// costs nothing.

// tick is how long a quiet connection keeps its scratch memory, and how long one that has
// sent a part of a request keeps the buffer for the rest.
const tick = time.Second

// pace is the reader's own.
type pace struct {
	armed   bool   // the read deadline is set
	ticked  uint64 // reader.received when it was last looked at
	trimmed bool   // there is no scratch memory

	// The request of which a part has come, if there is one.
	request  uint64        // reader.parsed: which one
	waited   time.Duration // for the client, within this stall time
	from     uint64        // reader.received when this stall time began
	underWay bool
}

// ownTime is called by the reader when it has waited for something other than its client.
// That time does not count against the client, whose bytes came no further than the socket.
// So its stall time begins anew.
func (p *pace) ownTime() { p.underWay = false }

// target is where the socket puts the bytes that it receives: first the payload being
// received, then the receive buffer. That buffer is held only while it is in use.
func (c *reader) target() (a, b []byte) {
	if c.in == nil {
		c.in = c.srv.buffers.get(ioBuffer)
		c.r, c.w = 0, 0
		if c.in.round == nil {
			c.in.round = new(round)
		}
	}
	if c.big.on {
		// The receive buffer is empty now. A little of it is offered for the head of
		// the next request.
		a = c.big.buf.b[c.big.n:c.big.fill]
		if c.big.got-c.big.n+c.big.fill == int(c.big.req.Length) {
			b = c.in.b[:min(headRead, len(c.in.b))]
		}
		return a, b
	}
	if c.w == len(c.in.b) && c.w < ioBuffer {
		c.growIn()
	}
	return c.in.b[c.w:min(c.w+c.limit, len(c.in.b))], nil
}

// held reports whether inline replies wait for the socket to run empty.
func (c *reader) held() bool { return c.outN > 0 }

// idle gives the buffers back before the reader waits, and sets the deadline if
// there is something left to be looked at later.
func (c *reader) idle() {
	if c.in != nil && (c.r == c.w || c.big.on) {
		c.srv.buffers.put(c.in)
		c.in = nil
		c.r, c.w = 0, 0
	}
	if c.out != nil { // empty: the round was sent
		c.srv.buffers.put(c.out)
		c.out = nil
	}
	if !c.armed && (!c.trimmed || c.partial()) {
		c.armed = true
		_ = c.setReadDeadline(time.Now().Add(c.tick())) // if closed, the read tells
	}
}

// deadline is called when the read deadline has passed, be it that of stop or a tick.
func (c *reader) deadline() error {
	if c.stopping.Load() {
		return errStopping
	}
	c.armed = false
	quiet := c.received == c.ticked
	c.ticked = c.received
	if !c.partial() {
		c.underWay = false
		if quiet {
			c.trim()
		}
		return c.setReadDeadline(time.Time{})
	}
	if c.stalled() {
		return errStalled
	}
	c.shrinkIn()
	c.shrinkBig()
	return c.setReadDeadline(time.Time{})
}

// tick is how far away the read deadline is set.
func (c *conn) tick() time.Duration { return min(tick, c.srv.limits.StallTimeout) }

// stalled tells, at a tick, whether the client has sent less of a request than it must
// within the stall time. It counts ticks and not the time between them, as in the rest of
// that time the server was at work. A client with unread bytes in the socket is not late:
// the deadline also passes for a reader that is busy elsewhere.
func (c *reader) stalled() bool {
	stall := c.srv.limits.StallTimeout
	c.waited += c.tick()
	switch {
	case !c.underWay || c.request != c.parsed:
		c.underWay, c.request = true, c.parsed
	case c.waited < stall:
		return false
	case c.received-c.from < c.srv.limits.perStall() && !c.unread():
		return true
	}
	c.from, c.waited = c.received, 0
	return false
}

// unread tells whether there is something in the socket, if that can be told.
func (c *reader) unread() bool {
	if c.sock.raw == nil {
		return false
	}
	_, empty := c.peer.check(c.sock)
	return !empty
}

// trim lets go of scratch memory, if nothing is under way.
func (c *reader) trim() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.inflight == 0 && !c.mu.sending && c.mu.queue.empty() && c.mu.err == nil {
		c.trimLocked()
		c.trimmed = true
	}
}

// shrinkIn gives a request of which little has come a small buffer.
func (c *reader) shrinkIn() {
	if c.in != nil && c.r < c.w && classSize(c.w-c.r) < len(c.in.b) {
		c.moveIn(c.w - c.r)
	}
}

// growIn gives a request that has filled its small buffer a larger one.
func (c *reader) growIn() { c.moveIn(2 * len(c.in.b)) }

// moveIn moves what is not parsed yet to a receive buffer for n bytes.
func (c *reader) moveIn(n int) {
	b := c.srv.buffers.get(n)
	if b.round == nil {
		b.round = new(round)
	}
	c.r, c.w = 0, copy(b.b, c.in.b[c.r:c.w])
	c.srv.buffers.put(c.in)
	c.in = b
}
