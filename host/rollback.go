package host

import (
	"context"

	"github.com/google/uuid"
)

// rolledHost has the kernel write back and forget, with a rollback, what it has of
// the vDisk's file in memory for those who map it: before, so that what was written to
// mapped pages is not written over what the snapshot holds, and after, as pages may
// have been read meanwhile.
type rolledHost struct {
	host
	changed func(ctx context.Context, id uuid.UUID) error
}

// Rollback implements control.Host.
func (r rolledHost) Rollback(ctx context.Context, name, snap string) error {
	return r.RollbackTold(ctx, name, snap, false, r.changed)
}

// ForceRollback implements control.Host.
func (r rolledHost) ForceRollback(ctx context.Context, name, snap string) error {
	return r.RollbackTold(ctx, name, snap, true, r.changed)
}
