package systemd

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Ready(); err != nil {
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
		for state, tell := range map[string]func() error{"READY=1": Ready, "STOPPING=1": Stopping} {
			if err := tell(); err != nil {
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
	if err := Ready(); err == nil {
		t.Error("nobody was told, and no error")
	}
}

// A process that was started without a watchdog has none. Neither has one whose
// environment makes no sense or belongs to another process.
func TestNoWatchdog(t *testing.T) {
	for _, c := range []struct{ limit, pid string }{{"", ""}, {"soon", ""}, {"-1", ""}, {"1000", "1"}} {
		t.Setenv("WATCHDOG_USEC", c.limit)
		t.Setenv("WATCHDOG_PID", c.pid)
		w := Watch(slog.New(slog.DiscardHandler), Check{"never", func() { t.Error("asked") }})
		w.Close()
	}
}
