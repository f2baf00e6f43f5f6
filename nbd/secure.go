package nbd

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A connection of TLS is read and written by crypto/tls, which calls a wire for the bytes on
// the network. The wire reads without waiting, as long as there is something, so that all
// requests that have come are served together, and that a connection that waits holds no
// buffer of the server: both as without TLS.
//
// Copies: a received record is decrypted where it lies, and copied from there to where the
// payload goes. A record that is sent is encrypted from the reply buffer into a buffer of
// crypto/tls. That is all that there is for long payloads. What is shorter than a record is
// gathered first, as each call of crypto/tls makes a record of its own (see
// docs/performance.md).

// notYet are errors that crypto/tls passes on and forgets, as it does with those that say
// that they are temporary.
type notYet string

func (e notYet) Error() string   { return string(e) }
func (e notYet) Timeout() bool   { return false }
func (e notYet) Temporary() bool { return true }

var _ net.Error = notYet("")

// errEmpty is what a wire returns if the socket is empty, and it must not wait.
var errEmpty error = notYet("nbd: socket is empty")

// goodbyeTime is how long the end of TLS may take to be sent: a client that reads nothing
// cannot hold it up longer.
const goodbyeTime = 500 * time.Millisecond

// recordBytes is the most that one record of TLS holds.
const recordBytes = 16 << 10

// wire is the connection below TLS. It reads for one goroutine at a time; crypto/tls sees to
// it that one at a time writes.
type wire struct {
	net.Conn // of the socket
	s        *socket

	greeting bool // the handshake of TLS is under way
	ending   bool // all that is still sent is that it ends
	budget   int  // bytes that it may still read before there is something for the server

	into    receiver // asked before the wire waits; nil: it does not wait
	drained bool     // the last read took all there was
	p       []byte   // being read
	n       int
	err     error
	fn      func(fd uintptr) bool

	first [1]byte // of what receive waits for

	writing sync.Mutex // over what follows, and socket.w
	vec     [1][]byte  // being written
	more    bool       // more follows of what sendTLS sends
}

// secure does the server's part of a TLS handshake. From then on the socket moves bytes by
// TLS. The deadlines of the connection hold.
func (s *socket) secure(config *tls.Config, buffers *buffers) (*tls.Conn, error) {
	w := &wire{Conn: s.conn, s: s, greeting: true, budget: helloMax}
	w.fn = w.readReady
	tc := tls.Server(w, config)
	if err := tc.Handshake(); err != nil {
		return nil, err
	}
	w.greeting, w.budget = false, helloMax
	s.tls, s.wire, s.buffers = tc, w, buffers
	return tc, nil
}

// Read implements net.Conn for crypto/tls. What it reads for receive it reads without
// waiting, unless it is the first.
func (w *wire) Read(p []byte) (int, error) {
	if w.budget <= 0 && w.greeting {
		return 0, errLongHello
	}
	if w.budget <= 0 {
		return 0, errNoData
	}
	n, err := w.read(p[:min(len(p), w.budget)])
	w.budget -= n
	return n, err
}

func (w *wire) read(p []byte) (int, error) {
	switch {
	case w.s.raw == nil || !w.s.moving: // as in both handshakes
		return w.Conn.Read(p)
	case w.into == nil && w.drained:
		return 0, errEmpty
	}
	w.p, w.n, w.err = p, 0, nil
	err := w.s.raw.Read(w.fn)
	w.p = nil
	if err != nil {
		return 0, err
	}
	w.drained = w.n < len(p)
	return w.n, w.err
}

func (w *wire) readReady(fd uintptr) bool {
	for {
		n, err := unix.Read(int(fd), w.p)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN && w.into == nil:
			w.err = errEmpty
		case err == unix.EAGAIN && w.into.held():
			w.err = errHeld
		case err == unix.EAGAIN:
			w.into.idle()
			return false
		case err != nil:
			w.err = err
		case n == 0:
			w.err = io.EOF
		default:
			w.n = n
		}
		return true
	}
}

// Write implements net.Conn for crypto/tls. The client must take enough of it within the
// stall time.
func (w *wire) Write(p []byte) (int, error) {
	if w.s.raw == nil || !w.s.moving {
		return w.Conn.Write(p)
	}
	w.writing.Lock()
	defer w.writing.Unlock()
	w.vec[0] = p
	if err := w.s.sendRaw(w.vec[:], w.more); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetWriteDeadline implements net.Conn for crypto/tls, which calls it when TLS ends.
func (w *wire) SetWriteDeadline(t time.Time) error {
	if most := time.Now().Add(goodbyeTime); w.ending && t.After(most) {
		t = most
	}
	return w.Conn.SetWriteDeadline(t)
}

// tlsStream is what a connection of TLS carries.
type tlsStream struct{ *socket }

// Read implements io.Reader. Each time that there is something, the client may send some more: a
// record, and what TLS needs for itself. Without that bound it could begin a handshake message
// of 256 KiB, which crypto/tls would keep.
func (s tlsStream) Read(p []byte) (int, error) {
	n, err := s.tls.Read(p)
	if n > 0 {
		s.wire.budget = helloMax
	}
	return n, err
}

// Write implements io.Writer.
func (s tlsStream) Write(p []byte) (int, error) { return s.tls.Write(p) }

// receiveTLS is receive for a connection of TLS. The wait is for a single byte, as into has no
// memory meanwhile: crypto/tls keeps the rest of the record. The record's bytes, and those of
// others that have come, follow without a wait.
func (s *socket) receiveTLS(into receiver) (int, error) {
	s.wire.into = into
	n, err := tlsStream{s}.Read(s.wire.first[:])
	s.wire.into = nil
	if n == 0 {
		return 0, err
	}
	a, _ := into.target()
	a[0] = s.wire.first[0]
	for n < len(a) && err == nil {
		var k int
		k, err = tlsStream{s}.Read(a[n:])
		n += k
	}
	return n, nil // if there was an error, the next call gets it again
}

// sendTLS is send for a connection of TLS. It sends full records: long buffers as they are,
// the rest gathered.
func (s *socket) sendTLS(bufs [][]byte) error {
	w := s.wire
	w.writing.Lock()
	w.more = true // the client's time is for all of it, not for each record
	w.writing.Unlock()
	var gather *buffer
	defer func() {
		w.writing.Lock()
		w.more = false
		s.untime()
		w.writing.Unlock()
		if gather != nil {
			s.buffers.put(gather)
		}
	}()
	n := 0 // bytes gathered
	for i, p := range bufs {
		if n == 0 && i == len(bufs)-1 {
			return s.writeTLS(p)
		}
		for len(p) > 0 {
			if n == 0 && len(p) >= recordBytes {
				whole := len(p) / recordBytes * recordBytes
				if err := s.writeTLS(p[:whole]); err != nil {
					return err
				}
				p = p[whole:]
				continue
			}
			if gather == nil {
				gather = s.buffers.get(recordBytes)
			}
			k := copy(gather.b[n:recordBytes], p)
			p, n = p[k:], n+k
			if n == recordBytes {
				if err := s.writeTLS(gather.b[:n]); err != nil {
					return err
				}
				n = 0
			}
		}
	}
	if n == 0 {
		return nil
	}
	return s.writeTLS(gather.b[:n])
}

func (s *socket) writeTLS(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	_, err := s.tls.Write(p)
	return err
}

// endTLS tells a client that nothing was cut off.
func (s *socket) endTLS() {
	if s.tls != nil {
		s.moving, s.wire.ending = false, true
		_ = s.tls.CloseWrite() // the client may be gone
	}
}
