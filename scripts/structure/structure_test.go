package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The figure is that of the packages as they are, and they point down.
func TestStructure(t *testing.T) {
	imports, err := load()
	if err != nil {
		t.Fatal(err)
	}
	// The Go command reads the sources in a process of its own: reading them here is
	// what lets it see that this test's result is out of date.
	for pkg := range imports {
		names, err := filepath.Glob(filepath.Join("../..", pkg, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if _, err := os.ReadFile(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	want, err := draw(imports)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/structure.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("docs/structure.md is not current: go run ./scripts/structure. It would be:\n%s", want)
	}
}

// Arrows that are wrong are told by name.
func TestBrokenStructure(t *testing.T) {
	for _, c := range []struct {
		imports map[string][]string
		says    []string
	}{
		{map[string][]string{"sco": {"tlog"}}, []string{"sco imports tlog, which is not below it"}},
		{map[string][]string{"nbd": {"fusefs/filetree"}}, []string{"nbd imports fusefs/filetree"}},
		{map[string][]string{"arakoon/state": {"volumedriver/registry"}}, []string{"arakoon/state imports volumedriver/registry", "arakoon reaches volumedriver"}},
		{map[string][]string{"internal/disk": {"internal/wal"}, "internal/wal": {"internal/disk/osdisk"}}, []string{"internal/disk is in a circle", "internal/wal is in a circle"}},
		{map[string][]string{"internal/size": {"host/attach"}}, []string{"internal/size imports host/attach"}},
	} {
		_, err := draw(c.imports)
		for _, says := range c.says {
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%v: %v; want %q", c.imports, err, says)
			}
		}
	}
	if page, err := draw(map[string][]string{"host/a": {"host/b", "sco", "internal/wal"}, "host/b": nil, "sco": nil}); err != nil || !strings.Contains(page, "host                    2  -> sco\n") {
		t.Errorf("%v\n%s", err, page)
	}
}
