package fusefs_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"openvstorage/fusefs"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
	"openvstorage/fusefs/transport"
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

// TestUnmountElsewhere: a mount namespace that was made while the mount was there
// keeps it; then unmounting ends with its context, and says so.
func TestUnmountElsewhere(t *testing.T) {
	needsFUSE(t)
	dir := t.TempDir()
	f, err := fusefs.Mount(context.Background(), memtest.New(), treetest.New(), dir, fusefs.Options{Direct: true})
	if err != nil {
		t.Fatal(err)
	}
	other := exec.Command("cat")
	other.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // private, by the library
	in, err := other.StdinPipe()
	if err == nil {
		err = other.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(context.Background())
	end()
	if err := f.Unmount(ended); !errors.Is(err, transport.ErrElsewhere) {
		t.Errorf("unmounted: %v", err)
	}
	in.Close()
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
	f.Wait()
}
