package fusefs_test

import (
	"os"
	"path/filepath"
	"testing"

	"openvstorage/fusefs"
)

func TestPrepare(t *testing.T) {
	dir, _ := mount(t)
	if err := fusefs.Prepare(dir); err == nil {
		t.Error("a live mount is taken")
	}
	if err := fusefs.Prepare(t.TempDir()); err != nil {
		t.Error(err)
	}
	full := t.TempDir()
	file := filepath.Join(full, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{full, file, filepath.Join(full, "absent")} {
		if err := fusefs.Prepare(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
