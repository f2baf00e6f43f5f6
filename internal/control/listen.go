package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrAnswered is returned by ListenUnix when a living process serves the path.
var ErrAnswered = errors.New("another process listens on it")

// ListenUnix listens on a unix socket that only its owner may use. It replaces what a
// killed process left at path, if that is a socket and nobody answers on it. Closing the
// listener removes the socket. A path of more than PathMax bytes is taken too: clients
// must reach it by SocketAddress.
func ListenUnix(path string) (net.Listener, error) {
	if err := checkStale(path); err != nil {
		return nil, err
	}
	// The socket is made under another name, so that it has its mode before anybody can
	// find it. Then it is renamed, which replaces a stale socket.
	draft := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := removeSocket(draft); err != nil {
		return nil, err
	}
	l, err := bind(draft)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(draft, 0o600)
	if err == nil {
		err = os.Rename(draft, path)
	}
	if err != nil {
		l.Close()
		os.Remove(draft)
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	made, err := os.Lstat(path)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &unixListener{Listener: l, path: path, made: made}, nil
}

func bind(path string) (*net.UnixListener, error) {
	address, done, err := SocketAddress(path)
	if err != nil {
		return nil, err
	}
	defer done()
	return net.ListenUnix("unix", &net.UnixAddr{Name: address, Net: "unix"})
}

// checkStale returns nil if path is absent or a socket that nobody serves.
func checkStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("socket path %s is taken by something that is not a socket; remove it or name another", path)
	}
	address, done, err := SocketAddress(path)
	if err != nil {
		return err
	}
	defer done()
	c, err := net.DialTimeout("unix", address, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("socket path %s: %w; stop that one or name another", path, ErrAnswered)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("socket path %s: cannot tell if somebody listens: %w", path, err)
	}
	return nil
}

// removeSocket removes a socket that a killed process with this process's number left. A
// file of that name that is no socket stays.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s is in the way of a socket; move it", path)
	}
	if err == nil {
		err = os.Remove(path)
	}
	return err
}

// unixListener removes its socket when it is closed. It leaves another socket that has
// the path by then: the directory may have been replaced.
type unixListener struct {
	net.Listener
	path string
	made fs.FileInfo
	once sync.Once
	err  error
}

func (l *unixListener) Close() error {
	l.once.Do(func() {
		if there, err := os.Lstat(l.path); err == nil && os.SameFile(there, l.made) {
			os.Remove(l.path) // first: no client finds a socket that nobody serves
		}
		l.err = l.Listener.Close()
	})
	return l.err
}

// Addr returns the path that clients use, which is not the one that the socket was bound
// to.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// ListenTCP listens on a TCP address. Unless insecure is set it refuses an address that
// other machines can reach: nothing on the wire is encrypted, and no client is
// authenticated.
func ListenTCP(address string, insecure bool) (net.Listener, error) {
	if !insecure {
		if err := CheckLoopback(address); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// ErrNotLoopback is returned for an address that other machines can reach.
var ErrNotLoopback = errors.New("other machines can reach it, without encryption or a password")

// CheckLoopback returns ErrNotLoopback for an address that ListenTCP refuses.
func CheckLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w; write for instance 127.0.0.1:10809", address, err)
	}
	if ip := net.ParseIP(strings.TrimSuffix(host, "%lo")); ip != nil && ip.IsLoopback() || host == "localhost" {
		return nil
	}
	return fmt.Errorf("address %q: %w; use 127.0.0.1 or [::1], or say --insecure", address, ErrNotLoopback)
}

// limitListener takes a bounded number of connections at once. Further connections wait
// in the kernel's queue.
type limitListener struct {
	net.Listener
	slots chan struct{}
	gone  chan struct{} // closed by Close
	once  sync.Once
}

func newLimitListener(l net.Listener, n int) *limitListener {
	return &limitListener{Listener: l, slots: make(chan struct{}, n), gone: make(chan struct{})}
}

func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.gone:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limitListener) Close() error {
	l.once.Do(func() { close(l.gone) })
	return l.Listener.Close()
}

type limitConn struct {
	net.Conn
	release func()
}

func (c *limitConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
