package nbd

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const maxIovecs = 128

// errHeld is returned by receive when the socket is empty and replies wait to be sent.
var errHeld error = notYet("nbd: replies are held")

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

// socket moves bytes. Unix and TCP sockets are read and written with readv and writev under
// the runtime's poller, so that the server knows when a socket is empty or full. Of any
// other net.Conn the methods are called. One goroutine may receive and one may send at a
// time.
type socket struct {
	conn  net.Conn
	raw   syscall.RawConn // nil: not a system socket
	stall time.Duration
	least uint64 // bytes that the peer must take within stall

	// Of a connection of TLS, since its handshake:
	tls     *tls.Conn
	wire    *wire
	buffers *buffers
	moving  bool // past the handshake: receive and send are used

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
		timed bool   // the write deadline is set
		sent  uint64 // since it was set
		iov   [maxIovecs]unix.Iovec
		fn    func(fd uintptr) bool
	}
}

func newSocket(conn net.Conn, stall time.Duration, least uint64) *socket {
	s := &socket{conn: conn, stall: stall, least: least}
	switch c := conn.(type) {
	case *net.TCPConn:
		_ = c.SetNoDelay(true) // a hint; the protocol works without it
		s.raw, _ = c.SyscallConn()
		s.noticeDeath(c)
	case *net.UnixConn:
		// The default holds less than one large reply. A hint as well.
		_ = c.SetWriteBuffer(1 << 20)
		s.raw, _ = c.SyscallConn()
	}
	s.r.fn, s.w.fn = s.readReady, s.writeReady // once: method values allocate
	return s
}

// Keepalive probes of an idle TCP connection: the first after keepIdle.
const (
	keepIdle     = 15 * time.Second
	keepInterval = 5 * time.Second
	keepCount    = 9
)

// noticeDeath has the kernel end a connection whose peer has vanished: it answers no probe
// while it is idle, or takes nothing that was sent to it. Errors do not matter, as the
// kernel's defaults notice it too, after a quarter of an hour.
func (s *socket) noticeDeath(c *net.TCPConn) {
	_ = c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepIdle, Interval: keepInterval, Count: keepCount})
	if s.raw != nil {
		_ = s.raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(max(s.stall.Milliseconds(), 1)))
		})
	}
}

// receive waits for bytes, fills into's target and returns their number.
func (s *socket) receive(into receiver) (int, error) {
	if s.raw == nil {
		a, _ := into.target()
		n, err := s.stream().Read(a)
		if n > 0 {
			err = nil // the next call returns it
		}
		return n, err
	}
	if s.tls != nil {
		return s.receiveTLS(into)
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
				// The caller sends them, as this function must not: a send that
				// fails closes the connection, and Close waits for this call.
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

// send sends all of bufs, which it consumes. It fails if the peer takes less
// than it must within the stall time.
func (s *socket) send(bufs [][]byte) error {
	switch {
	case s.raw == nil:
		return s.sendSlow(bufs)
	case s.tls != nil:
		return s.sendTLS(bufs)
	}
	return s.sendRaw(bufs, false)
}

// stream is what bytes are read from and written to, if not the system's socket.
func (s *socket) stream() io.ReadWriter {
	if s.tls != nil {
		return tlsStream{s}
	}
	return s.conn
}

// sendRaw sends bytes as they are. If more follow, the time that the client has for them goes on.
func (s *socket) sendRaw(bufs [][]byte, more bool) error {
	s.w.bufs, s.w.err = bufs, nil
	err := s.raw.Write(s.w.fn)
	for errors.Is(err, os.ErrDeadlineExceeded) && s.w.sent >= s.least {
		s.w.sent = 0
		if err = s.conn.SetWriteDeadline(time.Now().Add(s.stall)); err == nil {
			err = s.raw.Write(s.w.fn)
		}
	}
	s.w.bufs = nil
	if !more {
		s.untime()
	}
	return errors.Join(err, s.w.err)
}

// untime ends the time that the client has to take what was sent.
func (s *socket) untime() {
	if s.w.timed {
		s.w.timed = false
		_ = s.conn.SetWriteDeadline(time.Time{})
	}
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
			s.w.sent += uint64(n)
		case unix.EINTR:
		case unix.EAGAIN:
			// Setting a deadline is not free, and is done only when the socket is full.
			if s.w.timed {
				return false
			}
			s.w.timed, s.w.sent = true, 0
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
		if _, err := s.stream().Write(p); err != nil {
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
