// Package genltest is a kernel for tests of generic netlink: it answers
// questions as a test says.
package genltest

import (
	"encoding/binary"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/blockdev/genl"
)

// Answer is what becomes of a question: messages of the family, and an errno, 0
// if it was done.
type Answer struct {
	Messages []genl.Message
	Errno    syscall.Errno
}

// Peer is the other end of a socket.
type Peer struct {
	t    *testing.T
	file *os.File
	done chan struct{}
}

// New returns a socket whose questions answer answers.
func New(t *testing.T, answer func(genl.Message) Answer) (genl.Port, *Peer) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &Peer{t, os.NewFile(uintptr(pair[1]), "kernel"), make(chan struct{})}
	go p.serve(answer)
	t.Cleanup(func() {
		_ = p.file.Close()
		<-p.done
	})
	return os.NewFile(uintptr(pair[0]), "netlink"), p
}

func (p *Peer) serve(answer func(genl.Message) Answer) {
	defer close(p.done)
	b := make([]byte, 64<<10)
	for {
		n, err := p.file.Read(b)
		if err != nil || n == 0 {
			return
		}
		q, _, err := genl.Decode(b[:n])
		if err != nil {
			p.t.Error(err)
			return
		}
		a := answer(q)
		for _, m := range a.Messages {
			m.Seq = q.Seq
			p.Send(genl.Append(nil, m))
		}
		p.Send(appendError(q, b[:n], a.Errno))
	}
}

// Send sends bytes, as news for instance.
func (p *Peer) Send(b []byte) {
	if _, err := p.file.Write(b); err != nil {
		p.t.Error(err)
	}
}

// appendError encodes the end of an answer.
func appendError(q genl.Message, question []byte, errno syscall.Errno) []byte {
	b := binary.NativeEndian.AppendUint32(nil, 36)
	b = binary.NativeEndian.AppendUint16(b, 2)
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = binary.NativeEndian.AppendUint32(b, q.Seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(-int32(errno)))
	return append(b, question[:16]...)
}
