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
