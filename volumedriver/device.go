package volumedriver

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"openvstorage/device"
)

// OpenDevice returns the vDisk NAME, which is a device.Device, or the snapshot NAME@SNAP.
// What another host has it refuses with ErrElsewhere.
// Unless by force, neither can be deleted until release is called. Calls of release after
// the first do nothing.
func (h *Host) OpenDevice(ctx context.Context, name string) (dev device.Reader, release func(), err error) {
	name, snap, isSnap := strings.Cut(name, "@")
	v, err := h.elsewhere.named(ctx, name)
	if err == nil && v.closedBy() != nil {
		v, err = h.doubts.find(ctx, name)
	}
	if err != nil {
		return nil, nil, err
	}
	if u := v.closedBy(); u != nil {
		return nil, nil, u.refuse(name)
	}
	if v.buf == nil {
		return nil, nil, fmt.Errorf("vDisk %q: cannot be opened: %w", name, v.Err())
	}
	dev = v.device
	err = v.users.enter(ctx, isSnap, func(deleted bool) error {
		if u := v.closedBy(); u != nil { // since then, before it was claimed
			return u.refuse(v.Name())
		}
		if deleted {
			return fmt.Errorf("vDisk %q: %w", name, ErrNotFound)
		}
		if isSnap {
			s, err := v.tree.read(snap)
			dev = &SnapshotDevice{reader: v.reader, s: s}
			return err
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return dev, sync.OnceFunc(func() {
		d, ok := dev.(*SnapshotDevice)
		if ok {
			v.dropIfUnused(v.tree.unread(d.s))
		}
		v.users.leave(ok)
	}), nil
}

// Exports lists what OpenDevice opens, in order: this host's vDisks, and after each its
// snapshots.
func (h *Host) Exports(context.Context) ([]string, error) {
	var names []string
	for _, v := range h.table.all() {
		if v.buf == nil || v.closedBy() != nil {
			continue
		}
		name := v.Name()
		names = append(names, name)
		for _, snap := range v.tree.names() {
			names = append(names, name+"@"+snap)
		}
	}
	return names, nil
}
