package lint

import (
	"strings"
	"testing"
)

// mainLines is how long all of `package main` of the product may be, without tests.
const mainLines = 3000

// TestMainIsThin: cmd/ovs has flags, exit codes and printing. Logic and state have
// packages of their own, where they are tested without a process.
func TestMainIsThin(t *testing.T) {
	lines, files := 0, 0
	for _, s := range sources(t) {
		if s.pkg != "cmd/ovs" || s.test {
			continue
		}
		files++
		lines += strings.Count(s.text, "\n")
		if strings.Contains(s.text, "sync.Mutex") || strings.Contains(s.text, "sync.RWMutex") {
			t.Errorf("%s has a mutex: what it guards belongs to another package", s.path)
		}
	}
	if files == 0 || lines > mainLines {
		t.Errorf("cmd/ovs has %d lines in %d files, at most %d may be", lines, files, mainLines)
	}
}
