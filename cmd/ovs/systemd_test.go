package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manager is systemd as far as `ovs up` sees it.
type manager struct {
	t     *testing.T
	dir   string
	news  *net.UnixConn
	files []*os.File
	names []string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "ovs") // the paths of sockets are short
	must(t, err)
	m := &manager{t: t, dir: dir}
	m.news, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() {
		m.news.Close()
		for _, f := range m.files {
			f.Close()
		}
		os.RemoveAll(dir)
	})
	return m
}

// open opens a socket for the service.
func (m *manager) open(name, network, address string) net.Addr {
	m.t.Helper()
	l, err := net.Listen(network, address)
	must(m.t, err)
	f, err := l.(interface{ File() (*os.File, error) }).File()
	must(m.t, err)
	m.files, m.names = append(m.files, f), append(m.names, name)
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	l.Close()
	return l.Addr()
}

// command is the service with its environment: two of the variables name its
// process.
func (m *manager) command(flags ...string) *exec.Cmd {
	m.t.Helper()
	program, err := exec.LookPath("ovs")
	must(m.t, err)
	c := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@"`, program, "up", "--data", filepath.Join(m.dir, "data"), "--backend", "local"}, flags...)...)
	c.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(m.dir, "notify"), "WATCHDOG_USEC=400000",
		"LISTEN_FDS="+string(rune('0'+len(m.files))), "LISTEN_FDNAMES="+strings.Join(m.names, ":"))
	c.ExtraFiles = m.files
	return c
}

// told waits for news from the service: any of others between are left out.
func (m *manager) told(want string) {
	m.t.Helper()
	must(m.t, m.news.SetReadDeadline(time.Now().Add(startTimeout)))
	b := make([]byte, 64)
	for {
		n, err := m.news.Read(b)
		if err != nil {
			m.t.Fatalf("not told %s: %v", want, err)
		}
		if string(b[:n]) == want {
			return
		}
	}
}

// A client that comes before the service is there waits, and is served; so is one
// that comes between two lives of it. systemd is told that it is ready, lives, and
// stops.
func TestUnderSystemd(t *testing.T) {
	m := newManager(t)
	path := m.open("nbd", "unix", filepath.Join(m.dir, "clients.sock")).String()
	metrics := m.open("metrics", "tcp", "127.0.0.1:0").String()
	for range 2 {
		early, err := net.Dial("unix", path)
		must(t, err)
		p, err := startUp(m.command(), startTimeout)
		must(t, err)
		t.Cleanup(func() { _ = p.signal(syscall.SIGKILL) })
		m.told("READY=1")
		greeting := make([]byte, 8)
		must(t, early.SetReadDeadline(time.Now().Add(startTimeout)))
		if _, err := io.ReadFull(early, greeting); err != nil || string(greeting) != "NBDMAGIC" {
			t.Errorf("%q, %v", greeting, err)
		}
		early.Close()
		for range 3 {
			m.told("WATCHDOG=1")
		}
		out := p.out.String()
		for _, line := range []string{"nbd ", path, "metrics ", metrics, "nbd.sock"} {
			if !strings.Contains(out, line) {
				t.Errorf("%q is not told:\n%s", line, out)
			}
		}
		resp, err := http.Get("http://" + metrics + "/metrics")
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Error(resp.Status)
		}
		if err := p.signal(syscall.SIGTERM); err != nil {
			t.Errorf("%v:\n%s", err, p.out.String())
		}
		m.told("STOPPING=1")
	}
}

// The socket of the data directory may be systemd's too.
func TestInheritedInPlaceOfOwn(t *testing.T) {
	m := newManager(t)
	path := filepath.Join(m.dir, "nbd.sock")
	m.open("nbd", "unix", path)
	p, err := startUp(m.command("--nbd-unix", path), startTimeout)
	must(t, err)
	defer p.signal(syscall.SIGTERM)
	if n := strings.Count(p.out.String(), path); n != 1 {
		t.Errorf("told %d times of one socket:\n%s", n, p.out.String())
	}
}

func TestInheritedRefused(t *testing.T) {
	for _, c := range []struct {
		name, network, address string
		flags                  []string
		says                   string
	}{
		{"manage", "unix", "m.sock", nil, "FileDescriptorName="},
		{"nbd", "tcp", "0.0.0.0:0", nil, "other machines can reach it"},
		{"metrics", "tcp", "127.0.0.1:0", []string{"--metrics", "127.0.0.1:0"}, "one address"},
		{"metrics", "unix", "m.sock", nil, "none of TCP"},
	} {
		m := newManager(t)
		if c.network == "unix" {
			c.address = filepath.Join(m.dir, c.address)
		}
		m.open(c.name, c.network, c.address)
		p, err := startUp(m.command(slices.Clone(c.flags)...), startTimeout)
		if err == nil {
			_ = p.signal(syscall.SIGTERM)
			t.Errorf("%+v: it starts", c)
		} else if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
