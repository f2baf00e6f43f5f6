package lint

import (
	"regexp"
	"strings"
	"testing"
)

// vdiskError is the beginning of an error about a vDisk or a snapshot of it, up to two
// bytes behind the name.
var vdiskError = regexp.MustCompile(`Errorf\("(?:metadata: |%w: |import %s: |registry: )?(?:snapshot %[qsv] of )?vDisk %[.0-9]*[a-z]([^"]{2})`)

// TestFormOfErrors: an error of a vDisk has one form, `vDisk "name": what: cause`.
func TestFormOfErrors(t *testing.T) {
	seen := 0
	for _, s := range sources(t) {
		if s.test || strings.HasPrefix(s.pkg, "scripts") {
			continue
		}
		for _, m := range vdiskError.FindAllStringSubmatch(s.text, -1) {
			seen++
			if m[1] != ": " {
				t.Errorf("%s: %s...: no colon behind the name", s.path, m[0])
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d errors of vDisks are found", seen)
	}
}
