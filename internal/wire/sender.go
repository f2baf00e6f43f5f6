package wire

import (
	"sync"
	"sync/atomic"

	"openvstorage/internal/format"
)

// message is a request or a reply on its way out.
type message struct {
	h      head
	header []byte
	body   *Buffer
	window int
	charge int64

	// guarded by sender.mu
	state messageState
	given int // bytes of the body in frames that were handed to the link
	freed bool

	// gone, if not nil, is called once when the last frame is about to leave, or the
	// message was given up after the first one.
	gone func(*message)
}

type messageState uint8

const (
	waiting   messageState = iota // for room at the peer, or its turn
	begun                         // its first frame was handed to the link
	whole                         // all its frames were
	withdrawn                     // no further frame will be
)

// queue is first in, first out, and forgets what it gave.
type queue struct {
	items []*message
	first int
}

func (q *queue) push(m *message) { q.items = append(q.items, m) }
func (q *queue) len() int        { return len(q.items) - q.first }
func (q *queue) front() *message { return q.items[q.first] }

func (q *queue) pop() *message {
	m := q.items[q.first]
	q.items[q.first] = nil
	q.first++
	switch {
	case q.first == len(q.items):
		q.items, q.first = q.items[:0], 0
	case q.first >= 64 && 2*q.first >= len(q.items):
		n := copy(q.items, q.items[q.first:])
		clear(q.items[n:])
		q.items, q.first = q.items[:n], 0
	}
	return m
}

func (q *queue) remove(m *message) bool {
	for i := q.first; i < len(q.items); i++ {
		if q.items[i] == m {
			copy(q.items[i:], q.items[i+1:])
			q.items[len(q.items)-1] = nil
			q.items = q.items[:len(q.items)-1]
			return true
		}
	}
	return false
}

// sender orders what leaves by a link. Whoever has something to send puts it into a
// queue; if nobody writes, it writes itself, as much as the link takes at once, and what
// is left goes to the connection's writer. So nobody waits for the link but the writer.
type sender struct {
	link *link
	fail func(error) // ends the connection

	mu      sync.Mutex
	err     error // the connection has ended
	writing bool  // somebody is the one who writes
	control []head
	last    []frame        // the farewell: the last frame of all, until it is picked
	closing bool           // there is a farewell
	grants  [windows]int64 // room to give back to the peer
	grantAt [windows]int64 // how much is worth a frame of its own
	credit  [windows]int64 // what the peer takes, and its limit
	limit   [windows]int64
	blocked [windows]queue    // wait for credit
	small   [priorities]queue // have credit, and go whole
	large   [priorities]queue // have credit, and go by pieces, in turn
	passed  int               // batches since maintenance had its turn
	turned  bool              // that was for a large one

	batch   batch         // belongs to the one who writes; its frames change under mu
	handoff chan segments // passes what is not sent yet, and the right to write, to the writer
	idle    chan struct{} // closed when the farewell has left
	since   atomic.Int64  // when the write under way began, on clock's time; 0: none
}

// newSender makes the sender of a link. takes are the windows that the peer announced,
// gives those that were announced to it.
func newSender(l *link, takes, gives [windows]uint32, fail func(error)) *sender {
	s := &sender{link: l, fail: fail, handoff: make(chan segments, 1), idle: make(chan struct{})}
	for i, n := range takes {
		s.credit[i], s.limit[i] = int64(n), int64(n)
		s.grantAt[i] = int64(gives[i]) / 4
	}
	s.batch.scratch = make([]byte, scratchSize)
	return s
}

// put queues a message, whose body belongs to the sender from now on, also if there is
// an error. kick sends it.
func (s *sender) put(m *message) error {
	m.window, m.charge = m.h.charge()
	s.mu.Lock()
	err := s.err
	if err == nil && s.closing {
		err = ErrClosed
	}
	if err == nil {
		s.blocked[m.window].push(m)
		s.admit(m.window)
	} else {
		m.state, m.freed = withdrawn, true
	}
	s.mu.Unlock()
	if err != nil {
		m.body.Release() // it may give room back, which takes the lock
	}
	return err
}

// admit lets messages in for which there is room at the peer.
func (s *sender) admit(window int) {
	for q := &s.blocked[window]; q.len() > 0 && q.front().charge <= s.credit[window]; {
		m := q.pop()
		s.credit[window] -= m.charge
		if window%2 == 0 {
			s.small[m.h.priority].push(m)
		} else {
			s.large[m.h.priority].push(m)
		}
	}
}

// credited takes a window frame of the peer; it returns false if the peer gives more than
// it had taken.
func (s *sender) credited(window int, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.credit[window]+n > s.limit[window] {
		return false
	}
	s.credit[window] += n
	s.admit(window)
	return true
}

// signal queues a frame without header and body.
func (s *sender) signal(h head) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.control = append(s.control, h)
	}
}

// pong answers a ping, however many came.
func (s *sender) pong(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.control {
		if s.control[i].kind == kindPong {
			s.control[i].id = id
			return
		}
	}
	if s.err == nil {
		s.control = append(s.control, head{kind: kindPong, id: id})
	}
}

// grant gives room back to the peer, by a frame in some later batch. It returns whether so
// much has gathered that it is worth a kick.
func (s *sender) grant(window int, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants[window] += n
	return s.grants[window] >= s.grantAt[window]
}

// withdraw gives a message up. It returns what state it was in: of one that was waiting
// nothing will be sent, of one that was begun no further piece.
func (s *sender) withdraw(m *message) messageState {
	s.mu.Lock()
	was := m.state
	switch was {
	case waiting:
		if !s.blocked[m.window].remove(m) {
			s.credit[m.window] += m.charge
			if !s.small[m.h.priority].remove(m) {
				s.large[m.h.priority].remove(m)
			}
		}
		s.admit(m.window)
	case begun:
		s.large[m.h.priority].remove(m)
	default:
		s.mu.Unlock()
		return was
	}
	m.state = withdrawn
	free := !m.freed && !s.batch.holds(m)
	m.freed = m.freed || free
	s.mu.Unlock()
	if free {
		m.body.Release()
	}
	if was == begun && m.gone != nil {
		m.gone(m)
	}
	return was
}

// state is what became of a message.
func (s *sender) state(m *message) messageState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.state
}

// goodbye queues the last frame: nothing is sent behind it. What is returned is closed
// when it has left.
func (s *sender) goodbye(code Code, words string) (left <-chan struct{}) {
	s.mu.Lock()
	if !s.closing {
		words = words[:min(len(words), reasonMax)]
		h := head{kind: kindGoodbye, op: uint16(code), header: uint32(len(words)), headerSum: format.CRC([]byte(words))}
		s.last, s.closing = []frame{{h: h, words: words}}, true
	}
	s.mu.Unlock()
	s.kick()
	return s.idle
}

// end drops all that was not sent. The bodies in a batch that is being written go when
// the link has let go of them.
func (s *sender) end(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	var drop []*message
	take := func(q *queue) {
		for q.len() > 0 {
			if m := q.pop(); !m.freed && !s.batch.holds(m) {
				m.freed = true
				drop = append(drop, m)
			}
		}
	}
	for i := range s.blocked {
		take(&s.blocked[i])
	}
	for i := range s.small {
		take(&s.small[i])
		take(&s.large[i])
	}
	s.control, s.last = nil, nil
	if !s.writing {
		s.writing = true // for ever
		close(s.handoff)
	}
	s.mu.Unlock()
	for _, m := range drop {
		m.body.Release()
	}
}

// directBatches is how many batches somebody sends who came with one message.
const directBatches = 2

// kick sends what is queued, unless somebody else is at it. It does not wait for the
// link.
func (s *sender) kick() {
	s.mu.Lock()
	if s.writing || s.err != nil || !s.more() {
		s.mu.Unlock()
		return
	}
	s.writing = true
	s.mu.Unlock()
	for range directBatches {
		segs, ok := s.turn()
		if !ok {
			return
		}
		size := s.batch.size
		left, err := s.link.writeNow(segs, size)
		if err != nil {
			s.fail(err)
			break
		}
		if len(left) > 0 {
			s.handoff <- left // there is room, as only the one who writes puts something in
			return
		}
	}
	if segs, ok := s.turn(); ok {
		s.handoff <- segs
	}
}

// run is the connection's writer. It returns after end.
func (s *sender) run() {
	for left := range s.handoff {
		for ok := true; ok; left, ok = s.turn() {
			s.since.Store(clock())
			err := s.link.write(left)
			s.since.Store(0)
			if err != nil {
				s.fail(err)
			}
		}
	}
}

// turn is for the one who writes: it lets go of the batch that has left, and makes the next.
// If there is none, ok is false, and the caller is not the one who writes any more.
func (s *sender) turn() (next segments, ok bool) {
	s.mu.Lock()
	free, left := s.settled()
	if len(free) > 0 { // while the batch is still the caller's
		s.mu.Unlock()
		for i, m := range free {
			m.body.Release()
			free[i] = nil
		}
		s.mu.Lock()
	}
	if ok = s.err == nil && s.more(); ok {
		s.pick()
	} else if s.err != nil {
		close(s.handoff)
	} else {
		s.writing = false
	}
	s.mu.Unlock()
	if left {
		close(s.idle)
	}
	if !ok {
		return nil, false
	}
	return s.batch.build(), true
}
