package nbd

import (
	"container/list"
	"context"
	"crypto/tls"
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

// conn is one client: what is shared by its reader, the goroutine that runs it, and its
// tasks, which run in workers. They meet under mu.
type conn struct {
	srv     *Server
	sock    *socket
	session // set by the handshake
	id      uint64
	origin  origin
	source  *source // nil: not counted by address
	door    *door   // the listener it came by, or nil
	since   time.Time
	done    chan struct{} // closed when all is given back

	// ctx is for calls of the device, and is cancelled when the client is lost.
	ctx    context.Context
	cancel context.CancelFunc

	serving  bool          // past the handshake; under srv.mu
	greeting *list.Element // of srv.mu.greeting until then
	sentAway bool          // its place has been given to another; under srv.mu
	stopping atomic.Bool   // read no more requests
	requests atomic.Uint64

	vecs [][]byte // of whoever has set sending

	secured *tls.ConnectionState // of a connection of TLS; under srv.mu
	tlsHeld int64                // what that holds besides, in bytes; of the reader

	resender *Resender    // nil: the connection of an ordinary client
	changing atomic.Int32 // its requests that may change the device

	mu struct {
		sync.Mutex
		changed  sync.Cond
		err      error // why nothing more is sent
		inflight int   // tasks
		bytes    int64 // charged to them, and to queued replies
		held     int64 // scratch memory, counted by memory.scratch
		vecs     int64 // of it, what vecs has
		waiting  int   // bytes in queue that no charge covers
		sending  bool
		drain    *time.Timer // once the end has begun
		queue    *outbox
		spare    *outbox
		tasks    []*task // free

		watching bool // the reader waits for something other than the socket
		watch    *time.Timer
		peer     peerPoll // the watch's
	}
}

// reader is what only the goroutine of a connection touches.
type reader struct {
	*conn

	in       *buffer // receive buffer, nil while idle
	r, w     int     // in.b[r:w] is not parsed yet
	limit    int     // how much to read at once
	skip     int64   // payload bytes to be thrown away
	big      incoming
	received uint64 // bytes
	parsed   uint64 // requests that have come whole
	pace
	resending

	// Inline replies: out.b[:outN].
	out  *buffer
	outN int

	underway []*task // READs of the round that wait for a medium
}

var (
	errDisc     = errors.New("client disconnected")
	errStopping = errors.New("server closes the connection")
	errStalled  = errors.New("client stopped in the middle of a request, or sends it too slowly")
	errUnread   = errors.New("client does not read its replies, or too slowly")
	errVanished = errors.New("client is gone, and left requests behind")

	errHungUp = errors.New("client has hung up, and sends its requests elsewhere")

	errCancelled = errors.New("requests in flight took too long to finish and were cancelled")
)

func newConn(srv *Server, nc net.Conn, id uint64) *conn {
	c := &conn{srv: srv, id: id, since: time.Now(), done: make(chan struct{})}
	c.sock = newSocket(nc, srv.limits.StallTimeout, srv.limits.perStall())
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.mu.changed.L = &c.mu.Mutex
	c.mu.queue, c.mu.spare = new(outbox), new(outbox)
	return c
}

// serve runs the connection to its end.
func (c *conn) serve() error {
	defer c.cancel()
	defer c.sock.conn.Close()
	if err := c.handshake(); err != nil {
		if err == errAborted {
			c.sock.endTLS()
		}
		return fmt.Errorf("handshake: %w", err)
	}
	defer c.release()
	if c.resender != nil {
		c.resender.join(c)
		defer c.resender.leave(c)
	}
	c.sock.moving = true
	r := &reader{conn: c, limit: ioBuffer, pace: pace{trimmed: true}}
	err := r.drain(r.loop())
	if err == errDisc || err == errStopping || err == io.EOF {
		c.sock.endTLS()
	}
	return err
}

func (c *conn) handshake() error {
	ctx, cancel := context.WithTimeout(c.ctx, c.srv.limits.HandshakeTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	if err := c.sock.conn.SetDeadline(deadline); err != nil {
		return err
	}
	h := handshake{rw: c.sock.conn, exports: c.srv.exports, buffers: &c.srv.buffers, settle: c.settle}
	h.security = security{mode: c.door.tlsMode(), begin: c.beginTLS}
	defer h.close()
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
func (c *reader) loop() error {
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

// gaveUp tells whether the client expects no replies, as it has sent its requests again
// on another connection.
func (c *reader) gaveUp() bool {
	if c.resender == nil {
		return false
	}
	hungUp, _ := c.peer.check(c.sock)
	return hungUp
}

// partial tells whether a request has come in part.
func (c *reader) partial() bool { return c.r < c.w || c.big.on || c.skip > 0 }

// setReadDeadline sets the deadline, unless stop has put it in the past: then it stays
// there.
func (c *conn) setReadDeadline(t time.Time) error {
	err := c.sock.conn.SetReadDeadline(t)
	if c.stopping.Load() {
		err = c.sock.conn.SetReadDeadline(past)
	}
	return err
}

var past = time.Unix(1, 0)

// stop makes the reader finish the requests that it has received whole, and end.
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

// drain waits for the requests in flight, and gives back all buffers. If the client is
// lost the requests are cancelled at once, otherwise after the drain timeout.
func (c *reader) drain(cause error) error {
	// A client that stopped sending in the middle of a request may still read: the
	// kernel's client does, when it can send no more.
	graceful := cause == errDisc || cause == errStopping || errors.Is(cause, io.EOF) || errors.Is(cause, io.ErrUnexpectedEOF)
	// A client that has closed both directions without a DISC reads nothing any more,
	// so nobody needs the requests in flight.
	vanished := false
	if cause != errDisc && cause != errStopping && graceful && c.sock.raw != nil {
		vanished, _ = c.peer.check(c.sock)
	}
	c.mu.Lock()
	if vanished && c.mu.inflight > 0 {
		graceful, cause = false, errVanished
	}
	if !graceful {
		c.failLocked(cause)
	}
	c.beginDrainLocked()
	c.mu.Unlock()
	c.dropBig()
	c.flushOut() // replies that waited for more requests
	c.mu.Lock()
	for c.mu.inflight > 0 || c.mu.sending || c.mu.err == nil && !c.mu.queue.empty() {
		c.mu.changed.Wait()
	}
	c.mu.drain.Stop()
	if err := c.mu.err; err != nil {
		cause = err
	}
	c.trimLocked()
	c.mu.Unlock()
	for _, b := range []*buffer{c.in, c.out} {
		if b != nil {
			c.srv.buffers.put(b)
		}
	}
	c.in, c.out = nil, nil
	return cause
}

// count records how a request of a task went.
func (c *conn) count(err error) {
	if err != nil {
		c.srv.stats.errors.Add(1)
	}
}

// gone tells whether err says only that a client went away, or was sent away.
func gone(err error) bool {
	return errors.Is(err, errDisc) || errors.Is(err, errStopping) || errors.Is(err, errHungUp) ||
		errors.Is(err, errAborted) || errors.Is(err, errVanished) || errors.Is(err, errNoPlace) ||
		errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
