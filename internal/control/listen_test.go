package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "listen")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestSocketIsPrivateAndGoesWithClose(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Mode()&fs.ModeSocket == 0 {
		t.Errorf("%v, %v; want a socket of mode 0600", info.Mode(), err)
	}
	if l.Addr().String() != path {
		t.Errorf("address %v", l.Addr())
	}
	if _, err := ListenUnix(path); !errors.Is(err, ErrAnswered) {
		t.Errorf("a second listener: %v; want ErrAnswered", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestOtherFileIsLeftAlone(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestLongPath: a socket whose path is longer than the kernel takes is made,
// found, and replaced as others are.
func TestLongPath(t *testing.T) {
	short := shortDir(t)
	for _, n := range []int{PathMax - 3, PathMax, PathMax + 1, 250, 1500} {
		dir := short
		for len(dir) < n-2 {
			dir = filepath.Join(dir, strings.Repeat("d", min(200, n-2-len(dir)-1)))
			if len(dir) == n-3 {
				dir += "d"
			}
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "s")
		l, err := ListenUnix(path)
		if err != nil {
			t.Fatalf("%d bytes: %v", len(path), err)
		}
		if _, err := ListenUnix(path); !errors.Is(err, ErrAnswered) {
			t.Errorf("%d bytes: a second listener: %v; want ErrAnswered", len(path), err)
		}
		if l.Addr().String() != path {
			t.Errorf("address %v", l.Addr())
		}
		address, done, err := SocketAddress(path)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("unix", address)
		done()
		if err != nil {
			t.Fatalf("%d bytes: %v", len(path), err)
		}
		c.Close()
		l.Close()
		if entries, _ := os.ReadDir(dir); len(entries) != 0 {
			t.Errorf("left behind: %v", entries)
		}
	}
	if _, err := ListenUnix(filepath.Join(short, strings.Repeat("x", 110))); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a name of 110 bytes: %v", err)
	}
}

// TestLinkSocket: a link takes the place of what an earlier process left, and of
// nothing else.
func TestLinkSocket(t *testing.T) {
	dir := shortDir(t)
	name, socket := filepath.Join(dir, "ovs.sock"), filepath.Join(dir, "elsewhere")
	l, err := ListenUnix(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stale := func() {
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		dead.Close()
	}
	for what, make := range map[string]func(){
		"nothing": func() {}, "a stale socket": stale,
		"a dangling link": func() { os.Symlink("/none", name) }, "a link": func() { os.Symlink(socket, name) },
	} {
		os.Remove(name)
		make()
		if err := LinkSocket(name, socket); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		c, err := net.Dial("unix", name)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		c.Close()
	}
	os.Remove(name)
	if err := os.WriteFile(name, nil, 0o600); err != nil || LinkSocket(name, socket) == nil {
		t.Errorf("a file was replaced (%v)", err)
	}
	os.Remove(name)
	busy, err := ListenUnix(name)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := LinkSocket(name, socket); !errors.Is(err, ErrAnswered) {
		t.Errorf("a socket that is served: %v", err)
	}
}

func TestLoopbackOnly(t *testing.T) {
	for _, c := range []struct {
		address string
		ok      bool
	}{
		{"127.0.0.1:0", true}, {"127.1.2.3:0", true}, {"[::1]:0", true}, {"localhost:0", true},
		{"0.0.0.0:0", false}, {":0", false}, {"[::]:0", false}, {"192.0.2.1:1", false}, {"example.org:1", false}, {"localhost", false}, {"localhost.example.org:1", false},
	} {
		if err := CheckLoopback(c.address); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.address, err)
		}
	}
	if _, err := ListenTCP("0.0.0.0:0", false); !errors.Is(err, ErrNotLoopback) || !strings.Contains(err.Error(), "--insecure") {
		t.Errorf("%v", err)
	}
	l, err := ListenTCP("0.0.0.0:0", true)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// A file that has the name under which a socket is made is not removed.
func TestDraftOfSocketIsInTheWay(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	draft := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(draft, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), draft) {
		t.Errorf("%v, %v", l, err)
	}
	if b, err := os.ReadFile(draft); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
}
