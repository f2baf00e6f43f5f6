package cluster

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// divider gives the connections of one listener to two servers, by their first byte: TLS
// begins with 22, and a preface of package wire with another. It reads nothing.
type divider struct {
	l          net.Listener
	tls, plain *half
	looking    chan struct{} // one for each connection whose first byte has not come
	end        chan struct{}
	once       sync.Once
}

const (
	lookingMax  = 128 // connections whose first byte has not come
	lookingTime = 10 * time.Second
	tlsByte     = 22 // a record of a handshake
)

// half is the listener of one of the servers.
type half struct {
	of    *divider
	conns chan net.Conn
}

func divide(l net.Listener) *divider {
	d := &divider{l: l, looking: make(chan struct{}, lookingMax), end: make(chan struct{})}
	d.tls, d.plain = &half{d, make(chan net.Conn)}, &half{d, make(chan net.Conn)}
	return d
}

// run takes connections until a half is closed. When there are too many whose first byte
// has not come, the next one waits in the system's queue.
func (d *divider) run() {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		select {
		case d.looking <- struct{}{}:
		case <-d.end:
			return
		}
		c, err := d.l.Accept()
		if err != nil {
			<-d.looking
			select {
			case <-d.end:
				return
			case <-time.After(5 * time.Millisecond): // no descriptor is free
			}
			if errors.Is(err, net.ErrClosed) {
				d.close()
				return
			}
			continue
		}
		all.Go(func() {
			to, err := d.of(c)
			<-d.looking
			if err != nil {
				_ = c.Close()
				return
			}
			select {
			case to.conns <- c:
			case <-d.end:
				_ = c.Close()
			}
		})
	}
}

// of says whose connection it is, by its first byte, which stays unread.
func (d *divider) of(c net.Conn) (*half, error) {
	stop := make(chan struct{})
	defer close(stop)
	if err := c.SetReadDeadline(time.Now().Add(lookingTime)); err != nil {
		return nil, err
	}
	go func() { // the end of the host ends the wait
		select {
		case <-d.end:
			_ = c.SetReadDeadline(time.Unix(1, 0))
		case <-stop:
		}
	}()
	first, err := peek(c)
	if err != nil {
		return nil, err
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if first == tlsByte {
		return d.tls, nil
	}
	return d.plain, nil
}

var errNotPeeked = errors.New("nothing came")

func peek(c net.Conn) (first byte, err error) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return 0, errors.New("no socket")
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	var b [1]byte
	n, readErr := 0, error(nil)
	err = raw.Read(func(fd uintptr) bool {
		n, _, readErr = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return readErr != unix.EAGAIN && readErr != unix.EINTR
	})
	if err = errors.Join(err, readErr); err == nil && n == 0 {
		err = errNotPeeked
	}
	return b[0], err
}

func (d *divider) close() {
	d.once.Do(func() {
		close(d.end)
		_ = d.l.Close()
	})
}

// Accept implements net.Listener.
func (h *half) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.of.end:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener: it closes the other half too.
func (h *half) Close() error { h.of.close(); return nil }

// Addr implements net.Listener.
func (h *half) Addr() net.Addr { return h.of.l.Addr() }
