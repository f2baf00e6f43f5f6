package nbd_test

import (
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// resender returns a client's end of a connection in its transmission phase,
// which sends requests again elsewhere; served gets the server's last word.
func resender(t *testing.T, s *served) (*raw, chan error) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		ends[i] = c.(*net.UnixConn)
	}
	t.Cleanup(func() { ends[0].Close() })
	done := make(chan error, 1)
	go func() { done <- s.ServeResender(ends[1]) }()
	h := nbdclient.NewHandshake(ends[0])
	if err := h.Start(nbd.FlagFixedNewstyle | nbd.FlagNoZeroes); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Go("disk"); err != nil {
		t.Fatal(err)
	}
	return &raw{t: t, Conn: ends[0]}, done
}

// A write that waits is cancelled when its client has hung up: it sends it on
// another connection, and must find nothing of this one done later.
func TestResenderThatHangsUp(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	gate, _ := gated(dev, nbdtest.OpWrite)
	s := serve(t, dev, nbd.Limits{}) // whose drain timeout is far longer
	r, done := resender(t, s)
	r.request(nbd.CmdWrite, 0, 0, 4096, make([]byte, 4096)...)
	gate.Arrived(1)
	r.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	gate.Open()
	if n := dev.Unflushed(); n != 0 {
		t.Errorf("%d writes were done", n)
	}
}

// One that has closed a direction only gets its replies as any other.
func TestResenderThatHalfCloses(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	gate, _ := gated(dev, nbdtest.OpWrite)
	r, done := resender(t, serve(t, dev, nbd.Limits{}))
	r.request(nbd.CmdWrite, 0, 0, 4096, make([]byte, 4096)...)
	gate.Arrived(1)
	if err := r.Conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	gate.Open()
	if e := r.simple(); e != nbd.OK {
		t.Error(e)
	}
	r.closed()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
