package nbd

import "time"

// charge is the memory that a task or a queued reply holds: buffers, in bytes.
type charge int64

// acquire makes a task with a buffer for n payload bytes, or without one if n is 0. It
// waits while the limits of the connection are reached. Before it waits it sends the
// replies that are ready, and starts the READs that were tried. It never waits for requests
// of others: if there is not enough memory, a long READ gets a task that is narrow. whole
// is the task of a WRITE in pieces, of which this is one; nil for all else. A nil task says
// that the connection is over.
func (c *reader) acquire(n int, whole *task) *task {
	c.mu.Lock()
	defer c.mu.Unlock()
	narrow := false
	admit := func() bool {
		limits := &c.srv.limits
		if whole == nil && c.mu.inflight >= limits.Requests || c.mu.waiting > limits.ReplyBytes {
			return false
		}
		if n == 0 || c.chargeLocked(n) {
			return true
		}
		if n > pieceMax && c.mu.bytes == 0 {
			n, narrow = narrowBytes, true
			return c.chargeLocked(n)
		}
		return false
	}
	if !c.awaitLocked(admit) {
		return nil
	}
	c.mu.inflight++
	c.srv.stats.inflight.Add(1)
	t := c.freeTaskLocked()
	if t.narrow = narrow; n > 0 {
		t.charge = charge(classSize(n))
		t.buf = c.srv.buffers.taken(n)
	}
	return t
}

// more gets another buffer for a task, of n bytes. Nil says that the connection is over.
func (c *reader) more(t *task, n int) *buffer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.awaitLocked(func() bool { return c.chargeLocked(n) }) {
		return nil
	}
	t.charge += charge(classSize(n))
	return c.srv.buffers.taken(n)
}

// chargeLocked charges a buffer for n bytes to the connection, if it may have
// it.
func (c *conn) chargeLocked(n int) bool {
	size := int64(classSize(n))
	if c.mu.bytes > 0 && c.mu.bytes+size > c.srv.limits.RequestBytes {
		return false
	}
	if !c.srv.memory.take(c.source, c.mu.bytes, size) {
		return false
	}
	c.unchargeLocked(charge(-size))
	return true
}

// unchargeLocked gives a charge back. The buffer itself is given back elsewhere.
func (c *conn) unchargeLocked(ch charge) {
	c.mu.bytes -= int64(ch)
	c.srv.stats.charged.Add(-int64(ch))
	if c.source != nil {
		c.source.bytes.Add(-int64(ch))
	}
}

// awaitLocked waits until ready returns true. False says that the connection is over.
func (c *reader) awaitLocked(ready func() bool) bool {
	if c.mu.err != nil {
		return false
	}
	if ready() {
		return true
	}
	defer c.ownTime()
	c.watchLocked()
	defer c.unwatchLocked()
	for c.mu.err == nil {
		if c.outN > 0 || len(c.underway) > 0 {
			c.mu.Unlock()
			c.flushOut()
			c.startReads()
			c.mu.Lock()
		} else {
			c.mu.changed.Wait()
		}
		if c.mu.err == nil && ready() {
			return true
		}
	}
	return false
}

// failure is why the connection is over.
func (c *conn) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.err
}

func (c *conn) freeTaskLocked() *task {
	if last := len(c.mu.tasks) - 1; last >= 0 {
		t := c.mu.tasks[last]
		c.mu.tasks[last] = nil
		c.mu.tasks = c.mu.tasks[:last]
		return t
	}
	c.holdLocked(int64(taskStruct))
	return &task{c: c, counted: int64(taskStruct)}
}

// freeLocked gives back a buffer and what was charged for it.
func (c *conn) freeLocked(buf *buffer, ch charge) {
	if buf != nil {
		c.srv.buffers.put(buf)
	}
	if ch != 0 {
		c.unchargeLocked(ch)
	}
	c.mu.changed.Broadcast()
}

// abandon takes back a task that no worker has run, with its buffers.
func (c *conn) abandon(t *task) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandonLocked(t)
}

func (c *conn) abandonLocked(t *task) {
	t.release()
	if t.whole != nil {
		c.dropPieceLocked(t.whole)
	}
	c.freeLocked(nil, t.charge)
	c.finishLocked(t)
}

// finishLocked takes back a task that has been served. The task keeps its scratch memory
// for the next use, unless that has grown beyond the usual.
func (c *conn) finishLocked(t *task) {
	c.srv.stats.inflight.Add(-1)
	if t.changes {
		c.changing.Add(-1)
	}
	clear(t.spans)
	clear(t.bufs)
	if cap(t.reqs) > 64 && len(c.mu.tasks) > idleTasks {
		t.reqs, t.spans = nil, nil
	}
	if cap(t.head) > keepBytes {
		t.head = nil
	}
	counted := t.counted
	*t = task{
		c: c, reqs: t.reqs[:0], spans: t.spans[:0], bufs: t.bufs[:0], head: t.head[:0],
		status: status{extent: t.status.extent}, counted: t.size(),
	}
	c.holdLocked(t.counted - counted)
	c.mu.tasks = append(c.mu.tasks, t)
	c.mu.inflight--
	c.mu.changed.Broadcast()
}

// holdLocked counts scratch memory of the connection.
func (c *conn) holdLocked(n int64) {
	if n != 0 {
		c.mu.held += n
		c.srv.memory.scratch.Add(n)
	}
}

// trimLocked lets go of the scratch memory of a connection that has nothing
// under way.
func (c *reader) trimLocked() {
	c.mu.tasks = nil
	*c.mu.queue, *c.mu.spare = outbox{}, outbox{}
	c.vecs, c.underway, c.mu.vecs = nil, nil, 0
	c.holdLocked(-c.mu.held)
}

// checkEvery is how often the client of a waiting reader is checked. It decides only how
// soon the memory of a lost client is given back.
const checkEvery = 500 * time.Millisecond

// watchLocked begins to check the client while the reader waits for something other than
// the socket, and ends the connection if the client is gone. unwatchLocked ends that. The
// timer is made once: with many requests, waits are frequent.
func (c *conn) watchLocked() {
	if c.sock.raw == nil {
		return
	}
	c.mu.watching = true
	if c.mu.watch == nil {
		c.mu.watch = time.AfterFunc(checkEvery, c.checkClient)
		return
	}
	c.mu.watch.Reset(checkEvery)
}

func (c *conn) unwatchLocked() {
	if c.mu.watching {
		c.mu.watching = false
		c.mu.watch.Stop()
	}
}

// checkClient is what the timer of the watch runs. It holds mu, so one runs at a time.
func (c *conn) checkClient() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.watching || c.mu.err != nil {
		return
	}
	switch hungUp, ended := c.mu.peer.checkEnd(c.sock); {
	case hungUp && c.resender != nil:
		c.failLocked(errHungUp)
	case hungUp:
		c.failLocked(errVanished)
	case ended && c.resender == nil:
		c.beginDrainLocked() // the client may still read replies, but not for ever
		fallthrough
	default:
		c.mu.watch.Reset(checkEvery)
	}
}
