// Package ringtest lets tests have FUSE over io_uring, which the kernel has
// switched off by default, for the machine as a whole.
package ringtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const parameter = "/sys/module/fuse/parameters/enable_uring"

// Set switches FUSE over io_uring on or off for mounts that are made until the
// test has ended; then it is as before. Tests that do so wait for each other,
// also those of other processes. Without the right to, or such a kernel, the
// test is skipped.
func Set(t testing.TB, on bool) {
	t.Helper()
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "ovs-fuse-ring.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	was, err := os.ReadFile(parameter)
	if err != nil {
		t.Skip("no FUSE over io_uring here: ", err)
	}
	value := "N"
	if on {
		value = "Y"
	}
	if strings.TrimSpace(string(was)) == value {
		return
	}
	if err := os.WriteFile(parameter, []byte(value), 0o644); err != nil {
		t.Skip("needs root: ", err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(parameter, was, 0o644); err != nil {
			t.Error(err)
		}
	})
}
