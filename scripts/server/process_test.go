package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestURI(t *testing.T) {
	for export, want := range map[string]string{
		"":          "nbd+unix:///?socket=/a/b.sock",
		"disk@snap": "nbd+unix:///disk@snap?socket=/a/b.sock",
		"a/b c":     "nbd+unix:///a/b%20c?socket=/a/b.sock",
	} {
		if got := (Command{Socket: "/a/b.sock"}).URI(export); got != want {
			t.Errorf("%q: %s, want %s", export, got, want)
		}
	}
}

// sh is a server made of a shell script.
func sh(script string) Command {
	return Command{Name: "script", Args: []string{"sh", "-c", script}, ReadyLine: "ready"}
}

func TestStartWaitsForTheReadyLine(t *testing.T) {
	p, err := Start(sh("echo first; echo ready; exec cat /dev/zero > /dev/null"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	if !strings.Contains(p.Output(), "first") {
		t.Errorf("the output is %q", p.Output())
	}
	if rss, err := p.RSS(); err != nil || rss == 0 {
		t.Errorf("RSS %d, %v", rss, err)
	}
	for used := time.Duration(0); used == 0; {
		if used, err = p.CPU(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStartSaysWhyNot(t *testing.T) {
	_, err := Start(sh("echo the reason >&2; exit 3"))
	if err == nil || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("got %v, want the reason", err)
	}
}

func TestStop(t *testing.T) {
	p, err := Start(sh("trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(time.Minute); err != nil {
		t.Error(err)
	}
	p, err = Start(sh("trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(time.Minute); err == nil {
		t.Error("a server that ended with 4 was said to have stopped well")
	}
}

func TestStaleSocketIsRemoved(t *testing.T) {
	c := sh("exit 0")
	c.ReadyLine, c.Socket = "", filepath.Join(t.TempDir(), "socket")
	if err := os.WriteFile(c.Socket, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(c); err == nil {
		t.Fatal("a server that ends at once was started")
	}
	if _, err := os.Stat(c.Socket); !os.IsNotExist(err) {
		t.Errorf("the socket: %v", err)
	}
}
