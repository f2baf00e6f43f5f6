package nbd

import (
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Resender is a client with several connections, such as a block device of the kernel.
// When a request has waited for too long, the client hangs up that connection and then
// sends the request again on another one. ServeResender serves each of its connections.
// The zero value has none.
//
// The rule: once a repeated request is served, no older copy of it takes effect, be it read
// from the hung-up connection already or still in its socket. Otherwise an old write could
// take effect after its repetition was answered, and overwrite newer data. The reader of a
// connection keeps the rule by two steps, before it changes the device with what it has
// received:
//
//  1. It marks its connection as changing the device, and then checks whether its own
//     client has hung up. If so, it drops what it has received.
//  2. It checks the other connections of the client that are marked. If the client has hung
//     one of them up, that one is ended: the requests that it has not begun are dropped,
//     those that it has begun are cancelled, and this reader waits for its end.
//
// The client hangs up before it sends again, and a unix socket shows that to both ends at
// once. So if a reader has begun with the old copy, the reader of the repetition finds it
// by step 2; if it has not begun, it finds by step 1 that it is too late. No time-out is
// part of this.
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

// resending is what a reader has in addition for a connection of a Resender.
type resending struct {
	began bool // the reader is counted in conn.changing
	empty bool // it has found the socket empty since it has received
	peer  peerPoll
}

// begin is called by the reader before it changes the device. It takes the two steps, once
// for all that was received together. An error says that the client has hung up, and that
// nothing more may be changed.
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
	hungUp, empty := c.peer.check(c.sock)
	if hungUp {
		return errHungUp
	}
	c.empty = empty
	for _, s := range *c.resender.conns.Load() {
		if s == c.conn || s.changing.Load() == 0 {
			continue
		}
		if hungUp, _ := c.peer.check(s.sock); !hungUp {
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

// outlive ends another connection of the client that was hung up, and waits until none of
// its requests is under way. If two that are hung up find each other, both end.
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

// peerPoll asks sockets about their peers. One goroutine at a time may use it. It allocates
// only once.
type peerPoll struct {
	fds [1]unix.PollFd
	err error
	fn  func(fd uintptr)
}

// check tells whether the peer has closed both directions, so that no reply reaches it,
// and whether the socket has nothing to be received. A socket that cannot be asked was
// closed by this end, and counts as hung up.
func (l *peerPoll) check(s *socket) (hungUp, empty bool) {
	events := l.ask(s, unix.POLLIN)
	return events&lost != 0, events == 0
}

// checkEnd tells whether the peer is gone, and whether it sends no more. The latter is all
// that a killed TCP peer shows until something is sent to it.
func (l *peerPoll) checkEnd(s *socket) (hungUp, ended bool) {
	events := l.ask(s, unix.POLLRDHUP)
	return events&lost != 0, events&unix.POLLRDHUP != 0
}

const lost = unix.POLLHUP | unix.POLLERR | unix.POLLNVAL

func (l *peerPoll) ask(s *socket, events int16) int16 {
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

func (l *peerPoll) poll(fd uintptr) {
	l.fds[0] = unix.PollFd{Fd: int32(fd), Events: l.fds[0].Events}
	for {
		if _, l.err = unix.Poll(l.fds[:], 0); l.err != unix.EINTR {
			return
		}
	}
}
