package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLoopDevice: a loop device grows with its vDisk, by command and in the
// mount, has the blocks that were asked for, and is not taken from a mounted file
// system unless it is forced.
func TestLoopDevice(t *testing.T) {
	need(t, "mkfs.ext4")
	needLoops(t)
	s, dir := mounted(t)
	s.create("disk", 64*mib)
	dev := strings.TrimSpace(s.ovs("vdisk", "attach", "disk", "--kind", "loop"))
	sys := func(name, want string) {
		t.Helper()
		got, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(dev), name))
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s is %q, %v; want %s", name, got, err, want)
		}
	}
	sys("size", "131072")
	s.ovs("vdisk", "resize", "disk", "--size", "96MiB")
	sys("size", "196608")
	must(t, os.Truncate(filepath.Join(dir, "disk.raw"), 128*mib))
	eventually(t, stopMax, "the device grows with the file", func() bool {
		got, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(dev), "size"))
		return err == nil && strings.TrimSpace(string(got)) == "262144"
	})

	sh(t, "mkfs.ext4", "-q", dev)
	at := t.TempDir()
	sh(t, "mount", dev, at)
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	if _, err := s.Run("vdisk", "detach", "disk"); err == nil || !strings.Contains(err.Error(), "mounted on "+at) {
		t.Errorf("detached under a mount: %v", err)
	}
	s.ovs("vdisk", "detach", "disk", "--force")
	must(t, unix.Unmount(at, 0))

	dev = strings.TrimSpace(s.ovs("vdisk", "attach", "disk", "--kind", "loop", "--block-size", "4096", "--read-only"))
	sys("queue/logical_block_size", "4096")
	sys("ro", "1")
	s.ovs("vdisk", "detach", "disk")
}
