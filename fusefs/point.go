package fusefs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/fusefs/transport"
)

// Prepare makes dir fit to be mounted on. It takes a mount away that a killed process
// left ("transport endpoint is not connected"). It refuses a live mount, a directory
// that is not empty, and a machine that lacks something the mount needs.
func Prepare(dir string, allowOther bool) error {
	here := machine{device: "/dev/fuse", conf: "/etc/fuse.conf", root: os.Geteuid() == 0}
	if err := here.fit(allowOther); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
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
	if err := unix.Access(dir, unix.W_OK); err != nil && !here.root {
		return fmt.Errorf("mount %s: fusermount3 mounts only on directories that its user may write to: %w", dir, err)
	}
	return nil
}

// machine is what a mount depends on.
type machine struct {
	device string // of FUSE
	conf   string // of fusermount3
	root   bool   // this process is root's, which mounts by itself
}

// fit returns what is missing, and what to do.
func (m machine) fit(allowOther bool) error {
	switch f, err := os.OpenFile(m.device, os.O_RDWR, 0); {
	case err == nil:
		f.Close()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("no FUSE here: load the kernel's module fuse, and in a container pass the device %s: %w", m.device, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this user may not open %s: let it (chmod 666, as most systems have it), and in a container pass the device: %w", m.device, err)
	default:
		return err
	}
	if m.root {
		return nil
	}
	if _, err := exec.LookPath("fusermount3"); err != nil {
		return fmt.Errorf("install fusermount3 (package fuse3), or run as root: %w", err)
	}
	if allowOther && !letsOthers(m.conf) {
		return fmt.Errorf("only root may let other users in: put a line user_allow_other into %s, run as root, or leave --allow-other out", m.conf)
	}
	return nil
}

// letsOthers reports whether fusermount3's configuration lets a user mount for
// others.
func letsOthers(conf string) bool {
	b, err := os.ReadFile(conf)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		if strings.TrimSpace(line) == "user_allow_other" {
			return true
		}
	}
	return false
}

// deadMounts bounds the dead mounts, one over the other, that are taken away.
const deadMounts = 8

// answerMax is how long a file system may take to say how full it is.
const answerMax = 10 * time.Second

// answers asks the file system of a directory something that the kernel does not
// remember. It does remember attributes, for a moment, of a mount that has just died. If
// the process of a mount is being killed, the answer comes when it is gone.
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
