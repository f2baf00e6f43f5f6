package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/internal/control"
)

// TestLoopDevice: a loop device grows with its vDisk, both by command and in the mount.
// It has the block size that was asked for. It is detached from under a mounted file
// system only by force.
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

// TestDeviceLinks: each attached vDisk has a link of its own, whatever its name,
// through attaching, detaching, renaming and restarts. Links that an older release left
// are gone.
func TestDeviceLinks(t *testing.T) {
	needLoops(t)
	s, dir := mounted(t)
	names := []string{"a.new", "a", "a/b", "a/b.new", "a%2Fb", "100%", "a.new.new", "%new"}
	device := make(map[string]string)
	t.Cleanup(func() { // what a failure left
		for _, name := range names {
			_, _ = s.Run("vdisk", "detach", "--force", name)
		}
	})
	attach := func(name string) {
		t.Helper()
		device[name] = strings.TrimSpace(s.ovs("vdisk", "attach", "--kind", "loop", name))
	}
	check := func(when string) {
		t.Helper()
		var list []control.Attachment
		must(t, json.Unmarshal([]byte(s.ovs("vdisk", "attached", "--json")), &list))
		links := make(map[string]bool)
		for _, at := range list {
			to, err := os.Readlink(at.Link)
			if err != nil || to != at.Device || to != device[at.VDisk] || links[at.Link] {
				t.Errorf("%s: link %s of %s leads to %s, %v; its device is %s, %s was printed", when, at.Link, at.VDisk, to, err, at.Device, device[at.VDisk])
			}
			// The kernel keeps the name that a file had when it was attached.
			file := strings.TrimSpace(sh(t, "losetup", "-n", "-O", "BACK-FILE", to))
			if when != "exchanged" && file != filepath.Join(dir, at.VDisk+".raw") {
				t.Errorf("%s: %s is over %s", when, to, file)
			}
			links[at.Link] = true
		}
		there, err := filepath.Glob(filepath.Join(s.Data, "dev", "*"))
		if err != nil || len(list) != len(device) || len(there) != len(device) {
			t.Errorf("%s: %d attached, links %v, want %d", when, len(list), there, len(device))
		}
	}
	for _, name := range names {
		s.ovs("vdisk", "create", "--size", "16MiB", name)
		attach(name)
	}
	check("all attached")
	for _, name := range []string{"a", "a/b"} {
		s.ovs("vdisk", "detach", name)
		delete(device, name)
		check("without " + name)
	}
	// Names that are exchanged: each link leads where its name does.
	attach("a")
	s.ovs("vdisk", "rename", "a", "tmp")
	s.ovs("vdisk", "rename", "a.new", "a")
	s.ovs("vdisk", "rename", "tmp", "a.new")
	device["a"], device["a.new"] = device["a.new"], device["a"]
	attach("a/b")
	check("exchanged")

	must(t, s.Stop(stopMax))
	old := filepath.Join(s.Data, "dev")
	must(t, os.MkdirAll(filepath.Join(old, "q", "r"), 0o755))
	must(t, os.Symlink("/dev/loop0", filepath.Join(old, "q", "r", "s")))
	must(t, os.Symlink("/dev/loop0", filepath.Join(old, "gone.new")))
	must(t, os.WriteFile(filepath.Join(old, "letter"), nil, 0o600))
	s.start()
	must(t, os.Remove(filepath.Join(old, "letter"))) // not ours: it was left
	var list []control.Attachment
	must(t, json.Unmarshal([]byte(s.ovs("vdisk", "attached", "--json")), &list))
	for _, at := range list {
		device[at.VDisk] = at.Device
	}
	check("after a restart")
}
