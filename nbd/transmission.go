package nbd

import (
	"unsafe"

	"openvstorage/device"
)

// round is a group of requests that were parsed from the receive buffer and are answered
// together. Writes are served first, as one batch, so that a flush of the same round covers
// them too. The protocol leaves the order of requests in flight to the server.
type round struct {
	writes  []Request
	spans   []device.Span // their payloads, in the receive buffer
	flushes []Request     // FLUSH, and later the FUA writes that are done
	tasks   []Request     // always for a worker
	reads   []Request     // served inline if the device can do so without waiting

	counts        [commands]uint64
	read, written uint64
	errors        uint64

	counted int64 // of its memory, by memory.scratch
}

// holdReplies is how many bytes of inline replies wait for more requests to be
// answered with them.
const holdReplies = 64 << 10

// serveReceived serves the requests that n more bytes have completed.
func (c *reader) serveReceived(n int) error {
	c.trimmed = false
	if c.big.on {
		m := min(n, c.big.fill-c.big.n)
		c.r, c.w = 0, n-m
		if err := c.receivedBig(m); err != nil {
			return err
		}
		if c.big.on {
			return nil
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
			err = c.beginBig(req)
		}
		// One send for many replies: they wait until the socket has no more requests,
		// or they are many.
		if err != nil || c.outN >= holdReplies || c.empty {
			c.flushOut()
		}
		c.r, c.w = 0, copy(c.in.b, c.in.b[c.r:c.w])
		return err
	}
}

func (c *reader) addWrite(req Request, payload []byte) {
	r := c.in.round
	r.counts[CmdWrite]++
	r.written += req.Length
	r.writes = append(r.writes, req)
	if len(payload) > 0 {
		r.spans = append(r.spans, device.Span{Off: int64(req.Offset), Data: payload})
	}
}

func (c *reader) add(req Request) {
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

// execute serves the round. Requests that may block are started first. An error says that
// the client has hung up, and that the round was dropped.
func (c *reader) execute() error {
	r := c.in.round
	defer c.endRound(r)
	if r.changes() {
		if err := c.begin(); err != nil {
			return err
		}
	}
	if len(r.writes) > 0 {
		c.write()
	}
	if len(r.flushes) > 0 {
		if t := c.acquire(0, nil); t != nil {
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

// endRound empties a round and counts the memory that it has come to need.
func (c *reader) endRound(r *round) {
	const request, span = int(unsafe.Sizeof(Request{})), int(unsafe.Sizeof(device.Span{}))
	r.reset()
	requests := cap(r.writes) + cap(r.flushes) + cap(r.tasks) + cap(r.reads)
	if n := int64(requests*request + cap(r.spans)*span); n != r.counted {
		c.srv.memory.scratch.Add(n - r.counted)
		r.counted = n
	}
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
func (c *reader) write() {
	r := c.in.round
	var err error
	if len(r.spans) > 0 {
		err = c.disk.TryWrite(r.spans)
	}
	if err == device.ErrWouldBlock {
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
func (c *reader) writeLater() {
	r := c.in.round
	n := 0
	for _, s := range r.spans {
		n += len(s.Data)
	}
	t := c.acquire(n, nil)
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
		t.spans = append(t.spans, device.Span{Off: s.Off, Data: p[start:]})
	}
	r.flushes = r.flushes[:0]
	c.srv.workers.run(t)
}

// read serves a READ inline if the device can.
func (c *reader) read(req Request) {
	b := c.appendReadHead(c.room(readHeadMax+int(req.Length)), req)
	end := len(b) + int(req.Length)
	var err error
	if req.Length > 0 {
		err = c.dev.TryRead(b[len(b):end], int64(req.Offset))
	}
	switch err {
	case nil:
		c.filled(b[:end])
	case device.ErrWouldBlock:
		c.start(req)
	case device.ErrUnderWay:
		if t := c.acquire(int(req.Length), nil); t != nil {
			t.req = req
			c.underway = append(c.underway, t)
		}
	default:
		c.inline(req, err)
	}
}

// startReads has workers wait for the READs of the round whose data is on its way into
// memory. Measured: a worker for each READ costs half as much again as one for eight, and
// one worker for all of them leaves the client idle for too long.
func (c *reader) startReads() {
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
func (c *reader) start(req Request) {
	n := 0
	switch {
	case req.Type == CmdRead:
		n = int(req.Length)
	case req.Type == CmdBlockStatus && req.Flags&FlagReqOne == 0:
		n = maxStatus
	}
	t := c.acquire(n, nil)
	if t == nil {
		return
	}
	t.req = req
	if req.Type == CmdTrim || req.Type == CmdWriteZeroes {
		t.change()
	}
	// A large READ was not tried yet. Measured: the reader serves it at two
	// thirds of what a worker costs, as the data stays in its cache.
	if n > inlineRead && !t.narrow && c.dev.TryRead(t.buf.b[:n], int64(req.Offset)) == nil {
		t.endRead(false)
		return
	}
	c.srv.workers.run(t) // if TryRead has failed, the worker gets that error again
}
