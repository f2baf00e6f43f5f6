package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// rolledHost has the kernel forget, with a rollback, what it has of the vDisk's
// file in memory for those who map it.
type rolledHost struct {
	host
	changed func(id uuid.UUID) error
}

// Rollback implements control.Host.
func (r rolledHost) Rollback(ctx context.Context, name, snap string) error {
	return r.around(ctx, name, func() error { return r.host.Rollback(ctx, name, snap) })
}

// ForceRollback implements control.Host.
func (r rolledHost) ForceRollback(ctx context.Context, name, snap string) error {
	return r.around(ctx, name, func() error { return r.host.ForceRollback(ctx, name, snap) })
}

// around tells that the vDisk changes, before, so that what was written to mapped
// pages is not written over what the snapshot holds, and after, as pages may have
// been read meanwhile.
func (r rolledHost) around(ctx context.Context, name string, rollback func() error) error {
	info, err := r.host.Info(ctx, name)
	if err != nil {
		return err
	}
	if err := r.changed(info.ID); err != nil {
		return err
	}
	if err := rollback(); err != nil {
		return errors.Join(err, r.changed(info.ID)) // it may be done
	}
	if err := r.changed(info.ID); err != nil {
		return fmt.Errorf("vDisk %s is rolled back, but who maps its file may see what it held before; unmap it: %w", name, err)
	}
	return nil
}
