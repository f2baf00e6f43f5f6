package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// conn is one client. The goroutine that runs it is its reader; tasks run in
// workers and meet it under mu.
type conn struct {
	srv     *Server
	sock    *socket
	session // set by the handshake
	id      uint64
	since   time.Time
	done    chan struct{} // closed when all is given back

	// ctx is that of the device calls: cancelled when the client is lost.
	ctx    context.Context
	cancel context.CancelFunc

	serving  bool        // past the handshake; under srv.mu
	stopping atomic.Bool // read no more requests
	requests atomic.Uint64

	// The reader's own: transmission.go.
	in       *buffer // receive buffer, nil while idle
	r, w     int     // in.b[r:w] is not parsed yet
	limit    int     // how much to read at once
	skip     int64   // payload bytes to throw away
	big      *task   // WRITE whose payload is being received
	bigN     int     // so much of it
	received uint64
	armed    bool // the stall deadline runs
	armedAt  uint64

	// Inline replies: out.b[:outN].
	out  *buffer
	outN int

	underway []*task // READs of the round that wait for a medium

	vecs [][]byte // of whoever has set sending

	resending

	mu struct {
		sync.Mutex
		changed  sync.Cond
		err      error // why nothing more is sent
		inflight int   // tasks
		bytes    int64 // charged to them
		waiting  int   // bytes in queue that no charge covers
		sending  bool
		drain    *time.Timer // once the end has begun
		queue    *outbox
		spare    *outbox
		tasks    []*task // free
	}
}

var (
	errDisc     = errors.New("client disconnected")
	errStopping = errors.New("server closes the connection")
	errStalled  = errors.New("client stopped in the middle of a request")
	errUnread   = errors.New("client does not read its replies")

	errHungUp = errors.New("client has hung up, and sends its requests elsewhere")

	errCancelled = errors.New("requests in flight took too long to finish and were cancelled")
)

func newConn(srv *Server, nc net.Conn, id uint64) *conn {
	c := &conn{srv: srv, id: id, since: time.Now(), done: make(chan struct{}), limit: ioBuffer}
	c.sock = newSocket(nc, srv.limits.StallTimeout)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.mu.changed.L = &c.mu.Mutex
	c.mu.queue, c.mu.spare = new(outbox), new(outbox)
	return c
}

// serve runs the connection to its end.
func (c *conn) serve() error {
	defer close(c.done)
	defer c.cancel()
	defer c.sock.conn.Close()
	if err := c.handshake(); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	defer c.release()
	if c.resender != nil {
		c.resender.join(c)
		defer c.resender.leave(c)
	}
	err := c.loop()
	return c.drain(err)
}

func (c *conn) handshake() error {
	ctx, cancel := context.WithTimeout(c.ctx, c.srv.limits.HandshakeTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	if err := c.sock.conn.SetDeadline(deadline); err != nil {
		return err
	}
	h := handshake{rw: c.sock.conn, exports: c.srv.exports}
	s, err := h.run(ctx)
	if err != nil {
		return err
	}
	err = c.sock.conn.SetDeadline(time.Time{})
	if err == nil && !c.srv.enter(c, s) {
		err = errStopping
	}
	if err != nil {
		s.release()
	}
	return err
}

// loop receives and serves until the client or the server ends it.
func (c *conn) loop() error {
	for {
		if c.sock.raw == nil { // such a connection does not say when it is idle
			c.flushOut()
		}
		n, err := c.sock.receive(c)
		switch {
		case err == errHeld:
			c.flushOut()
		case err == nil:
			c.received += uint64(n)
			err := c.serveReceived(n)
			c.ended()
			if err != nil {
				return err
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := c.deadline(); err != nil {
				return err
			}
		case err == io.EOF && c.gaveUp():
			return errHungUp
		case err == io.EOF && c.partial():
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
}

// gaveUp tells whether the client expects no replies: it has sent its requests
// elsewhere.
func (c *conn) gaveUp() bool {
	if c.resender == nil {
		return false
	}
	hungUp, _ := c.peer.look(c.sock)
	return hungUp
}

// partial tells whether a request has come in part.
func (c *conn) partial() bool { return c.r < c.w || c.big != nil || c.skip > 0 }

// deadline is called when the read deadline has passed: that of stop, or that
// of a client which may have stalled.
func (c *conn) deadline() error {
	if c.stopping.Load() {
		return errStopping
	}
	c.armed = false
	if c.partial() && c.received == c.armedAt {
		return errStalled
	}
	return c.setReadDeadline(time.Time{})
}

// setReadDeadline keeps out of the way of stop, which wants it in the past.
func (c *conn) setReadDeadline(t time.Time) error {
	err := c.sock.conn.SetReadDeadline(t)
	if c.stopping.Load() {
		err = c.sock.conn.SetReadDeadline(past)
	}
	return err
}

var past = time.Unix(1, 0)

// stop makes the reader finish what it has received whole, and end.
func (c *conn) stop() {
	c.mu.Lock()
	c.beginDrainLocked() // the reader itself may be waiting for the device
	c.mu.Unlock()
	c.stopping.Store(true)
	_ = c.sock.conn.SetReadDeadline(past) // fails only if it is closed already
}

// beginDrainLocked starts the drain timeout, unless it runs already.
func (c *conn) beginDrainLocked() {
	if c.mu.drain == nil {
		c.mu.drain = time.AfterFunc(c.srv.limits.DrainTimeout, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.failLocked(errCancelled)
		})
	}
}

// drain waits for the requests in flight, cancelled at once if the client is
// lost, else after the drain timeout, and gives back all buffers.
func (c *conn) drain(cause error) error {
	// A client that was cut off in the middle of a request may read still: the
	// kernel's does when its socket takes no more.
	graceful := cause == errDisc || cause == errStopping || errors.Is(cause, io.EOF) || errors.Is(cause, io.ErrUnexpectedEOF)
	c.mu.Lock()
	if !graceful {
		c.failLocked(cause)
	}
	c.beginDrainLocked()
	if c.big != nil {
		c.abandonLocked(c.big)
		c.big = nil
	}
	if c.outN > 0 { // replies waited for more requests
		c.mu.Unlock()
		c.flushOut()
		c.mu.Lock()
	}
	for c.mu.inflight > 0 || c.mu.sending || c.mu.err == nil && !c.mu.queue.empty() {
		c.mu.changed.Wait()
	}
	c.mu.drain.Stop()
	if err := c.mu.err; err != nil {
		cause = err
	}
	c.mu.Unlock()
	for _, b := range []*buffer{c.in, c.out} {
		if b != nil {
			c.srv.buffers.put(b)
		}
	}
	c.in, c.out = nil, nil
	return cause
}

// acquire makes a task that holds n payload bytes, in a buffer if n > 0. It
// waits while the limits are reached; what was answered is sent and what was
// tried is started first. Nil: the
// connection is over.
func (c *conn) acquire(n int) *task {
	var ch charge
	ch.conn = taskBytes
	if n > 0 {
		ch.conn += int64(classSize(n))
	}
	limits := &c.srv.limits
	c.mu.Lock()
	full := func() bool {
		return c.mu.inflight >= limits.Requests ||
			c.mu.bytes > 0 && c.mu.bytes+ch.conn > limits.RequestBytes ||
			c.mu.waiting > limits.ReplyBytes
	}
	if c.mu.err == nil && full() {
		c.awaitLocked(full)
	}
	if c.mu.err != nil {
		c.mu.Unlock()
		return nil
	}
	floor := c.mu.bytes == 0 && ch.conn <= floorBytes+taskBytes
	c.mu.inflight++
	c.mu.bytes += ch.conn
	t := c.freeTaskLocked()
	c.mu.Unlock()
	c.srv.stats.inflight.Add(1)

	switch {
	case c.srv.memory.TryAcquire(ch.conn):
		ch.server = ch.conn
	case floor:
	default:
		c.flushOut()
		c.startReads()
		stop := c.watch()
		err := c.srv.memory.Acquire(c.ctx, ch.conn)
		stop()
		if err != nil {
			c.mu.Lock()
			c.freeLocked(nil, ch)
			c.finishLocked(t)
			c.mu.Unlock()
			return nil
		}
		ch.server = ch.conn
	}
	c.srv.stats.charged.Add(ch.server)
	t.charge = ch
	if n > 0 {
		t.buf = c.srv.buffers.get(n)
	}
	return t
}

// awaitLocked waits while full, or until the connection is over.
func (c *conn) awaitLocked(full func() bool) {
	defer c.watch()()
	for c.mu.err == nil && full() {
		if c.outN > 0 || len(c.underway) > 0 {
			c.mu.Unlock()
			c.flushOut()
			c.startReads()
			c.mu.Lock()
			continue
		}
		c.mu.changed.Wait()
	}
}

func (c *conn) freeTaskLocked() *task {
	if last := len(c.mu.tasks) - 1; last >= 0 {
		t := c.mu.tasks[last]
		c.mu.tasks = c.mu.tasks[:last]
		return t
	}
	return &task{c: c}
}

// freeLocked gives back a buffer and what it was charged for.
func (c *conn) freeLocked(buf *buffer, ch charge) {
	if buf != nil {
		c.srv.buffers.put(buf)
	}
	c.mu.bytes -= ch.conn
	if ch.server > 0 {
		c.srv.stats.charged.Add(-ch.server)
		c.srv.memory.Release(ch.server)
	}
	c.mu.changed.Broadcast()
}

// abandon takes back a task that no worker has run, with its buffer.
func (c *conn) abandon(t *task) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandonLocked(t)
}

func (c *conn) abandonLocked(t *task) {
	c.freeLocked(t.buf, t.charge)
	c.finishLocked(t)
}

// finishLocked takes back a task that has been served. Its scratch stays with
// it unless it has grown beyond the usual.
func (c *conn) finishLocked(t *task) {
	c.srv.stats.inflight.Add(-1)
	if t.changes {
		c.changing.Add(-1)
	}
	clear(t.spans)
	if cap(t.reqs) > 64 && len(c.mu.tasks) > idleTasks {
		t.reqs, t.spans = nil, nil
	}
	if cap(t.head) > keepBytes {
		t.head = nil
	}
	*t = task{c: c, reqs: t.reqs[:0], spans: t.spans[:0], head: t.head[:0], status: status{extent: t.status.extent}}
	c.mu.tasks = append(c.mu.tasks, t)
	c.mu.inflight--
	c.mu.changed.Broadcast()
}

// count records how a request of a task went.
func (c *conn) count(err error) {
	if err != nil {
		c.srv.stats.errors.Add(1)
	}
}

// gone tells whether err is nothing but a client that went away.
func gone(err error) bool {
	return errors.Is(err, errDisc) || errors.Is(err, errStopping) || errors.Is(err, errHungUp) || errors.Is(err, errAborted) ||
		errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
