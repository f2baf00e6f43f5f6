package host

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"openvstorage/device"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
)

// While a clone waits for a backend that does not answer, all files of the mount can
// be looked at, whatever their times, sizes and names have become; and whoever makes the
// clone by cp goes when it is killed.
func TestMountLooksWhileCloneWaits(t *testing.T) {
	d := faultdisk.New(crashdisk.New())
	hang := make(chan struct{})
	var hanging atomic.Bool
	d.Inject(faultdisk.Rule{Ops: faultdisk.Write, Before: func(_ faultdisk.Op, name string) {
		if hanging.Load() && strings.HasPrefix(name, "/data/asd/") {
			<-hang
		}
	}})
	h, dir, end := mountWhole(t, d)
	defer end()
	at := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(os.Mkdir(at("vm"), 0o755), os.WriteFile(at("vm/a.raw"), make([]byte, 1<<20), 0o600), os.WriteFile(at("small"), []byte("x"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	var let atomic.Bool
	release := func() {
		if let.CompareAndSwap(false, true) {
			close(hang)
		}
	}
	defer release()
	hanging.Store(true)
	cp := exec.Command("cp", at("vm/a.raw"), at("vm/b.raw"))
	if err := cp.Start(); err != nil {
		t.Fatal(err)
	}
	stuck(t, cp.Process.Pid)
	ended := func(what string, c *exec.Cmd) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- c.Wait() }()
		select {
		case err := <-done:
			if (err != nil) != (what == "cp") {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s does not end", what)
		}
	}
	// Others change things meanwhile: what is shown is not what the kernel knows.
	dev, free, err := openDisk(context.Background(), h, "vm/a")
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	if err := dev.Write(context.Background(), []device.Span{{Data: make([]byte, 4096)}}); err != nil {
		t.Fatal(err)
	}
	free()
	for range 3 {
		ls := exec.Command("ls", "-lRa", dir)
		if err := ls.Start(); err != nil {
			t.Fatal(err)
		}
		ended("ls", ls)
	}
	if i, err := os.Stat(at("vm/a.raw")); err != nil || i.ModTime().Before(before) {
		t.Errorf("written at %v, modified %v, %v", before, i.ModTime(), err)
	}
	if i, err := os.Stat(at("vm/b.raw")); err != nil || i.Size() != 0 {
		t.Errorf("what is to be the clone: %v, %v", i, err)
	}
	if err := cp.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended("cp", cp)
	release()
}
