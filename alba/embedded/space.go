package embedded

import (
	"context"
	"fmt"
)

// Space returns the room for data in bytes: what the disks hold, without parity,
// and what they can still take of it under the policy that an object gets now.
// It waits for no disk: the figures are those of the last look, which is a second
// ago if all is well.
func (b *Backend) Space(ctx context.Context) (used, free uint64, err error) {
	p, err := b.Preset(ctx, "")
	if err != nil {
		return 0, 0, fmt.Errorf("room of the backend: %w", err)
	}
	now, free := b.fleet.Takes(p.Policies)
	for _, d := range b.fleet.All() {
		if d.Missing() == nil {
			used += d.Known().Used
		}
	}
	return used / uint64(now.Width()) * uint64(now.K), free, nil
}
