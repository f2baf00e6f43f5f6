package volumedriver

import (
	"cmp"
	"context"
)

// Steps that a vDisk takes by itself, in time. Who is about to move a vDisk, or
// tests it, may ask for them.

// Checkpoint returns when the map of everything written to a vDisk so far is in
// the backend: a restart then reads no TLog for it.
func (h *Host) Checkpoint(ctx context.Context, name string) error {
	v, done, err := h.managed(ctx, name)
	if err != nil {
		return err
	}
	done()
	return v.store.checkpointTo(ctx, v.buf.Written())
}

// CloseTLog has what was written to a vDisk so far go to the backend next, and
// does not wait for it.
func (h *Host) CloseTLog(name string) error {
	v, err := h.volume(name)
	if err == nil {
		err = cmp.Or(v.sure(), v.Err())
	}
	if err != nil {
		return err
	}
	v.buf.CloseTLog()
	return nil
}
