package blockdev

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Options of a loop device.
type Options struct {
	// Device is the device to take if it is free; "": any.
	Device   string
	ReadOnly bool
	// BlockSize is the smallest request in bytes; 0: 512, as images of disks
	// are partitioned.
	BlockSize uint32
}

const (
	sectorSize = 512 // that sysfs counts in, and the usual block of a device
	prefix     = "/dev/loop"
	// attachTries bounds how often another process may take the device that
	// was free.
	attachTries = 16
)

// Attach makes a loop device over a file and returns its path.
func Attach(file string, opt Options) (device string, err error) {
	mode := os.O_RDWR
	if opt.ReadOnly {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(file, mode, 0)
	if err != nil {
		return "", fmt.Errorf("loop device over %s: %w", file, err)
	}
	defer f.Close()
	if opt.Device != "" {
		if err := configure(opt.Device, f, opt); err == nil {
			return opt.Device, nil
		}
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("loop device over %s: load the kernel's module loop, and in a container pass /dev/loop-control and the devices /dev/loopN: %w", file, err)
	}
	defer control.Close()
	for range attachTries {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", fmt.Errorf("loop device over %s: find a free one: %w", file, err)
		}
		device = prefix + strconv.Itoa(number)
		if err = configure(device, f, opt); !errors.Is(err, unix.EBUSY) {
			if err != nil {
				return "", fmt.Errorf("loop device over %s: %w", file, err)
			}
			return device, nil
		}
	}
	return "", fmt.Errorf("loop device over %s: every free device was taken by others; try again", file)
}

// configure gives a device its file, in one call: it is never seen half made.
func configure(device string, file *os.File, opt Options) error {
	d, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	c := unix.LoopConfig{Fd: uint32(file.Fd()), Size: cmp.Or(opt.BlockSize, sectorSize)}
	c.Info.Flags = unix.LO_FLAGS_DIRECT_IO | unix.LO_FLAGS_PARTSCAN
	if opt.ReadOnly {
		c.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	copy(c.Info.File_name[:len(c.Info.File_name)-1], file.Name())
	if err := unix.IoctlLoopConfigure(int(d.Fd()), &c); err != nil {
		return fmt.Errorf("configure %s: %w", device, err)
	}
	return nil
}

// Detach takes the file of a device away. If the device is in use, as by a mounted
// file system, that happens when its last user leaves. A device without a file is not
// an error.
func Detach(device string) error {
	d, err := os.OpenFile(device, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	defer d.Close()
	err = unix.IoctlSetInt(int(d.Fd()), unix.LOOP_CLR_FD, 0)
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach %s: %w", device, err)
	}
	return nil
}

// Grow makes a loop device as large as its file is now.
func Grow(device string) error {
	d, err := os.OpenFile(device, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("grow: %w", err)
	}
	defer d.Close()
	if err := unix.IoctlSetInt(int(d.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("grow %s: %w", device, err)
	}
	return nil
}

// Backing returns the file of a device as the kernel names it, "" if the device has
// none. It does not ask the file's own file system, which may be gone.
func Backing(device string) string {
	name, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "loop", "backing_file"))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(strings.TrimSpace(string(name)), " (deleted)")
}
