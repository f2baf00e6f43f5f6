package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/fusefs/transport"
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
	err := answers(dir)
	for range deadMounts {
		if !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.ECONNABORTED) {
			break
		}
		if err := transport.Detach(dir); err != nil {
			return fmt.Errorf("mount %s: take the dead mount away: %w", dir, err)
		}
		err = answers(dir)
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w; make the directory first, or unmount what is there", dir, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
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

// deadMounts bounds the dead mounts, one over the other, that are taken away.
const deadMounts = 8

// answerMax is how long a file system may take to say how full it is.
const answerMax = 10 * time.Second

// answers asks the file system of a directory something that the kernel does
// not remember: attributes it does, for a moment, of a mount that has just died.
// A process that is being killed answers when it is gone.
func answers(dir string) error {
	answer := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		answer <- unix.Statfs(dir, &st)
	}()
	late := time.NewTimer(answerMax)
	defer late.Stop()
	select {
	case err := <-answer:
		return err
	case <-late.C:
		return fmt.Errorf("what is mounted there does not answer within %v", answerMax)
	}
}
