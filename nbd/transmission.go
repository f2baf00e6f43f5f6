package nbd

import "time"

// round is what was parsed from the receive buffer and is answered together.
// Writes come first, as one batch, so that a flush of the same round covers
// them too; the protocol leaves the order of requests in flight to the server.
type round struct {
	writes  []Request
	spans   []Span    // their payloads, in the receive buffer
	flushes []Request // FLUSH, and later the FUA writes that are done
	tasks   []Request // what always goes to a worker
	reads   []Request // served inline if the device can

	counts        [commands]uint64
	read, written uint64
	errors        uint64
}

// holdReplies is how many bytes of inline replies wait for more requests to be
// answered with them.
const holdReplies = 64 << 10

// target is where the socket puts what it receives: the payload being
// received, then the receive buffer, which is held only while it has work.
func (c *conn) target() (a, b []byte) {
	if c.in == nil {
		c.in = c.srv.buffers.get(ioBuffer)
		c.r, c.w = 0, 0
		if c.in.round == nil {
			c.in.round = new(round)
		}
	}
	if c.big != nil {
		// Nothing is unparsed now. A little room takes the next head along.
		return c.big.buf.b[c.bigN:c.big.reqs[0].Length], c.in.b[:headRead]
	}
	return c.in.b[c.w:min(c.w+c.limit, len(c.in.b))], nil
}

// held reports whether inline replies wait for the socket to run empty.
func (c *conn) held() bool { return c.outN > 0 }

// idle gives the buffers back before the reader waits, and starts the stall
// clock if a request has come in part. The clock is not stopped when the rest
// comes: it is looked at when it fires, which costs nothing per request.
func (c *conn) idle() {
	if c.r == c.w && c.in != nil {
		c.srv.buffers.put(c.in)
		c.in = nil
	}
	if c.out != nil { // empty: the round was sent
		c.srv.buffers.put(c.out)
		c.out = nil
	}
	if c.partial() && !c.armed {
		c.armed, c.armedAt = true, c.received
		_ = c.setReadDeadline(time.Now().Add(c.srv.limits.StallTimeout)) // if closed, the read tells
	}
}

// serveReceived serves what n more bytes have completed.
func (c *conn) serveReceived(n int) error {
	if c.big != nil {
		m := min(n, int(c.big.reqs[0].Length)-c.bigN)
		c.bigN += m
		c.w = n - m
		if c.bigN < int(c.big.reqs[0].Length) {
			return nil
		}
		if err := c.startBig(); err != nil {
			return err
		}
	} else {
		if n == c.limit {
			c.limit = ioBuffer
		}
		c.w += n
	}
	for {
		why, req, err := c.parse()
		if err := c.execute(); err != nil {
			return err
		}
		switch {
		case err != nil:
		case why == stopDisc:
			err = errDisc
		case why == stopRound:
			continue
		case why == stopBig:
			err = c.receiveBig(req)
		}
		// Inline replies are sent when the socket has no more requests, or when
		// there are enough of them: one send serves many.
		if err != nil || c.outN >= holdReplies || c.empty {
			c.flushOut()
		}
		c.r, c.w = 0, copy(c.in.b, c.in.b[c.r:c.w])
		return err
	}
}

func (c *conn) addWrite(req Request, payload []byte) {
	r := c.in.round
	r.counts[CmdWrite]++
	r.written += req.Length
	r.writes = append(r.writes, req)
	if len(payload) > 0 {
		r.spans = append(r.spans, Span{Off: int64(req.Offset), Data: payload})
	}
}

func (c *conn) add(req Request) {
	r := c.in.round
	r.counts[req.Type]++
	switch {
	case req.Type == CmdFlush:
		r.flushes = append(r.flushes, req)
	case req.Type == CmdRead && req.Length <= inlineRead:
		r.read += req.Length
		r.reads = append(r.reads, req)
	default:
		if req.Type == CmdRead {
			r.read += req.Length
		}
		r.tasks = append(r.tasks, req)
	}
}

// execute serves the round. What may block is started first. An error: the
// client has hung up, and the round is dropped.
func (c *conn) execute() error {
	r := c.in.round
	defer r.reset()
	if r.changes() {
		if err := c.begin(); err != nil {
			return err
		}
	}
	if len(r.writes) > 0 {
		c.write()
	}
	if len(r.flushes) > 0 {
		if t := c.acquire(0); t != nil {
			t.commit = true
			t.reqs = append(t.reqs, r.flushes...)
			c.srv.workers.run(t)
		}
	}
	for _, req := range r.tasks {
		c.start(req)
	}
	for _, req := range r.reads {
		c.read(req)
	}
	c.startReads()
	c.srv.stats.add(r)
	for _, n := range r.counts {
		if n > 0 {
			c.requests.Add(n)
		}
	}
	return nil
}

// changes tells whether the round changes the device.
func (r *round) changes() bool {
	return len(r.writes) > 0 || r.counts[CmdTrim] > 0 || r.counts[CmdWriteZeroes] > 0
}

func (r *round) reset() {
	clear(r.spans)
	r.writes, r.spans, r.flushes, r.tasks, r.reads = r.writes[:0], r.spans[:0], r.flushes[:0], r.tasks[:0], r.reads[:0]
	r.counts = [commands]uint64{}
	r.read, r.written, r.errors = 0, 0, 0
}

// write gives the batch to the device straight from the receive buffer. If
// that would block, the payloads are copied out, so that the reader can go on.
func (c *conn) write() {
	r := c.in.round
	var err error
	if len(r.spans) > 0 {
		err = c.dev.TryWrite(r.spans)
	}
	if err == ErrWouldBlock {
		c.writeLater()
		return
	}
	for _, req := range r.writes {
		if err == nil && req.Flags&FlagFUA != 0 {
			r.flushes = append(r.flushes, req) // answered by the flush
			continue
		}
		c.inline(req, err)
	}
}

// writeLater makes a task of the batch and of the flushes behind it.
func (c *conn) writeLater() {
	r := c.in.round
	n := 0
	for _, s := range r.spans {
		n += len(s.Data)
	}
	t := c.acquire(n)
	if t == nil {
		return
	}
	t.commit = true
	t.change()
	t.reqs = append(append(t.reqs, r.writes...), r.flushes...)
	p := t.buf.b[:0]
	for _, s := range r.spans {
		start := len(p)
		p = append(p, s.Data...)
		t.spans = append(t.spans, Span{Off: s.Off, Data: p[start:]})
	}
	r.flushes = r.flushes[:0]
	c.srv.workers.run(t)
}

// read serves a READ inline if the device can.
func (c *conn) read(req Request) {
	b := c.appendReadHead(c.room(readHeadMax+int(req.Length)), req)
	end := len(b) + int(req.Length)
	var err error
	if req.Length > 0 {
		err = c.dev.TryRead(b[len(b):end], int64(req.Offset))
	}
	switch err {
	case nil:
		c.filled(b[:end])
	case ErrWouldBlock:
		c.start(req)
	case ErrUnderWay:
		if t := c.acquire(int(req.Length)); t != nil {
			t.req = req
			c.underway = append(c.underway, t)
		}
	default:
		c.inline(req, err)
	}
}

// startReads has workers wait for the READs of the round that are under way.
// Measured: a worker for each costs half as much again as one for eight, and
// one for all of them leaves the client idle too long.
func (c *conn) startReads() {
	for list := c.underway; len(list) > 0; {
		chain := list[:min(readChain, len(list))]
		list = list[len(chain):]
		for i, t := range chain[1:] {
			chain[i].next = t
		}
		c.srv.workers.run(chain[0])
	}
	clear(c.underway)
	c.underway = c.underway[:0]
}

// start gives a request to a worker, or serves a large READ from memory.
func (c *conn) start(req Request) {
	n := 0
	if req.Type == CmdRead {
		n = int(req.Length)
	}
	t := c.acquire(n)
	if t == nil {
		return
	}
	t.req = req
	if req.Type == CmdTrim || req.Type == CmdWriteZeroes {
		t.change()
	}
	// A large READ was not tried yet. Measured: the reader serves it at two
	// thirds of what a worker costs, as the data stays in its cache.
	if n > inlineRead && c.dev.TryRead(t.buf.b[:n], int64(req.Offset)) == nil {
		t.endRead(false)
		return
	}
	c.srv.workers.run(t) // which also meets the error, if that was one
}

// receiveBig begins a WRITE whose payload is received into its own buffer,
// with no copy but of what has come along with the head.
func (c *conn) receiveBig(req Request) error {
	t := c.acquire(int(req.Length))
	if t == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.mu.err
	}
	t.commit = true
	t.reqs = append(t.reqs, req)
	c.big = t
	c.bigN = copy(t.buf.b, c.in.b[c.r:c.w])
	c.r = c.w
	c.limit = headRead // the next is likely to be large too
	return nil
}

// startBig writes the received payload, or has a worker do it. An error: the
// client has hung up, and the payload is dropped.
func (c *conn) startBig() error {
	t := c.big
	c.big = nil
	if err := c.begin(); err != nil {
		c.abandon(t)
		return err
	}
	req := t.reqs[0]
	t.spans = append(t.spans, Span{Off: int64(req.Offset), Data: t.buf.b[:req.Length]})
	c.in.round.counts[CmdWrite]++
	c.in.round.written += req.Length
	if req.Flags&FlagFUA == 0 {
		// Measured: a payload is cheapest to copy where it is in the cache.
		if err := c.dev.TryWrite(t.spans); err != ErrWouldBlock {
			c.inline(req, err)
			c.abandon(t)
			return nil
		}
	}
	t.change()
	c.srv.workers.run(t)
	return nil
}
