package hostile

import (
	"fmt"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
)

// link is a connection: a descriptor and nothing else.
type link struct{ fd int }

// patience bounds each call of a handshake, in seconds.
const patience = 5

func dial(t Target) (*link, error) {
	family, addr := unix.AF_UNIX, unix.Sockaddr(&unix.SockaddrUnix{Name: t.Address})
	if t.Network == "tcp" {
		tcp, err := net.ResolveTCPAddr("tcp4", t.Address)
		if err != nil {
			return nil, err
		}
		in4 := &unix.SockaddrInet4{Port: tcp.Port}
		copy(in4.Addr[:], tcp.IP.To4())
		family, addr = unix.AF_INET, in4
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	for _, opt := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, opt, &unix.Timeval{Sec: patience}); err != nil {
			break
		}
	}
	if err == nil {
		err = connect(fd, addr)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect to %s: %w", t.Address, err)
	}
	return &link{fd: fd}, nil
}

// connect goes on where a signal has interrupted it: the kernel does.
func connect(fd int, addr unix.Sockaddr) error {
	err := unix.Connect(fd, addr)
	if err != unix.EINTR {
		return err
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, patience*1000)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		return err
	}
}

func (l *link) close() { _ = unix.Close(l.fd) }

// reset ends a TCP connection as a machine that forgets it does.
func (l *link) reset() {
	_ = unix.SetsockoptLinger(l.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// Read and Write block for a while only.
func (l *link) Read(p []byte) (int, error) {
	for {
		switch n, err := unix.Read(l.fd, p); {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (l *link) Write(p []byte) (int, error) {
	for n := 0; ; {
		k, err := unix.SendmsgN(l.fd, p[n:], nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		default:
			if n += k; n == len(p) {
				return n, nil
			}
		}
	}
}

// put sends as much as the socket takes at once. EAGAIN says that it takes nothing.
func (l *link) put(p []byte) error {
	_, err := unix.SendmsgN(l.fd, p, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	return err
}

// take reads what has come, up to a few bytes. EAGAIN says that nothing has.
func (l *link) take(p []byte) error {
	n, _, err := unix.Recvfrom(l.fd, p, unix.MSG_DONTWAIT)
	if err == nil && n == 0 {
		return io.EOF
	}
	return err
}

// ended tells whether the server has ended the connection.
func (l *link) ended() bool {
	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 || err != nil && err != syscall.EINTR
}

// transmit goes through a handshake with structured replies.
func (l *link) transmit(t Target) error {
	h := nbdclient.NewHandshake(l)
	if err := h.Start(nbd.FlagFixedNewstyle | nbd.FlagNoZeroes); err != nil {
		return err
	}
	if ok, err := h.StructuredReply(); err != nil || !ok {
		return fmt.Errorf("structured replies: %v, %w", ok, err)
	}
	if ok, err := h.SetMetaContext(t.Export, nbd.BaseAllocation); err != nil || !ok {
		return fmt.Errorf("metadata context: %v, %w", ok, err)
	}
	info, err := h.Go(t.Export)
	if err == nil && info.Size < nbd.MaxPayload {
		err = fmt.Errorf("export %q has %d bytes", t.Export, info.Size)
	}
	return err
}
