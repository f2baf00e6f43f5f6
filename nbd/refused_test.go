package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/device"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// listen has the server listen on another address, and returns it.
func (s *served) listen(network, address string) net.Addr {
	s.t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(context.Background(), ln) }()
	s.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			s.t.Error(err)
		}
		<-ended
	})
	return ln.Addr()
}

// full opens connections until one is refused, and returns how many it took and
// what the refused one was told.
func (s *served) full(addr net.Addr) (n int, told error) {
	s.t.Helper()
	for ; ; n++ {
		c, err := nbdclient.Dial(s.t.Context(), addr.Network(), addr.String(), nbdclient.Options{Export: "disk"})
		if err != nil {
			return n, err
		}
		s.t.Cleanup(func() { c.Close() })
	}
}

// A client over the limit is told so, in the way of the protocol.
func TestRefusedClientsAreTold(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{Connections: 2})
	unix := &net.UnixAddr{Net: "unix", Name: s.addr}
	n, told := s.full(unix)
	if n != 2 || !strings.Contains(told.Error(), "2 connections are the limit") {
		t.Errorf("%d connections, then %v", n, told)
	}
	// Whatever it asks for first.
	for _, opt := range []nbd.Option{nbd.OptList, nbd.OptInfo, nbd.OptGo} {
		r := s.options()
		payload := nbdclient.InfoPayload("disk")
		if opt == nbd.OptList {
			payload = nil
		}
		if typ := r.last(opt, payload); typ != nbd.RepErrPolicy {
			t.Errorf("option %d: reply %#x", opt, typ)
		}
		r.Close()
	}
	r := s.options()
	r.Send(nbd.OptExportName, []byte("disk")) // to which no error can be sent
	r.closed()
	if n := s.Stats().Refused; n < 5 {
		t.Errorf("%d are counted", n)
	}
}

// A few are told at a time; a server that closes does not wait for them.
func TestRefusalsAreBounded(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{Connections: 1})
	s.client(nbdclient.Options{})
	told := 0
	for range 40 {
		if n, _ := io.ReadFull(s.dial().Conn, make([]byte, 18)); n > 0 {
			told++
		}
	}
	if told == 0 || told > 16 {
		t.Errorf("%d were told at once", told)
	}
	r := s.dial()
	err := r.Start(nbd.FlagFixedNewstyle)
	if !errors.Is(err, nbdclient.ErrNotTaken) {
		t.Errorf("the client says: %v", err)
	}
}

// Strangers by network leave room for clients on this machine, those leave room
// for block devices, and each listener has its part.
func TestConnectionsHaveParts(t *testing.T) {
	limits := nbd.Limits{Connections: 64, Address: 1000}
	s := serve(t, nbdtest.NewMemory(testSize), limits)
	local := &net.UnixAddr{Net: "unix", Name: s.addr}
	a, b := s.listen("tcp", "127.0.0.1:0"), s.listen("tcp", "127.0.0.1:0")
	for _, addr := range []net.Addr{a, b} {
		if n, told := s.full(addr); n != 24 { // half of three quarters
			t.Errorf("%d connections by %v, then %v", n, addr, told)
		}
	}
	if n, told := s.full(local); n != 12 {
		t.Errorf("%d connections by the unix socket, then %v", n, told)
	}
	for range 4 {
		resender(t, s, new(nbd.Resender))
	}
	end, done := resenderEnd(t, s, new(nbd.Resender))
	end.Close()
	if err := <-done; err == nil {
		t.Error("one more than there are")
	}
	if st := s.Stats(); st.Connections != 64 {
		t.Errorf("%d connections", st.Connections)
	}
}

// One address does not take what others may have, and gives it back.
func TestConnectionsOfAnAddress(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{Connections: 32})
	addr := s.listen("tcp", "127.0.0.1:0")
	from := func(ip string) (*nbdclient.Client, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		c, err := d.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		return nbdclient.New(t.Context(), c, nbdclient.Options{Export: "disk"})
	}
	var last *nbdclient.Client
	for i := range 12 { // half of three quarters
		c, err := from("127.0.0.1")
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		t.Cleanup(func() { c.Close() })
		last = c
	}
	if _, err := from("127.0.0.1"); err == nil || !strings.Contains(err.Error(), "from one address") {
		t.Errorf("one more: %v", err)
	}
	c, err := from("127.0.0.2")
	if err != nil {
		t.Errorf("from another address: %v", err)
	} else {
		c.Close()
	}
	last.Close()
	for {
		c, err := from("127.0.0.1")
		if err == nil { // the server has seen that the other one is gone
			c.Close()
			return
		}
	}
}

// The limit can be lowered while clients are connected: they stay.
func TestLimitConnections(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{Connections: 64})
	local := &net.UnixAddr{Net: "unix", Name: s.addr}
	c := s.client(nbdclient.Options{})
	s.LimitConnections(8)
	if n, told := s.full(local); n != 7 || !strings.Contains(told.Error(), "8 connections") {
		t.Errorf("%d more connections, then %v", n, told)
	}
	s.LimitConnections(4)
	if n, _ := s.full(local); n != 0 {
		t.Errorf("%d more connections", n)
	}
	if err := c.Flush(); err != nil {
		t.Error(err)
	}
	s.LimitConnections(0)
	if n, _ := s.full(local); n != 64-4-8 {
		t.Errorf("%d more connections", n)
	}
}

// accepted hands on the connections of a listener.
type accepted struct {
	net.Listener
	conns chan *net.TCPConn
}

func (a accepted) Accept() (net.Conn, error) {
	c, err := a.Listener.Accept()
	if err == nil {
		a.conns <- c.(*net.TCPConn)
	}
	return c, err
}

// A TCP peer that is gone without a word is noticed by the kernel.
func TestDeadPeersAreNoticed(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns := make(chan *net.TCPConn, 1)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(context.Background(), accepted{ln, conns}) }()
	c, err := nbdclient.Dial(t.Context(), "tcp", ln.Addr().String(), nbdclient.Options{Export: "disk"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { c.Close(); s.Close(); <-ended }()
	raw, err := (<-conns).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, level, most int }{
		{unix.SO_KEEPALIVE, unix.SOL_SOCKET, 1},
		{unix.TCP_KEEPIDLE, unix.IPPROTO_TCP, 60},
		{unix.TCP_KEEPINTVL, unix.IPPROTO_TCP, 10},
		{unix.TCP_USER_TIMEOUT, unix.IPPROTO_TCP, 60000},
	} {
		var v int
		if e := raw.Control(func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), test.level, test.name) }); e != nil || err != nil {
			t.Fatal(e, err)
		}
		if v < 1 || v > test.most {
			t.Errorf("socket option %d is %d; want 1 to %d", test.name, v, test.most)
		}
	}
}

// Names that clients give are quoted in the log and cut, wherever they turn up.
func TestLogOfNamesIsBounded(t *testing.T) {
	var log lockedBuffer
	s, err := nbd.NewServer(longNames{nbdtest.Exports{}}, nbd.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	names := []string{strings.Repeat("\x00", 4096), strings.Repeat("\n\x1b[31m", 500), strings.Repeat("ä", 2000)}
	for range 200 {
		names = append(names, "again and again")
	}
	for _, name := range names {
		near, far := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- s.ServeConn(far) }()
		r := &raw{Conn: near, Handshake: nbdclient.NewHandshake(near), t: t}
		if err := r.Start(nbd.FlagFixedNewstyle); err != nil {
			t.Fatal(err)
		}
		r.Send(nbd.OptExportName, []byte(name))
		if err := <-done; err == nil {
			t.Fatal("no error")
		}
		near.Close()
	}
	for line := range strings.Lines(log.String()) {
		if len(line) > 1000 {
			t.Errorf("a line of %d bytes: %.200s", len(line), line)
		}
		if i := strings.IndexFunc(line, func(r rune) bool { return r < ' ' && r != '\n' }); i >= 0 {
			t.Errorf("a control character at %d: %q", i, line)
		}
	}
	if n := strings.Count(log.String(), "\n"); n == 0 || n > 100 {
		t.Errorf("%d lines are logged", n)
	}
}

// longNames are exports that repeat the name in their errors, as it is.
type longNames struct{ nbdtest.Exports }

func (longNames) Open(_ context.Context, name string) (device.Reader, func(), error) {
	return nil, nil, errors.New("no vDisk " + name)
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}
