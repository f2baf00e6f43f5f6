package host

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process that hangs up has its listeners refuse, their addresses free and its connections
// ended, though it closes nothing; what it was given by others goes on.
func TestHangUp(t *testing.T) {
	if os.Getenv("OVS_TEST_HANG_UP") == "" { // in a process of its own: others have sockets here
		c := exec.Command(os.Args[0], "-test.run=^TestHangUp$", "-test.v")
		c.Env = append(os.Environ(), "OVS_TEST_HANG_UP=yes")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	given, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(given[0])
	defer unix.Close(given[1])
	type served struct {
		l            net.Listener
		here, client net.Conn
	}
	var all []served
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		client, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		here, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer here.Close()
		all = append(all, served{l, here, client})
	}
	hangUp()
	for _, s := range all {
		network, address := s.l.Addr().Network(), s.l.Addr().String()
		_ = s.client.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := s.client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: a client reads %v", network, err)
		}
		if c, err := net.Dial(network, address); err == nil {
			t.Errorf("%s: it still listens", network)
			c.Close()
		}
		if network == "unix" {
			continue // the next one removes the name
		}
		l, err := net.Listen(network, address)
		if err != nil {
			t.Errorf("%s: the address is not free: %v", network, err)
			continue
		}
		l.Close()
	}
	if _, err := unix.Write(given[0], []byte("x")); err != nil {
		t.Errorf("what was given to this process: %v", err)
	}
}
