package fusefs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLabels: what libvirt notes on a file while QEMU has it, on vDisks and on
// small files, and nothing else.
func TestLabels(t *testing.T) {
	const dac, ref = "trusted.libvirt.security.dac", "trusted.libvirt.security.ref_dac"
	dir, _ := mount(t)
	for _, name := range []string{"disk.raw", "nvram.fd"} {
		at := filepath.Join(dir, name)
		f, err := os.Create(at) // it stays known while it is open
		if err == nil {
			err = f.Truncate(8192)
		}
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		get := func(attr, want string) {
			t.Helper()
			n, err := unix.Getxattr(at, attr, b)
			if want == "" {
				check(t, name+" "+attr, err, syscall.ENODATA)
			} else if err != nil || string(b[:n]) != want {
				t.Errorf("%s %s: %q, %v, want %q", name, attr, b[:max(n, 0)], err, want)
			}
		}
		get(dac, "")
		check(t, "replace", unix.Setxattr(at, dac, []byte("x"), unix.XATTR_REPLACE), syscall.ENODATA)
		check(t, "set", unix.Setxattr(at, dac, []byte("+1000:+1000"), 0), 0)
		check(t, "create", unix.Setxattr(at, dac, []byte("x"), unix.XATTR_CREATE), syscall.EEXIST)
		check(t, "another", unix.Setxattr(at, ref, []byte("1"), 0), 0)
		get(dac, "+1000:+1000")
		n, err := unix.Listxattr(at, b)
		if err != nil || !strings.Contains(string(b[:n]), dac+"\x00") || !strings.Contains(string(b[:n]), ref+"\x00") {
			t.Errorf("%s: the list is %q, %v", name, b[:max(n, 0)], err)
		}
		check(t, "remove", unix.Removexattr(at, dac), 0)
		check(t, "remove again", unix.Removexattr(at, dac), syscall.ENODATA)
		get(dac, "")
		check(t, "a long one", unix.Setxattr(at, dac, make([]byte, 257), 0), syscall.E2BIG)
		check(t, "another name", unix.Setxattr(at, "trusted.other", []byte("x"), 0), syscall.EOPNOTSUPP)
		for i := range 17 {
			err = errors.Join(err, unix.Setxattr(at, fmt.Sprintf("%s%d", dac, i), []byte("x"), 0))
		}
		check(t, "too many", err, syscall.ENOSPC)
		f.Close()
	}
}
