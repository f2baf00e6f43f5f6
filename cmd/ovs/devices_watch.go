package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// mendPause is the time after which what could not be mended is tried again.
const mendPause = 5 * time.Second

// watch replaces connections that died, and shows devices what size their
// vDisks have, until ctx ends.
func (d *devices) watch(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.grown:
		case <-again:
		}
		again = nil
		if !d.mend(ctx) {
			again = time.After(mendPause)
		}
	}
}

// look has all devices looked at soon. It waits for nothing, so it may be
// called by what a device waits for.
func (d *devices) look() {
	select {
	case d.grown <- struct{}{}:
	default: // it will be done
	}
}

// died is told that a connection of a device is dead, "" for any. The kernel
// sends the requests on others, or keeps them: while this process lives they
// must not run into the time that the kernel waits for it.
func (d *devices) died(device string) {
	d.mu.Lock()
	for i := range d.list {
		if a := &d.list[i]; a.Kind == kindNBD && (device == "" || a.Device == device) {
			a.dead = true
		}
	}
	d.mu.Unlock()
	d.look()
}

// mend brings all devices up to date, and reports whether all are.
func (d *devices) mend(ctx context.Context) (all bool) {
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

// refresh mends one device, if it needs it.
func (d *devices) refresh(ctx context.Context, a *attachment, size uint64) error {
	if size == a.size && !a.dead {
		return nil
	}
	if a.Kind != kindNBD {
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

// Resized implements control.Devices.
func (d *devices) Resized(ctx context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := d.host.Info(ctx, name)
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

// grownHost tells the devices when the mount makes a vDisk grow.
type grownHost struct {
	host
	look func()
}

func (g grownHost) Resize(ctx context.Context, name string, size uint64) error {
	err := g.host.Resize(ctx, name, size)
	if err == nil {
		g.look()
	}
	return err
}

// close ends what can be ended; all stay recorded. Loop devices go with the
// mount. NBD devices that nobody uses go too; others keep their users waiting
// for the next start, for as long as they were told.
func (d *devices) close() error {
	d.mu.Lock()
	d.stopped = true
	list := slices.Clone(d.list)
	d.mu.Unlock()
	var all sync.WaitGroup
	errs := make([]error, len(list))
	for i, a := range list {
		switch {
		case a.Kind != kindNBD:
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

func (d *devices) closeNBD(a attachment) error {
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
