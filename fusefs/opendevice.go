package fusefs

import (
	"context"
	"sync"
	"syscall"

	"openvstorage/device"
	"openvstorage/fusefs/transport"
)

// openDevice is the device of a vDisk's file while somebody has the file open: all opens
// share it.
type openDevice struct {
	file  *diskFile
	opens opens

	// mu is held for reading by I/O, which may wait long for room, and by whatever else
	// must not see the device change. It is held for writing by whoever makes, empties
	// or copies to the file, opens it first or closes it last. Whoever only looks at the
	// file does not take it.
	mu      sync.RWMutex
	dev     device.Device // set while somebody has the file open and there is a vDisk
	release func()
}

// share takes the lock for reading, or gives up when ctx ends: somebody may hold it over
// the making of a vDisk. The caller calls unshare.
func (o *openDevice) share(ctx context.Context) error { return until(ctx, o.mu.TryRLock) }

// unshare gives back what share, use and tryUse took.
func (o *openDevice) unshare() { o.mu.RUnlock() }

// take takes the lock for writing, or gives up when ctx ends. The caller calls give.
func (o *openDevice) take(ctx context.Context) error { return until(ctx, o.mu.TryLock) }

// give gives back what take took.
func (o *openDevice) give() { o.mu.Unlock() }

// open counts one more open, and opens the vDisk if it is the first.
func (o *openDevice) open(ctx context.Context) error {
	again := false
	if err := until(ctx, func() bool { again = o.openAgain(); return again || o.mu.TryLock() }); err != nil || again {
		return err
	}
	defer o.mu.Unlock()
	if o.file.made() && o.dev == nil {
		if err := o.attach(ctx); err != nil {
			return err
		}
	}
	o.opens.add()
	return nil
}

// openEmpty counts one more open of a file that was created just now, which needs no
// device.
func (o *openDevice) openEmpty() { o.opens.add() }

// openAgain counts one more open, if somebody has the file open with all that it needs.
// That waits for no I/O.
func (o *openDevice) openAgain() bool {
	if !o.mu.TryRLock() {
		return false
	}
	defer o.mu.RUnlock()
	return (o.dev != nil || !o.file.made()) && o.opens.addAnother()
}

// close counts one open less. If it was the last, close gives the device back.
func (o *openDevice) close() (last bool) {
	if o.opens.dropUnlessLast() {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	last = o.opens.drop() // not if somebody has opened it meanwhile
	if last {
		o.detach()
	}
	return last
}

// attach opens the device. The lock is held for writing.
func (o *openDevice) attach(ctx context.Context) error {
	return o.file.named(ctx, func(name string) error {
		dev, release, err := o.file.pool.Open(ctx, name)
		if err != nil {
			return err
		}
		disk, may := dev.(device.Device)
		if !may {
			release()
			return syscall.EROFS
		}
		o.dev, o.release = disk, release
		return nil
	})
}

// attachUsed opens the device for those who have the file open, if there are any. The
// lock is held for writing.
func (o *openDevice) attachUsed(ctx context.Context) error {
	if !o.opens.any() {
		return nil
	}
	return o.attach(ctx)
}

// detach gives the device back. The lock is held for writing.
func (o *openDevice) detach() {
	if o.dev != nil {
		o.release()
		o.dev, o.release = nil, nil
	}
}

// size is the current size. The lock is held.
func (o *openDevice) size(ctx context.Context) (int64, error) {
	if o.dev != nil {
		return o.dev.Size(), nil
	}
	if !o.file.made() {
		return 0, nil
	}
	i, err := o.file.info(ctx)
	return i.Size, err
}

// use takes the lock for reading, and returns the device: nil if the file is empty. The
// caller calls unshare, but not after an error. If there is a vDisk and no device, an
// emptying of the file had closed it and was given up: use opens it again. A request
// that may not wait gets EAGAIN instead of waiting.
func (o *openDevice) use(ctx context.Context) (device.Device, syscall.Errno) {
	for {
		if e := o.lockShared(ctx); e != 0 {
			return nil, e
		}
		if o.dev != nil || !o.file.made() {
			return o.dev, 0
		}
		o.mu.RUnlock()
		if !transport.MayWait(ctx) {
			return nil, syscall.EAGAIN
		}
		if err := o.reopen(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, errnoOf(ctx.Err())
			}
			return nil, syscall.EIO
		}
	}
}

// lockShared takes the lock for reading, unless the request would have to wait for it
// and may not: EAGAIN.
func (o *openDevice) lockShared(ctx context.Context) syscall.Errno {
	switch {
	case o.mu.TryRLock():
		return 0
	case !transport.MayWait(ctx):
		return syscall.EAGAIN
	}
	return errnoOf(o.share(ctx))
}

// tryUse takes the lock for reading and returns the device, if that waits for nothing
// and there is one. The caller calls unshare then.
func (o *openDevice) tryUse() (device.Device, bool) {
	if !o.mu.TryRLock() {
		return nil, false
	}
	if o.dev == nil {
		o.mu.RUnlock()
		return nil, false
	}
	return o.dev, true
}

// reopen opens the vDisk for those who have the file open.
func (o *openDevice) reopen(ctx context.Context) error {
	if err := o.take(ctx); err != nil {
		return err
	}
	defer o.give()
	switch {
	case o.dev != nil || !o.file.made():
		return nil
	case !o.opens.any():
		return syscall.EIO // nobody would close it
	}
	return o.attach(ctx)
}
