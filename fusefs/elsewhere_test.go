package fusefs_test

import (
	"context"
	"errors"
	"os/exec"
	"syscall"
	"testing"

	"openvstorage/fusefs"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
	"openvstorage/fusefs/transport"
)

// TestUnmountElsewhere: a mount namespace that was made while the mount was there
// keeps it; then unmounting ends with its context, and says so.
func TestUnmountElsewhere(t *testing.T) {
	needsFUSE(t)
	dir, keys := t.TempDir(), treetest.New()
	f, err := fusefs.Mount(context.Background(), memtest.New(keys), keys, dir, fusefs.Options{Direct: true, Self: true})
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
