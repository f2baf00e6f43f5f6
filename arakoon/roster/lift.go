package roster

import (
	"context"
	"fmt"

	"openvstorage/internal/keyswap"
)

// Lift raises the revision to least, if it is lower. A recovery does so: files may have a newer
// revision of the roster than the group came to hold, and must not be taken for newer than what
// is written from then on.
func (b Book) Lift(ctx context.Context, least uint64) error {
	for range changeTries {
		r, kept, err := b.read(ctx)
		if err != nil || r.Revision >= least {
			return err
		}
		done, err := b.Store.Swap(ctx, []keyswap.Swap{{Key: []byte(revisionKey), Old: kept[revisionKey], New: appendRevision(nil, least)}})
		if err != nil {
			return fmt.Errorf("raise the revision of the roster: %w", err)
		}
		if done {
			return nil
		}
	}
	return fmt.Errorf("%w: %d times; try again", ErrContended, changeTries)
}
