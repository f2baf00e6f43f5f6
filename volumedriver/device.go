package volumedriver

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"openvstorage/device"
)

// OpenDevice returns the vDisk NAME, a device.Device, or the snapshot NAME@SNAP.
// It cannot be deleted until release is called, once.
func (h *Host) OpenDevice(ctx context.Context, name string) (dev device.Reader, release func(), err error) {
	name, snap, isSnap := strings.Cut(name, "@")
	v, err := h.volume(name)
	if err == nil && v.closedBy() != nil {
		v, err = h.find(ctx, name)
	}
	if err != nil {
		return nil, nil, err
	}
	if u := v.closedBy(); u != nil {
		return nil, nil, u.refuse(name)
	}
	if v.buf == nil {
		return nil, nil, fmt.Errorf("vDisk %q cannot be opened: %w", name, v.Err())
	}
	if err := v.lockOpenable(ctx, isSnap); err != nil {
		return nil, nil, err
	}
	defer v.mu.Unlock()
	if u := v.closedBy(); u != nil { // since then, before it was claimed
		return nil, nil, u.refuse(v.Name())
	}
	if v.deleted {
		return nil, nil, fmt.Errorf("vDisk %q: %w", name, ErrNotFound)
	}
	dev = v
	if isSnap {
		s := v.namedLocked(snap)
		if s == nil {
			return nil, nil, fmt.Errorf("snapshot %q of vDisk %q: %w", snap, name, ErrNotFound)
		}
		if s.leaving {
			return nil, nil, fmt.Errorf("snapshot %q of vDisk %q: being deleted, or may be: %w", snap, name, ErrBusy)
		}
		dev = &SnapshotDevice{v: v, s: s, view: s.view}
		v.readers[s.ID]++
	}
	v.refs++
	var once sync.Once
	return dev, func() {
		once.Do(func() {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.refs--
			v.left.Send()
			if d, ok := dev.(*SnapshotDevice); ok {
				if v.readers[d.s.ID]--; v.readers[d.s.ID] == 0 {
					delete(v.readers, d.s.ID)
				}
				if v.unusedLocked(d.s) {
					h.dropAutomaticLater(v)
				}
			}
		})
	}, nil
}

// lockOpenable takes v.mu when no rollback is under way, which a snapshot does not
// mind.
func (v *Volume) lockOpenable(ctx context.Context, isSnap bool) error {
	for {
		v.mu.Lock()
		rolling := v.rolling
		if rolling == nil || isSnap {
			return nil
		}
		v.mu.Unlock()
		select {
		case <-rolling:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leaveWait is how long it is waited for users of which nobody knows yet that they
// have gone: a client is told that its connection is closed before this side is.
const leaveWait = 500 * time.Millisecond

// waitUnused waits for the last user of the vDisk, or with its snapshots of those
// too, but not for long.
func (v *Volume) waitUnused(ctx context.Context, snapshots bool) {
	ctx, cancel := context.WithTimeout(ctx, leaveWait)
	defer cancel()
	for {
		v.mu.Lock()
		if v.usersLocked(snapshots) == 0 {
			v.mu.Unlock()
			return
		}
		left := v.left.Next()
		v.mu.Unlock()
		select {
		case <-left:
		case <-ctx.Done():
			return
		}
	}
}

// usersLocked counts the users of the vDisk, or with its snapshots of those too.
// v.mu is held.
func (v *Volume) usersLocked(snapshots bool) int {
	users := v.refs
	if !snapshots {
		for _, n := range v.readers {
			users -= n
		}
	}
	return users
}

// keepOut has nobody begin to use the vDisk until opened is called. Unless force is
// set nobody may use it now, but its snapshots. v.admin is held.
func (v *Volume) keepOut(force bool) (opened func(), err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if users := v.usersLocked(false); users > 0 && !force {
		return nil, v.inUseLocked(users)
	}
	rolling := make(chan struct{})
	v.rolling = rolling
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.rolling = nil
		close(rolling)
	}, nil
}

// Exports lists what OpenDevice opens, in order: vDisks, and after each its
// snapshots.
func (h *Host) Exports(context.Context) ([]string, error) {
	var names []string
	for _, v := range h.all() {
		if v.buf == nil || v.closedBy() != nil {
			continue
		}
		v.mu.Lock()
		names = append(names, v.Name())
		for _, s := range v.snapshots {
			if s.leaving || s.hidden {
				continue
			}
			names = append(names, v.Name()+"@"+s.Name)
		}
		v.mu.Unlock()
	}
	return names, nil
}
