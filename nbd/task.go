package nbd

import (
	"sync"
	"unsafe"

	"openvstorage/device"
)

// task is work that may block: one request, or one batch of writes and the flush behind
// it. It belongs to its connection and is reused.
type task struct {
	c      *conn
	req    Request   // of a task that is not a commit
	commit bool      // write spans, then flush for those of reqs that ask
	reqs   []Request // WRITE and FLUSH, of a commit
	spans  []device.Span
	buf    *buffer   // payload
	bufs   []*buffer // payload of a WRITE that comes in several buffers
	charge charge
	head   []byte // scratch for replies

	narrow bool // READ that has less memory than it is long: narrow.go

	// Of a WRITE in pieces, see receive.go. left, failed and dropped are under mu.
	whole   *task // of a piece: the task that answers
	left    int   // of the task that answers: pieces not done, and one for the reader
	failed  error // of the first piece that failed
	dropped bool  // not all of the payload came

	counted int64 // of its memory, by memory.scratch

	status status // of a BLOCK_STATUS

	changes bool // it is counted in conn.changing

	next *task // READ that is served after this one
}

// size is the memory of a task itself.
func (t *task) size() int64 {
	const request, span = int(unsafe.Sizeof(Request{})), int(unsafe.Sizeof(device.Span{}))
	return int64(taskStruct + cap(t.reqs)*request + cap(t.spans)*span + cap(t.bufs)*8 + cap(t.head))
}

// taskStruct is the size of a task, and of the reference to it.
const taskStruct = int(unsafe.Sizeof(task{})) + 16

// release gives back the buffers of a task. Its charge is left.
func (t *task) release() {
	if t.buf != nil {
		t.c.srv.buffers.put(t.buf)
		t.buf = nil
	}
	for _, b := range t.bufs {
		t.c.srv.buffers.put(b)
	}
	clear(t.bufs)
	t.bufs = t.bufs[:0]
}

// run serves the task and posts its replies.
func (t *task) run() {
	switch {
	case t.c.ctx.Err() != nil: // the client is gone, or has sent it again elsewhere
		for c := t.c; t != nil; {
			next := t.next
			c.abandon(t)
			t = next
		}
	case t.commit:
		t.runCommit()
	case t.req.Type == CmdWrite:
		t.runWhole()
	case t.narrow:
		t.runNarrow()
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
	t.release()
	t.c.post(t.head, nil, nil, t.charge, t)
}

// runReads serves a READ and those chained to it. Replies are sent together, but one that
// is ready is not held back while another READ waits for a medium.
func (t *task) runReads() {
	c, held := t.c, false
	for t != nil {
		next, req := t.next, t.req
		p, err := t.buf.b[:req.Length], error(device.ErrWouldBlock)
		if held {
			err = c.dev.TryRead(p, int64(req.Offset))
		}
		if err == device.ErrWouldBlock || err == device.ErrUnderWay {
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

// endRead queues the data in buf, from where it is sent: now, unless held is set.
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
		err = c.disk.Trim(c.ctx, off, n)
	case req.Type == CmdWriteZeroes:
		// Zeroing never writes data here, so it is always fast.
		err = c.disk.Zero(c.ctx, off, n, req.Flags&FlagNoHole != 0)
	}
	if err == nil && req.Flags&FlagFUA != 0 {
		err = c.flushDisk()
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
		failed = c.disk.Write(c.ctx, t.spans)
	}
	clear(t.spans)
	t.release()
	if t.whole != nil {
		t.endPiece(failed)
		return
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
			c.post(t.head, nil, nil, 0, nil)
			t.head = t.head[:0]
		}
		err := c.flushDisk()
		for _, req := range t.reqs[:sync] {
			c.count(err)
			t.head = c.appendReply(t.head, req, err)
		}
	}
	t.end()
}

// workers are goroutines that run tasks. Parked ones are used first, the last parked before
// others. There are at most as many as tasks, which the limits bound. idleWorkers of them
// stay parked.
type workers struct {
	wg     sync.WaitGroup
	memory *memory // counts them

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
		w.tasks <- t // does not wait: the worker is parked
		return
	}
	p.wg.Add(1)
	p.mu.Unlock()
	p.memory.scratch.Add(workerBytes)
	p.memory.stacks.Add(stackBytes)
	w := &worker{tasks: make(chan *task, 1)}
	w.tasks <- t
	go p.loop(w)
}

func (p *workers) loop(w *worker) {
	defer p.wg.Done()
	defer p.memory.scratch.Add(-workerBytes)
	defer p.memory.stacks.Add(-stackBytes)
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
