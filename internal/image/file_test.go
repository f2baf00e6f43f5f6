package image

import (
	"os"
	"path/filepath"
	"testing"
)

// TestImageBehindLinkedDirectory: ".." behind a symbolic link to a directory is
// where the system finds it, in a name and in the link that a name leads to.
func TestImageBehindLinkedDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	must(t, os.MkdirAll("far/er", 0o755))
	must(t, os.MkdirAll("near", 0o755))
	must(t, os.Symlink("../far/er", "near/dir"))        // near/dir/.. is far
	must(t, os.Symlink("../image", "far/er/link"))      // far/image
	must(t, os.Symlink("dir/../linked", "near/linked")) // far/linked
	for name, want := range map[string]string{
		"near/dir/link":        "far/image",
		"near/dir/../straight": "far/straight",
		"near/linked":          "far/linked",
		"plain":                "plain",
	} {
		f, err := Create(name)
		if err != nil {
			t.Fatal(err)
		}
		parts, err := filepath.Glob(filepath.Join(filepath.Dir(want), ".ovs-export-*.part"))
		if err != nil || len(parts) != 1 {
			t.Errorf("%s: no file next to %s: %q, %v", name, want, parts, err)
		}
		if err := f.end(4096); err != nil {
			t.Error(err)
			must(t, f.Abandon())
		}
		if st, err := os.Lstat(want); err != nil || st.Size() != 4096 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
