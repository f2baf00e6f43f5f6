package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Prepare makes dir fit to be mounted on. A mount that a killed process left
// ("transport endpoint is not connected") is taken away; a live mount and a
// directory with something in it are refused.
func Prepare(dir string) error {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return fmt.Errorf("mount %s: no FUSE here: load the kernel's module fuse, and in a container pass the device /dev/fuse: %w", dir, err)
	}
	if os.Geteuid() != 0 {
		if _, err := exec.LookPath("fusermount3"); err != nil {
			return fmt.Errorf("mount %s: install fusermount3 (package fuse3), or run as root: %w", dir, err)
		}
	}
	var st unix.Stat_t
	err := unix.Stat(dir, &st)
	if errors.Is(err, unix.ENOTCONN) {
		if err := detach(dir); err != nil {
			return fmt.Errorf("mount %s: take the dead mount away: %w", dir, err)
		}
		err = unix.Stat(dir, &st)
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w; make the directory first", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("mount %s: not a directory", dir)
	}
	var up unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, ".."), &up); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	if up.Dev != st.Dev {
		return fmt.Errorf("mount %s: something is mounted there already; unmount it or choose another directory", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("mount %s: the directory is not empty; choose another", dir)
	}
	return nil
}

// detach takes a mount away from the tree; its users keep what they have open.
func detach(dir string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, unix.MNT_DETACH)
	}
	out, err := exec.Command("fusermount3", "-u", "-z", dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fusermount3 -u -z: %w: %s", err, out)
	}
	return nil
}
