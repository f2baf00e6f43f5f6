package host

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
)

// A write through the mount that waits for room in the write buffer ends with its
// process; reads go on; and when there is room, so do writes.
func TestMountWriteWaits(t *testing.T) {
	d := faultdisk.New(crashdisk.New())
	// The ASDs' disks hang: nothing leaves the write buffer.
	hang := make(chan struct{})
	var hanging atomic.Bool
	d.Inject(faultdisk.Rule{Ops: faultdisk.Write, Before: func(_ faultdisk.Op, name string) {
		if hanging.Load() && strings.HasPrefix(name, "/data/asd/") {
			<-hang
		}
	}})
	_, dir, end := mountWhole(t, d)
	defer end()
	name := filepath.Join(dir, "a.raw")
	if err := errors.Join(os.WriteFile(name, []byte("first"), 0o600), os.Truncate(name, 1<<30)); err != nil {
		t.Fatal(err)
	}
	hanging.Store(true)
	var let atomic.Bool
	release := func() {
		if let.CompareAndSwap(false, true) {
			close(hang)
		}
	}
	defer release()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		c := exec.Command("dd", "if=/dev/zero", "of="+name, "bs=1M", "count=512", "seek=1", "conv=notrunc", "status=none")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		stuck(t, c.Process.Pid)
		b := make([]byte, 5)
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(b, 0); err != nil || string(b) != "first" {
			t.Errorf("a read while a write waits: %q, %v", b, err)
		}
		f.Close()
		if err := c.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("%v: 512 MiB went into a write buffer of 64", sig)
			}
		case <-time.After(20 * time.Second):
			release()
			t.Fatalf("%v: the process hangs in its write", sig)
		}
	}
	release()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 32<<20), 64<<20); err != nil {
		t.Errorf("a write when there is room again: %v", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Error(err)
	}
}

// stuck waits until a process makes no more progress: it has written nothing for
// a while.
func stuck(t *testing.T, pid int) {
	t.Helper()
	written, since := "", time.Now()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		io, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "io"))
		if err != nil {
			t.Fatal("the process that was to wait has ended: ", err)
		}
		if string(io) != written {
			written, since = string(io), time.Now()
		}
		if time.Since(since) > time.Second {
			return
		}
	}
	t.Fatal("it does not wait")
}
