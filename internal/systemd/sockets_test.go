package systemd

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// opened is a socket under a name, as systemd hands it over.
func opened(t *testing.T, name string, s interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := s.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), name)
}

func TestListeners(t *testing.T) {
	dir, err := os.MkdirTemp("", "ovs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "nbd.sock")
	unix, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()

	got, err := listeners([]*os.File{opened(t, "nbd", unix), opened(t, "metrics", tcp), opened(t, "nbd", tcp)}, []string{"nbd", "metrics"})
	if err != nil {
		t.Fatal(err)
	}
	if len(got["nbd"]) != 2 || len(got["metrics"]) != 1 || got["nbd"][0].Addr().String() != path {
		t.Errorf("%v", got)
	}
	for _, s := range []struct {
		conn syscall.Conn
		is   bool
	}{{unix, true}, {tcp, true}, {stranger(t), false}} {
		if is := Inherited(inodeOf(t, s.conn)); is != s.is {
			t.Errorf("%v: inherited: %v", s.conn.(net.Listener).Addr(), is)
		}
	}
	for _, list := range got {
		for _, l := range list {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	// systemd still has the socket, with its path: a client that connects now waits.
	if c, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}

	datagrams, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "d"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	abstract, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@" + filepath.Base(dir), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	for _, c := range []struct {
		file *os.File
		says string
	}{
		{opened(t, "ovs.socket", unix), "FileDescriptorName= in its unit to one of: nbd, metrics"},
		{opened(t, "nbd", datagrams), "ListenStream="},
		{opened(t, "nbd", abstract), "no path"},
	} {
		if got, err := listeners([]*os.File{opened(t, "nbd", tcp), c.file}, []string{"nbd", "metrics"}); err == nil || !strings.Contains(err.Error(), c.says) || got != nil {
			t.Errorf("%v, %v; want an error that says %q", got, err, c.says)
		}
	}
	if got, err := listeners(nil, []string{"nbd"}); err != nil || len(got) != 0 {
		t.Error(got, err)
	}
}

// stranger is a socket that this process has opened itself.
func stranger(t *testing.T) *net.TCPListener {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func inodeOf(t *testing.T, c syscall.Conn) (inode uint64) {
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			var st syscall.Stat_t
			if err := syscall.Fstat(int(fd), &st); err != nil {
				t.Error(err)
			}
			inode = st.Ino
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return inode
}
