// Package unknown walks the table of docs/formats.md that says what becomes of
// what a later release may have written: each row is put into a format, alone, and
// read back. A row without a test, and a test without a row, is an error.
package unknown

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openvstorage/internal/format"
)

// heading begins the table's section.
const heading = "## What is not known"

// Case puts one thing into a format and reads the format.
type Case struct {
	Read func() error // what reading says
	Says string       // part of what it says if it refuses: the thing by its name
}

// Walk tests the rows of one format, which is the text of their first column.
// Cases are named as in the second.
func Walk(t *testing.T, name string, cases map[string]Case) {
	t.Helper()
	rows := table(t, name)
	for what := range cases {
		if _, ok := rows[what]; !ok {
			t.Errorf("%s: no row in docs/formats.md says what becomes of %q", name, what)
		}
	}
	for what, becomes := range rows {
		c, ok := cases[what]
		if !ok {
			t.Errorf("%s: nothing tests what becomes of %q", name, what)
			continue
		}
		err := c.Read()
		switch {
		case becomes == "kept" || becomes == "skipped":
			if err != nil {
				t.Errorf("%s: %s: it is to be %s: %v", name, what, becomes, err)
			}
		case becomes != "refused":
			t.Errorf("%s: %s: docs/formats.md says %q; it may be refused, kept or skipped", name, what, becomes)
		case !errors.Is(err, format.ErrNewer) || !strings.Contains(err.Error(), c.Says):
			t.Errorf("%s: %s: it is to be refused as of a newer release, with %q: %v", name, what, c.Says, err)
		}
	}
}

// table returns the rows of one format: what becomes of what.
func table(t *testing.T, name string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "formats.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), heading+"\n")
	if !found {
		t.Fatalf("docs/formats.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	rows := make(map[string]string)
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) == 5 && strings.TrimSpace(cells[1]) == name {
			rows[strings.TrimSpace(cells[2])] = strings.TrimSpace(cells[3])
		}
	}
	if len(rows) == 0 {
		t.Fatalf("the table of docs/formats.md has no row of %q", name)
	}
	return rows
}

// root is the directory of go.mod, above that of the test.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, serr := os.Stat(filepath.Join(dir, "go.mod")); serr == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
	}
	t.Fatal(err)
	return ""
}
