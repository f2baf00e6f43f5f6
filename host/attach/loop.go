package attach

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
//
// A call on a file of the mount, or on a loop device over one, waits for the process
// that serves the mount. If the caller is that process, and is killed meanwhile, it
// never ends: the kernel keeps a process until its calls have returned, and the mount
// until the process has ended. So another process makes these calls. They fail when this
// process has gone.
type loopDevices struct {
	mount  string // as the kernel names it; "": there is none
	run    func(ctx context.Context, args ...string) (string, error)
	logger *slog.Logger
}

func (l loopDevices) file(name string) string { return filepath.Join(l.mount, name+".raw") }

// attach makes the device of an attachment. The device that it had before a kill answers
// nothing but errors, and is let go of first.
func (l loopDevices) attach(ctx context.Context, a *attachment) error {
	if l.mount == "" {
		return errors.New("loop devices are made over the files of a mount; start `ovs up` with --mount DIR")
	}
	l.release(*a)
	device, err := l.run(ctx, "attach", l.file(a.Name), "--device="+a.Device, fmt.Sprint("--read-only=", a.ReadOnly), fmt.Sprint("--block-size=", a.blockSize()))
	if err != nil {
		return err
	}
	a.Device = device
	return nil
}

// ours reports whether a device is over a file of this mount, which may have another
// name by now, or over a file of a mount that is dead. By now the kernel may have given
// the device's number to another device.
func (l loopDevices) ours(a attachment) bool {
	b := blockdev.Backing(a.Device)
	if strings.HasSuffix(b, "/"+a.Name+".raw") {
		return true
	}
	return l.mount != "" && strings.HasPrefix(b, l.mount+"/") && strings.HasSuffix(b, ".raw")
}

// release takes the file away from the device that an attachment had, if the device is
// ours.
func (l loopDevices) release(a attachment) {
	if !l.ours(a) {
		return
	}
	if err := l.detach(a); err != nil {
		l.logger.Warn("an old block device stays", "device", a.Device, "err", err)
	}
}

func (l loopDevices) detach(a attachment) error {
	_, err := l.run(context.Background(), "detach", a.Device)
	return err
}

// sizeWait is longer than the kernel remembers the size of a mount's file.
const sizeWait = 2 * time.Second

// grow shows the device the new size of its file, as soon as the mount's file has that
// size.
func (l loopDevices) grow(ctx context.Context, a attachment, size uint64) error {
	_, err := l.run(ctx, "grow", a.Device, l.file(a.Name), fmt.Sprint(size))
	return err
}

// Grow waits until a file has a size in bytes, for sizeWait, and then shows that size to
// the loop device over it.
func Grow(ctx context.Context, device, file string, size int64) error {
	ctx, cancel := context.WithTimeout(ctx, sizeWait)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		if info.Size() >= size {
			return blockdev.Grow(device)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s has %d bytes still, not %d", file, info.Size(), size)
		}
	}
}
