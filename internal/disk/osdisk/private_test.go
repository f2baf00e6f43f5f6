package osdisk

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
)

func modeOfFile(t *testing.T, name string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

// A tree of an older release: what others could open they cannot any more. Links
// are not followed out of it, but for the directory itself; a socket stays.
func TestTighten(t *testing.T) {
	top := t.TempDir()
	dir, outside := filepath.Join(top, "d"), filepath.Join(top, "outside")
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "a/b"), 0o777), os.WriteFile(filepath.Join(dir, "a/b/f"), nil, 0o666), os.WriteFile(outside, nil, 0o644))
	must(os.Chmod(dir, 0o2777), os.Chmod(filepath.Join(dir, "a"), 0o755), os.Chmod(filepath.Join(dir, "a/b"), 0o700), os.Chmod(filepath.Join(dir, "a/b/f"), 0o666))
	must(os.Symlink(outside, filepath.Join(dir, "a/out")), os.Symlink(dir, filepath.Join(top, "link")), unix.Mkfifo(filepath.Join(dir, "fifo"), 0o666))
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	must(err)
	defer l.Close()
	must(os.Chmod(filepath.Join(dir, "s"), 0o666))

	got := disk.TightenOnce(New(), filepath.Join(top, "link"))
	if got.Names != 3 || got.Failed != 0 || got.Err != nil {
		t.Errorf("%+v, want d, a and f", got)
	}
	for name, want := range map[string]fs.FileMode{
		dir: 0o700, dir + "/a": 0o700, dir + "/a/b": 0o700, dir + "/a/b/f": 0o600, outside: 0o644, dir + "/s": 0o666,
	} {
		if mode := modeOfFile(t, name); mode.Perm() != want {
			t.Errorf("%s has mode %v, not %v", name, mode, want)
		}
	}
	// Done: what is below is not looked at again.
	must(os.Chmod(filepath.Join(dir, "a/b/f"), 0o644))
	if got := disk.TightenOnce(New(), dir); got != (disk.Tightened{}) {
		t.Errorf("a second time: %+v", got)
	}
	if got := disk.TightenTree(New(), dir); got.Names != 1 || got.Was != 0o644 {
		t.Errorf("all of it: %+v", got)
	}
	if got := disk.TightenOnce(New(), filepath.Join(top, "no")); got != (disk.Tightened{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

// A lock file of an older release could be locked by whoever could read it.
func TestLockOfOldReleaseIsOurs(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	if err := errors.Join(os.WriteFile(name, []byte("1"), 0o600), os.Chmod(name, 0o644)); err != nil {
		t.Fatal(err)
	}
	l, err := New().Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if mode := modeOfFile(t, name); mode != 0o600 {
		t.Errorf("mode %v", mode)
	}
}
