package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := notify(stateReady); err != nil {
		t.Error(err)
	}
	dir, err := os.MkdirTemp("", "ovs") // the paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, name := range []string{filepath.Join(dir, "notify"), "@ovs-notify-" + filepath.Base(dir)} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("NOTIFY_SOCKET", name)
		for _, state := range []string{stateReady, stateStopping} {
			if err := notify(state); err != nil {
				t.Error(err)
			}
			b := make([]byte, 64)
			if n, err := l.Read(b); err != nil || string(b[:n]) != state {
				t.Errorf("got %q, %v", b[:n], err)
			}
		}
		l.Close()
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "none"))
	if err := notify(stateReady); err == nil {
		t.Error("nobody was told, and no error")
	}
}

// The unit is one that systemd takes, but for where the program lies.
func TestUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd here")
	}
	unit, err := os.ReadFile("../../scripts/systemd/ovs.service")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(unit), "/usr/local/bin/ovs", program)
	name := filepath.Join(t.TempDir(), "ovs.service")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", name).CombinedOutput()
	for _, line := range strings.Split(string(out), "\n") {
		if strings.Contains(line, "ovs.service") {
			t.Error(line)
		}
	}
	if err != nil {
		t.Logf("systemd-analyze: %v: %s", err, out)
	}
}
