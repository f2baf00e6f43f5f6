package nbd

import (
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Resender is a client of several connections that, when a request has waited
// for too long, hangs up the connection and then sends the request again on
// another one: a block device of the kernel. Each of its connections is served
// by ServeResender. Zero is one without connections.
//
// The rule: once a request that was sent again is served, no older copy of it
// takes effect, whether it was read from the hung-up connection or lies in its
// socket. Else an old write could come after its repetition was answered, over
// what was written since. Two steps keep the rule, taken by the reader of a
// connection for what it has received, before it changes the device:
//
//  1. It says that it is changing something, and then looks whether its own
//     peer has hung up. If so, what it has received is dropped.
//  2. It looks at the siblings that say so too. One that was hung up is ended:
//     what it has not begun is dropped, what it has begun is cancelled, and its
//     end is waited for.
//
// The client hangs up before it sends again, and a unix socket shows that to
// both ends at once. So whoever receives the repetition finds a sibling that
// has begun with the old copy by step 2, and one that begins later finds by
// step 1 that it is too late. No time is part of this.
type Resender struct {
	mu    sync.Mutex
	conns atomic.Pointer[[]*conn] // replaced as a whole: readers take no lock
}

// join must come before c changes anything.
func (r *Resender) join(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	conns := []*conn{c}
	if old := r.conns.Load(); old != nil {
		conns = append(conns, *old...)
	}
	r.conns.Store(&conns)
}

// leave must come after all that c has begun.
func (r *Resender) leave(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	conns := slices.DeleteFunc(slices.Clone(*r.conns.Load()), func(other *conn) bool { return other == c })
	r.conns.Store(&conns)
}

// resending is what the connection of a Resender has beside others.
type resending struct {
	began bool // the reader is counted in conn.changing
	empty bool // it has found the socket empty since it has received
	peer  peerLook
}

// begin is called by the reader before it changes the device. It takes the two
// steps, once for all that was received together. An error: the client has hung
// up, nothing more may be changed.
func (c *reader) begin() error {
	if c.resender == nil {
		return nil
	}
	if c.ctx.Err() != nil {
		return errHungUp
	}
	if c.began {
		return nil
	}
	c.began = true
	c.changing.Add(1)
	hungUp, empty := c.peer.look(c.sock)
	if hungUp {
		return errHungUp
	}
	c.empty = empty
	for _, s := range *c.resender.conns.Load() {
		if s == c.conn || s.changing.Load() == 0 {
			continue
		}
		if hungUp, _ := c.peer.look(s.sock); !hungUp {
			continue
		}
		if err := c.outlive(s); err != nil {
			return err
		}
	}
	return nil
}

// ended is called by the reader when it has served what it received. Tasks that
// it has started count themselves.
func (c *reader) ended() {
	c.empty = false
	if c.began {
		c.began = false
		c.changing.Add(-1)
	}
}

// outlive ends a sibling that was hung up, and waits until nothing of it is
// under way. Two that are hung up and find each other end both.
func (c *reader) outlive(s *conn) error {
	defer c.ownTime()
	c.flushOut() // what was answered need not wait
	s.mu.Lock()
	s.failLocked(errHungUp)
	s.mu.Unlock()
	c.srv.stats.outliving.Add(1)
	defer c.srv.stats.outliving.Add(-1)
	c.mu.Lock()
	c.watchLocked()
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.unwatchLocked()
		c.mu.Unlock()
	}()
	select {
	case <-s.done:
	case <-c.ctx.Done():
	}
	if c.ctx.Err() != nil {
		return errHungUp
	}
	return nil
}

// change counts a task that changes the device, until it is finished. The reader
// has begun.
func (t *task) change() {
	if t.c.resender != nil {
		t.changes = true
		t.c.changing.Add(1)
	}
}

// peerLook asks unix sockets for their other ends. One goroutine at a time may
// use it; it allocates only once.
type peerLook struct {
	fds [1]unix.PollFd
	err error
	fn  func(fd uintptr)
}

// look tells whether the peer has closed both directions, so that no reply
// reaches it, and whether nothing is there to be received. One that cannot be
// asked is closed already, by this end.
func (l *peerLook) look(s *socket) (hungUp, empty bool) {
	events := l.ask(s, unix.POLLIN)
	return events&lost != 0, events == 0
}

// lookClosely tells whether the peer is gone, and whether it sends no more: that
// is all that a TCP peer shows when it is killed, until it is sent something.
func (l *peerLook) lookClosely(s *socket) (hungUp, ended bool) {
	events := l.ask(s, unix.POLLRDHUP)
	return events&lost != 0, events&unix.POLLRDHUP != 0
}

const lost = unix.POLLHUP | unix.POLLERR | unix.POLLNVAL

func (l *peerLook) ask(s *socket, events int16) int16 {
	if s.raw == nil {
		return unix.POLLNVAL
	}
	if l.fn == nil {
		l.fn = l.poll
	}
	l.fds[0].Events = events
	if err := s.raw.Control(l.fn); err != nil || l.err != nil {
		return unix.POLLNVAL
	}
	return l.fds[0].Revents
}

func (l *peerLook) poll(fd uintptr) {
	l.fds[0] = unix.PollFd{Fd: int32(fd), Events: l.fds[0].Events}
	for {
		if _, l.err = unix.Poll(l.fds[:], 0); l.err != unix.EINTR {
			return
		}
	}
}
