package nbd

import "sync"

// task is work that may block: one request, or one batch of writes with the
// flush that follows it. It belongs to its connection and is reused.
type task struct {
	c      *conn
	req    Request   // of a task that is not a commit
	commit bool      // write spans, then flush for those of reqs that ask
	reqs   []Request // WRITE and FLUSH, of a commit
	spans  []Span
	buf    *buffer // payload
	charge charge
	head   []byte // scratch for replies

	status status // of a BLOCK_STATUS

	changes bool // it is counted as a change of a Resender's

	next *task // READ that is served after this one
}

// charge is what a task counts for: against the connection's bytes and against
// the server's. The floor is not charged to the server.
type charge struct{ conn, server int64 }

// run serves the task and posts its replies.
func (t *task) run() {
	switch {
	case t.changes && t.c.ctx.Err() != nil:
		t.c.abandon(t) // the client has sent it elsewhere
	case t.commit:
		t.runCommit()
	case t.req.Type == CmdRead:
		t.runReads()
	case t.req.Type == CmdBlockStatus:
		t.runBlockStatus()
	default:
		t.finish(t.req, t.runRange())
	}
}

// finish answers req, the last of the task.
func (t *task) finish(req Request, err error) {
	t.c.count(err)
	t.head = t.c.appendReply(t.head[:0], req, err)
	t.end()
}

// end posts the replies in head and gives everything back.
func (t *task) end() {
	if t.buf != nil {
		t.c.srv.buffers.put(t.buf)
		t.buf = nil
	}
	t.c.post(t.head, nil, nil, t.charge, t)
}

// runReads serves a READ and those chained to it. Their replies are sent
// together, but none waits for a medium that another one needs.
func (t *task) runReads() {
	c, held := t.c, false
	for t != nil {
		next, req := t.next, t.req
		p, err := t.buf.b[:req.Length], error(ErrWouldBlock)
		if held {
			err = c.dev.TryRead(p, int64(req.Offset))
		}
		if err == ErrWouldBlock || err == ErrUnderWay {
			if held {
				c.sendQueue()
			}
			err = c.dev.Read(c.ctx, p, int64(req.Offset))
		}
		held = err == nil && next != nil
		if err != nil {
			t.finish(req, err)
		} else {
			t.endRead(held)
		}
		t = next
	}
}

// endRead queues the data in buf, which is sent from there: now, unless held.
func (t *task) endRead(held bool) {
	c, buf := t.c, t.buf
	t.head = c.appendReadHead(t.head[:0], t.req)
	t.buf = nil
	c.enqueue(t.head, buf.b[:t.req.Length], buf, t.charge, t)
	if !held {
		c.sendQueue()
	}
}

// runRange serves the commands on a range that have neither payload nor data.
func (t *task) runRange() error {
	c, req := t.c, t.req
	off, n := int64(req.Offset), int64(req.Length)
	if req.Type == CmdCache {
		return c.prefetch(off, n)
	}
	var err error
	switch {
	case n == 0:
	case req.Type == CmdTrim:
		err = c.dev.Trim(c.ctx, off, n)
	case req.Type == CmdWriteZeroes:
		// Zeroing never writes data here, so it is always fast.
		err = c.dev.Zero(c.ctx, off, n, req.Flags&FlagNoHole != 0)
	}
	if err == nil && req.Flags&FlagFUA != 0 {
		err = c.dev.Flush(c.ctx)
	}
	return err
}

// runCommit writes a batch and flushes once for all its FUA writes and FLUSHes
// (rule O9: the flush covers whatever was written before it). Writes without
// FUA do not wait for it.
func (t *task) runCommit() {
	c := t.c
	var failed error
	if len(t.spans) > 0 {
		failed = c.dev.Write(c.ctx, t.spans)
	}
	if t.buf != nil {
		clear(t.spans)
		c.srv.buffers.put(t.buf)
		t.buf = nil
	}
	sync := 0
	t.head = t.head[:0]
	for _, req := range t.reqs {
		if req.Type == CmdWrite && (failed != nil || req.Flags&FlagFUA == 0) {
			c.count(failed)
			t.head = c.appendReply(t.head, req, failed)
			continue
		}
		t.reqs[sync] = req
		sync++
	}
	if sync > 0 {
		if len(t.head) > 0 {
			c.post(t.head, nil, nil, charge{}, nil)
			t.head = t.head[:0]
		}
		err := c.dev.Flush(c.ctx)
		for _, req := range t.reqs[:sync] {
			c.count(err)
			t.head = c.appendReply(t.head, req, err)
		}
	}
	t.end()
}

// workers are parked goroutines that run tasks, the last parked first. They
// are as many as tasks, which the limits bound; idleWorkers of them stay.
type workers struct {
	wg sync.WaitGroup

	mu     sync.Mutex
	idle   []*worker
	closed bool
}

type worker struct{ tasks chan *task }

func (p *workers) run(t *task) {
	p.mu.Lock()
	if last := len(p.idle) - 1; last >= 0 {
		w := p.idle[last]
		p.idle = p.idle[:last]
		p.mu.Unlock()
		w.tasks <- t // never waits: it is parked
		return
	}
	p.wg.Add(1)
	p.mu.Unlock()
	w := &worker{tasks: make(chan *task, 1)}
	w.tasks <- t
	go p.loop(w)
}

func (p *workers) loop(w *worker) {
	defer p.wg.Done()
	for t := range w.tasks {
		t.run()
		p.mu.Lock()
		if p.closed || len(p.idle) >= idleWorkers {
			p.mu.Unlock()
			return
		}
		p.idle = append(p.idle, w)
		p.mu.Unlock()
	}
}

// close ends the parked workers and those that finish later.
func (p *workers) close() {
	p.mu.Lock()
	p.closed = true
	for _, w := range p.idle {
		close(w.tasks)
	}
	p.idle = nil
	p.mu.Unlock()
}
