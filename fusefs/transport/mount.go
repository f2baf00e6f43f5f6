package transport

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// mount makes a mount and returns the descriptor of its device.
func mount(dir string, opt Options) (fd int, err error) {
	if opt.Direct {
		return mountDirect(dir, opt)
	}
	return mountByHelper(dir, opt)
}

// mountDirect mounts with mount(2), which needs root.
func mountDirect(dir string, opt Options) (int, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return -1, err
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("/dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,default_permissions,max_read=%d",
		fd, st.Mode&unix.S_IFMT, os.Geteuid(), os.Getegid(), opt.MaxWrite)
	if opt.AllowOther {
		options += ",allow_other"
	}
	if err := unix.Mount(opt.Name, dir, "fuse."+opt.Name, unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

const helper = "fusermount3"

// mountByHelper has fusermount3 mount, and takes the descriptor that it sends
// over a socket.
func mountByHelper(dir string, opt Options) (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "fusermount3")
	options := fmt.Sprintf("fsname=%s,subtype=%s,default_permissions,max_read=%d", opt.Name, opt.Name, opt.MaxWrite)
	if opt.AllowOther {
		options += ",allow_other"
	}
	c := exec.Command(helper, "-o", options, "--", dir)
	c.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	c.ExtraFiles = []*os.File{theirs}
	out, err := c.CombinedOutput()
	theirs.Close()
	if err != nil {
		return -1, helperError(out, err)
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 4), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("%s sends no descriptor: %w", helper, err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err == nil && len(messages) == 1 {
		fds, err := unix.ParseUnixRights(&messages[0])
		if err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return -1, errors.Join(fmt.Errorf("%s sends no descriptor", helper), err)
}

func helperError(out []byte, err error) error {
	if said := strings.TrimSpace(string(out)); said != "" {
		return fmt.Errorf("%s: %w", said, err)
	}
	return fmt.Errorf("%s: %w", helper, err)
}

// Detach takes a mount out of sight. Whoever has something of it open keeps that for as
// long as its process serves it. Root unmounts by itself, others by fusermount3.
func Detach(dir string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, unix.MNT_DETACH)
	}
	return unmountByHelper("-u", "-z", "--", dir)
}

func unmount(dir string, direct bool) error {
	if direct {
		return unix.Unmount(dir, 0)
	}
	return unmountByHelper("-u", "--", dir)
}

func unmountByHelper(args ...string) error {
	out, err := exec.Command(helper, args...).CombinedOutput()
	if err != nil {
		return helperError(out, err)
	}
	return nil
}
