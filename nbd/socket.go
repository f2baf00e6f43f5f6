package nbd

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const maxIovecs = 128

// errHeld is what receive returns when the socket is empty and replies are held.
var errHeld = errors.New("nbd: replies are held")

// receiver says where received bytes go.
type receiver interface {
	// target returns the memory to fill, first a, then b, which may be nil.
	target() (a, b []byte)
	// held reports whether replies wait to be sent before the next wait.
	held() bool
	// idle is called when the socket is empty, before waiting. The
	// memory of the last target is not used any more.
	idle()
}

// socket moves bytes. Unix and TCP sockets are read and written with readv and
// writev under the runtime's poller, which tells when a socket is empty or
// full; any other net.Conn goes by its methods. One goroutine may receive
// and one may send at a time.
type socket struct {
	conn  net.Conn
	raw   syscall.RawConn // nil: not a system socket
	stall time.Duration

	r struct {
		into receiver
		n    int
		err  error
		iov  [2]unix.Iovec
		fn   func(fd uintptr) bool
	}
	w struct {
		bufs  [][]byte // what is left to send
		err   error
		timed bool
		iov   [maxIovecs]unix.Iovec
		fn    func(fd uintptr) bool
	}
}

func newSocket(conn net.Conn, stall time.Duration) *socket {
	s := &socket{conn: conn, stall: stall}
	switch c := conn.(type) {
	case *net.TCPConn:
		_ = c.SetNoDelay(true) // a hint; the protocol works without it
		s.raw, _ = c.SyscallConn()
	case *net.UnixConn:
		// The default holds less than one large reply. A hint as well.
		_ = c.SetWriteBuffer(1 << 20)
		s.raw, _ = c.SyscallConn()
	}
	s.r.fn, s.w.fn = s.readReady, s.writeReady // once: method values allocate
	return s
}

// receive waits for bytes, fills into's target and returns their number.
func (s *socket) receive(into receiver) (int, error) {
	if s.raw == nil {
		a, _ := into.target()
		n, err := s.conn.Read(a)
		if n > 0 {
			err = nil // it comes again
		}
		return n, err
	}
	s.r.into, s.r.n, s.r.err = into, 0, nil
	if err := s.raw.Read(s.r.fn); err != nil {
		return 0, err
	}
	return s.r.n, s.r.err
}

func (s *socket) readReady(fd uintptr) bool {
	a, b := s.r.into.target()
	iov := append(s.r.iov[:0], iovec(a))
	if len(b) > 0 {
		iov = append(iov, iovec(b))
	}
	for {
		n, _, errno := unix.Syscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			clear(s.r.iov[:])
			if s.r.into.held() {
				// Not from in here: a send that fails closes the connection,
				// which waits for this call.
				s.r.err = errHeld
				return true
			}
			s.r.into.idle()
			return false
		case errno != 0:
			s.r.err = errno
		case n == 0:
			s.r.err = io.EOF
		default:
			s.r.n = int(n)
		}
		return true
	}
}

// send sends all of bufs, which it consumes. It fails if the peer takes
// nothing for the stall time.
func (s *socket) send(bufs [][]byte) error {
	if s.raw == nil {
		return s.sendSlow(bufs)
	}
	s.w.bufs, s.w.err = bufs, nil
	err := s.raw.Write(s.w.fn)
	s.w.bufs = nil
	if s.w.timed {
		s.w.timed = false
		_ = s.conn.SetWriteDeadline(time.Time{})
	}
	return errors.Join(err, s.w.err)
}

func (s *socket) writeReady(fd uintptr) bool {
	for {
		iov := s.w.iov[:0]
		for _, p := range s.w.bufs {
			if len(iov) == maxIovecs {
				break
			}
			if len(p) > 0 {
				iov = append(iov, iovec(p))
			}
		}
		if len(iov) == 0 {
			return true
		}
		n, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		clear(iov)
		switch errno {
		case 0:
			s.w.bufs = consume(s.w.bufs, int(n))
		case unix.EINTR:
		case unix.EAGAIN:
			// Setting a deadline has its price: only now is it needed.
			s.w.timed = true
			s.w.err = s.conn.SetWriteDeadline(time.Now().Add(s.stall))
			return s.w.err != nil
		default:
			s.w.err = errno
			return true
		}
	}
}

func (s *socket) sendSlow(bufs [][]byte) error {
	for _, p := range bufs {
		if len(p) == 0 {
			continue
		}
		if err := s.conn.SetWriteDeadline(time.Now().Add(s.stall)); err != nil {
			return err
		}
		if _, err := s.conn.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// consume drops the first n bytes of bufs.
func consume(bufs [][]byte, n int) [][]byte {
	for n > 0 {
		if n < len(bufs[0]) {
			bufs[0] = bufs[0][n:]
			return bufs
		}
		n -= len(bufs[0])
		bufs[0] = nil
		bufs = bufs[1:]
	}
	return bufs
}

func iovec(p []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(p)}
	v.SetLen(len(p))
	return v
}
