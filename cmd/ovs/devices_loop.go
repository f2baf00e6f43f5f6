package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"openvstorage/blockdev"
)

// loopDevices makes loop devices over the files of the mount.
type loopDevices struct {
	mount  string // "": there is none
	logger *slog.Logger
}

func (l loopDevices) file(name string) string { return filepath.Join(l.mount, name+".raw") }

// attach makes the device of an attachment. After a kill the one before answers
// nothing but errors.
func (l loopDevices) attach(a *attachment) error {
	if l.mount == "" {
		return errors.New("loop devices are made over the files of a mount; start `ovs up` with --mount DIR")
	}
	l.release(*a)
	device, err := blockdev.Attach(l.file(a.Name), blockdev.Options{Device: a.Device, ReadOnly: a.ReadOnly, BlockSize: a.blockSize()})
	if err != nil {
		return err
	}
	a.Device = device
	return nil
}

// ours tells whether a device that was made is over a file of a mount that is
// dead, or of this one, in which it may have another name by now. The device's
// number may be that of another device.
func (l loopDevices) ours(a attachment) bool {
	b := blockdev.Backing(a.Device)
	if strings.HasSuffix(b, "/"+a.Name+".raw") {
		return true
	}
	mount, err := filepath.EvalSymlinks(l.mount) // as the kernel has it
	return l.mount != "" && err == nil && strings.HasPrefix(b, mount+"/") && strings.HasSuffix(b, ".raw")
}

// release takes the file away from the device that an attachment had.
func (l loopDevices) release(a attachment) {
	if !l.ours(a) {
		return
	}
	if err := blockdev.Detach(a.Device); err != nil {
		l.logger.Warn("an old block device stays", "device", a.Device, "err", err)
	}
}

// sizeWait is longer than the kernel remembers the size of a mount's file.
const sizeWait = 2 * time.Second

// grow shows the device its file's new size, when the mount's file has it.
func (l loopDevices) grow(ctx context.Context, a attachment, size uint64) error {
	ctx, cancel := context.WithTimeout(ctx, sizeWait)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		info, err := os.Stat(l.file(a.Name))
		if err != nil {
			return err
		}
		if uint64(info.Size()) >= size {
			return blockdev.Grow(a.Device)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s has %d bytes still, not %d", l.file(a.Name), info.Size(), size)
		}
	}
}
