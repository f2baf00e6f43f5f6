package osdisk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLinkInTheWay: a directory that cannot be made because a link leads nowhere.
func TestLinkInTheWay(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/none/such", link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{link, link + "/", filepath.Join(link, "below")} {
		err := New().MkdirAll(name, 0o700)
		if err == nil || !strings.Contains(err.Error(), link+": it is a symbolic link to /none/such, and nothing is there") {
			t.Errorf("%s: %v", name, err)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := New().MkdirAll(file, 0o700); err == nil || strings.Contains(err.Error(), "link") {
		t.Errorf("a file: %v", err)
	}
}

func TestSyncAll(t *testing.T) {
	if err := (FS{}).SyncAll(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := (FS{}).SyncAll("/none/such"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
