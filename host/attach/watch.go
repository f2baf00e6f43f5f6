package attach

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// mendPause is the time after which a device that could not be mended is tried again.
const mendPause = 5 * time.Second

// watch replaces connections that died, and shows devices the sizes of their vDisks,
// until ctx ends.
func (d *Devices) watch(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.grown.Rung():
		case <-again:
		}
		again = nil
		if !d.mend(ctx) {
			again = time.After(mendPause)
		}
	}
}

// CheckSoon has all devices checked soon. It waits for nothing: something that a device
// waits for may call it.
func (d *Devices) CheckSoon() { d.grown.Ring() }

// died notes that a connection of a device is dead, "" for any device. The kernel sends
// the requests on other connections, or keeps them. While this process lives they must
// not exceed the time for which the kernel waits: so watch replaces the connection.
func (d *Devices) died(device string) {
	d.mu.Lock()
	for i := range d.list {
		if a := &d.list[i]; a.Kind == KindNBD && (device == "" || a.Device == device) {
			a.dead = true
		}
	}
	d.mu.Unlock()
	d.CheckSoon()
}

// mend brings all devices up to date, and reports whether that succeeded for all.
func (d *Devices) mend(ctx context.Context) (all bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return true
	}
	vdisks, err := d.vdisks(ctx)
	if err != nil {
		d.logger.Warn("block devices are not looked at", "err", err)
		return false
	}
	all = true
	for i := range d.list {
		a := &d.list[i]
		if a.reason != "" {
			continue
		}
		now := *a // its name may be another one since; the link is not
		now.Name = vdisks[a.ID].Name
		if now.Name == "" {
			continue
		}
		if err := d.refresh(ctx, &now, vdisks[a.ID].Size); err != nil {
			d.logger.Error("block device is not as it should be", "vdisk", now.Name, "device", a.Device, "err", err)
			all = false
			continue
		}
		a.size, a.dead = now.size, false
	}
	return all
}

// refresh mends one device, if it needs that.
func (d *Devices) refresh(ctx context.Context, a *attachment, size uint64) error {
	if size == a.size && !a.dead {
		return nil
	}
	if a.Kind != KindNBD {
		if err := d.loops.grow(ctx, *a, size); err != nil {
			return err
		}
		a.size = size
		return nil
	}
	if !d.kernel.ours(*a) {
		return nil // somebody disconnected it; attached and detached by hand it works again
	}
	return d.kernel.mend(ctx, a)
}

// Resized shows the device of a vDisk, if it has one, the new size of the vDisk.
func (d *Devices) Resized(ctx context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := d.of.Info(ctx, name)
	if err != nil {
		return err
	}
	i := d.find(info.ID)
	if i < 0 || d.list[i].reason != "" || d.stopped {
		return nil
	}
	a := &d.list[i]
	now := *a
	now.Name = name
	if err := d.refresh(ctx, &now, info.Size); err != nil {
		return fmt.Errorf("vDisk %q: has grown, its block device %s has not: %w", name, a.Device, err)
	}
	a.size, a.dead = now.size, false
	return nil
}

// Close ends devices that can be ended; all attachments stay recorded. Loop devices end
// with the mount. NBD devices that nobody uses end too. The users of other NBD devices
// wait for the next start, for up to the dead timeout of the device.
func (d *Devices) Close() error {
	d.mu.Lock()
	d.stopped = true
	list := slices.Clone(d.list)
	d.mu.Unlock()
	var all sync.WaitGroup
	errs := make([]error, len(list))
	for i, a := range list {
		switch {
		case a.Kind != KindNBD:
			if a.reason == "" {
				d.loops.release(a)
			}
		case a.Device == "" || !d.kernel.ours(a):
		default:
			if errs[i] = d.kernel.available(context.Background()); errs[i] != nil {
				continue
			}
			all.Go(func() { errs[i] = d.closeNBD(a) })
		}
	}
	all.Wait()
	if d.stop != nil {
		d.stop()
	}
	if d.kernel.news != nil {
		_ = d.kernel.news.Close()
	}
	d.done.Wait()
	d.kernel.close()
	return errors.Join(errs...)
}

func (d *Devices) closeNBD(a attachment) error {
	if users := lastingUsers(context.Background(), a.Device, usersWait); len(users) > 0 {
		d.logger.Warn("a block device is in use: its users wait for the next start",
			"vdisk", a.Name, "device", a.Device, "wait", time.Duration(a.DeadTimeout)*time.Second, "users", usersText(users))
		d.kernel.suspend(a)
		return nil
	}
	if err := d.kernel.detach(a); err != nil {
		return fmt.Errorf("vDisk %q: %w", a.Name, err)
	}
	return nil
}
