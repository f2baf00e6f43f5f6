package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	required = regexp.MustCompile(`(?m)^\t(\S+) v\S+$`) // and not "// indirect"
	listed   = regexp.MustCompile("`([a-z0-9.]+\\.[a-z]+/[^`]+)`")
)

// docs/libraries.md lists every library that go.mod requires directly, with its licence
// and the reason for it, and no other library.
func TestLibrariesAreListed(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "libraries.md"))
	if err != nil {
		t.Fatal(err)
	}
	table, _, _ := strings.Cut(string(page), "## Weighed")
	inTable := map[string]bool{}
	for line := range strings.Lines(table) {
		if strings.HasPrefix(line, "|") {
			for _, m := range listed.FindAllStringSubmatch(line, -1) {
				inTable[m[1]] = true
			}
		}
	}
	for _, m := range required.FindAllStringSubmatch(string(mod), -1) {
		if !inTable[m[1]] {
			t.Errorf("go.mod requires %s, and docs/libraries.md does not say what for", m[1])
		}
		delete(inTable, m[1])
	}
	for name := range inTable {
		t.Errorf("docs/libraries.md lists %s, which go.mod does not require by itself", name)
	}
}
