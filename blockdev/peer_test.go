package blockdev

import (
	"encoding/binary"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// reply is what becomes of a question: answers, and an errno, 0 if it was done.
type reply struct {
	answers []netlink.Message
	errno   syscall.Errno
}

// peer is the kernel's end of a socket: it answers as a test says, order and
// acknowledgement in a read of their own, as the kernel does.
type peer struct {
	t      *testing.T
	answer func(q netlink.Message) reply
	reads  chan []netlink.Message
	fail   chan error
	closed chan struct{}

	mu       sync.Mutex
	deadline time.Time
}

// newPeer returns a socket whose questions answer answers.
func newPeer(t *testing.T, answer func(netlink.Message) reply) (*kernelConn, *peer) {
	p := &peer{t: t, answer: answer, reads: make(chan []netlink.Message, 64), fail: make(chan error, 1), closed: make(chan struct{})}
	return &kernelConn{conn: genetlink.NewConn(netlink.NewConn(p, 77))}, p
}

// Send takes a question.
func (p *peer) Send(q netlink.Message) error {
	r := p.answer(q)
	for _, m := range r.answers {
		m.Header.Sequence = q.Header.Sequence
		p.say(m)
	}
	p.say(acknowledge(q.Header.Sequence, r.errno))
	return nil
}

// say brings messages in one read.
func (p *peer) say(m ...netlink.Message) { p.reads <- m }

// acknowledge is the end of an answer.
func acknowledge(seq uint32, errno syscall.Errno) netlink.Message {
	data := binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
	return netlink.Message{Header: netlink.Header{Type: netlink.Error, Sequence: seq}, Data: append(data, make([]byte, 16)...)}
}

// Receive brings one read, until the deadline.
func (p *peer) Receive() ([]netlink.Message, error) {
	p.mu.Lock()
	deadline := p.deadline
	p.mu.Unlock()
	var late <-chan time.Time
	if !deadline.IsZero() {
		late = time.After(time.Until(deadline))
	}
	select {
	case m := <-p.reads:
		return m, nil
	case err := <-p.fail:
		return nil, os.NewSyscallError("recvmsg", err)
	case <-p.closed:
		return nil, os.NewSyscallError("recvmsg", syscall.EBADF)
	case <-late:
		return nil, os.ErrDeadlineExceeded
	}
}

// SetReadDeadline bounds Receive.
func (p *peer) SetReadDeadline(at time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline = at
	return nil
}

// SetDeadline and SetWriteDeadline are there for the library.
func (p *peer) SetDeadline(at time.Time) error   { return p.SetReadDeadline(at) }
func (p *peer) SetWriteDeadline(time.Time) error { return nil }

// SendMessages is there for the library.
func (p *peer) SendMessages([]netlink.Message) error { return syscall.EOPNOTSUPP }

// Close ends a Receive that waits.
func (p *peer) Close() error {
	close(p.closed)
	return nil
}

// message is one of a family.
func message(family uint16, command uint8, attrs []byte) netlink.Message {
	return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(family)}, Data: append([]byte{command, 1, 0, 0}, attrs...)}
}

// encode writes attributes.
func encode(t *testing.T, write attributes) []byte {
	t.Helper()
	e := netlink.NewAttributeEncoder()
	write(e)
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// silent is a peer that takes questions and does not answer until it is told to.
type silent struct {
	*peer
	seq     uint32
	answers bool
}

func (s *silent) conn() *genetlink.Conn { return genetlink.NewConn(netlink.NewConn(s, 77)) }

// Send takes a question.
func (s *silent) Send(q netlink.Message) error {
	if s.answers {
		return s.peer.Send(q)
	}
	s.seq = q.Header.Sequence
	return nil
}

// questionForNobody asks for a family that nobody has.
func questionForNobody(t *testing.T) genetlink.Message {
	return genetlink.Message{
		Header: genetlink.Header{Command: unix.CTRL_CMD_GETFAMILY, Version: 1},
		Data:   encode(t, func(e *netlink.AttributeEncoder) { e.String(unix.CTRL_ATTR_FAMILY_NAME, "ovs-none") }),
	}
}
