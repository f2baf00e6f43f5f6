package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk/crashdisk"
)

// A vDisk made, written and deleted through the mount, over all the layers.
func TestMountWhole(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root and /dev/fuse")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs root and /dev/fuse")
	}
	h, err := openWhole(crashdisk.New(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(context.Background())
	dir := t.TempDir()
	m, err := mountFiles(context.Background(), h, t.TempDir(), upFlags{mount: dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Unmount(context.Background()); err != nil {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
			t.Error(err)
		}
	}()
	name := filepath.Join(dir, "vm", "a.raw")
	if err := os.Mkdir(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for range 2 { // the second time over O_TRUNC
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := h.Info(context.Background(), "vm/a"); err != nil || info.Size != uint64(len(data)) {
		t.Errorf("the vDisk: %+v, %v", info, err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data)-5)
	if _, err := f.ReadAt(got, 5); err != nil || !bytes.Equal(got, data[5:]) {
		t.Errorf("read differs: %v", err)
	}
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(name); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("unlink of an open vDisk: %v", err)
	}
	f.Close()
	if err := os.Remove(name); err != nil {
		t.Error(err)
	}
}
