package embedded

import (
	"errors"
	"fmt"

	"openvstorage/alba/abm"
)

// ErrReplaced is matched by the error of calls on a disk that was given up before, and
// in whose place there is another disk.
var ErrReplaced = errors.New("was replaced before")

// whatBecame says, as an error, what became of a disk that the fleet does not have. all
// are the disks that the ABM knows.
func whatBecame(at layout, all []abm.OSD, number uint64) error {
	newest, lost := uint64(0), false
	for _, o := range all {
		if number != 0 && o.Replaces == number && o.Number != 0 { // most replace none, which is 0
			return fmt.Errorf("disk %d %w, by disk %d in %s", number, ErrReplaced, o.Number, at.where(o.Node, string(o.Endpoint)))
		}
		newest = max(newest, o.Number)
		lost = lost || o.Number == number && o.State == abm.OSDLost
	}
	switch {
	case lost:
		return fmt.Errorf("disk %d was given up before, and is forgotten when what it held is made again", number)
	case number > 0 && number <= newest: // numbers are given in order
		return fmt.Errorf("disk %d: %w any more: it was removed, or replaced by one that is gone too", number, ErrNoOSD)
	}
	return fmt.Errorf("disk %d: %w", number, ErrNoOSD)
}
