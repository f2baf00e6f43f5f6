package embedded

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/alba/abm"
	"openvstorage/alba/maintenance"
)

// ErrReplaced is matched by the error of calls on a disk that had been given up
// before, and for which another is there.
var ErrReplaced = errors.New("was replaced before")

// replaced tells of a disk that another has come for.
func (b *Backend) replaced(all []abm.OSD, number uint64) error {
	for _, o := range all {
		if o.Replaces == number && o.Number != 0 {
			return fmt.Errorf("disk %d %w, by disk %d in %s", number, ErrReplaced, o.Number, b.path(string(o.Endpoint)))
		}
	}
	return nil
}

// gone says of a disk that the fleet does not have what became of it.
func (b *Backend) gone(ctx context.Context, number uint64) error {
	all, err := maintenance.AllOSDs(ctx, b.abm)
	if err != nil {
		return err
	}
	if err := b.replaced(all, number); err != nil {
		return err
	}
	newest := uint64(0)
	for _, o := range all {
		newest = max(newest, o.Number)
		if o.Number == number && o.State == abm.OSDLost {
			return fmt.Errorf("disk %d was given up before, and is forgotten when what it held is made again", number)
		}
	}
	if number > 0 && number <= newest {
		return fmt.Errorf("disk %d: %w any more: it was removed, or replaced by one that is gone too", number, ErrNoOSD)
	}
	return fmt.Errorf("disk %d: %w", number, ErrNoOSD)
}
