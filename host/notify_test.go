package host

import (
	"net"
	"os"
	"path/filepath"
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
