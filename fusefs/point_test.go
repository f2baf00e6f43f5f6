package fusefs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A machine that cannot mount says what is missing and what to do.
func TestMachine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	file := func(name, content string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	device := file("fuse", "")
	lets := file("lets", "# mount_max = 5\nuser_allow_other # for the hypervisor\n")
	forbids := file("forbids", "#user_allow_other\nuser_allow_otherwise\n")
	orphan := filepath.Join(dir, "orphan")
	if err := unix.Mknod(orphan, unix.S_IFCHR|0o600, int(unix.Mkdev(243, 77))); err != nil {
		t.Log("no device of a driver that is not there can be made: ", err)
		orphan = filepath.Join(dir, "absent")
	}
	t.Setenv("PATH", filepath.Join(dir, "bin"))
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "bin"), 0o755), os.WriteFile(filepath.Join(dir, "bin", "fusermount3"), nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what  string
		m     machine
		other bool
		path  string
		want  string // part of the error
	}{
		{"root", machine{device, forbids, true}, true, "/nowhere", ""},
		{"a user", machine{device, forbids, false}, false, "", ""},
		{"a user who lets others in", machine{device, lets, false}, true, "", ""},
		{"no device", machine{filepath.Join(dir, "absent"), lets, true}, false, "", "load the kernel's module fuse"},
		{"a device without driver", machine{orphan, lets, true}, false, "", "load the kernel's module fuse"},
		{"no fusermount3", machine{device, lets, false}, false, "/nowhere", "install fusermount3"},
		{"others, not allowed", machine{device, forbids, false}, true, "", "put a line user_allow_other into"},
		{"others, no configuration", machine{device, filepath.Join(dir, "absent"), false}, true, "", "put a line user_allow_other into"},
	} {
		t.Run(c.what, func(t *testing.T) {
			if c.path != "" {
				t.Setenv("PATH", c.path)
			}
			switch err := c.m.fit(c.other); {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// A mount point that cannot be one is refused, and it says why.
func TestPrepare(t *testing.T) {
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and /dev/fuse")
	} else {
		f.Close()
	}
	if err := Prepare(t.TempDir(), false); err != nil {
		t.Error(err)
	}
	full := t.TempDir()
	file := filepath.Join(full, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	loop := filepath.Join(t.TempDir(), "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := unix.Mount("ovs-test", other, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(other, unix.MNT_DETACH)
	for _, c := range []struct {
		dir, want string
		is        error
	}{
		{full, "not empty", nil},
		{file, "not a directory", nil},
		{filepath.Join(full, "absent"), "make the directory first", fs.ErrNotExist},
		{filepath.Join(file, "below"), "make the directory first", syscall.ENOTDIR},
		{loop, "", syscall.ELOOP},
		{other, "something is mounted there", nil},
	} {
		err := Prepare(c.dir, false)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.dir) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %q", c.dir, err, c.want)
		}
	}
}
