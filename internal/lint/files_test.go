package lint

import (
	"regexp"
	"strings"
	"testing"
)

// maxLines is for files of the product; tests may be longer.
const maxLines = 600

var (
	marker    = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)
	generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
)

// maxCommandLines is for cmd/ovs, without tests: flags, exit codes and printing.
const maxCommandLines = 3000

// TestCommandIsThin: cmd/ovs calls other packages for all that it does. It holds no
// state that two goroutines share.
func TestCommandIsThin(t *testing.T) {
	lines := 0
	for _, s := range sources(t) {
		if s.pkg != "cmd/ovs" || s.test {
			continue
		}
		lines += strings.Count(s.text, "\n")
		for _, i := range s.file.Imports {
			if p := strings.Trim(i.Path.Value, `"`); p == "sync" || p == "sync/atomic" {
				t.Errorf("%s: imports %s; state that is shared belongs to host, or to what it serves", s.path, p)
			}
		}
	}
	if lines == 0 || lines > maxCommandLines {
		t.Errorf("cmd/ovs has %d lines without tests; move what is over %d to the package whose noun it is", lines, maxCommandLines)
	}
}

func TestFiles(t *testing.T) {
	for _, s := range sources(t) {
		if generated.MatchString(s.text) {
			continue
		}
		lines := strings.Split(s.text, "\n")
		if n := len(lines) - 1; n > maxLines && !s.test {
			t.Errorf("%s: %d lines; split what is over %d by noun", s.path, n, maxLines)
		}
		for i, line := range lines {
			if m := marker.FindString(line); m != "" {
				t.Errorf("%s:%d: %s; do it, or say in docs what is left out and why", s.path, i+1, m)
			}
		}
	}
}
