package maintenance

import (
	"slices"

	"openvstorage/alba/policy"
)

// place returns a disk for fragment i of a chunk, policy.None if none may take it. have says
// where the fragments are now, as the manifest has it. A fragment that is still to be moved
// counts where it is now. So no disk gets two fragments of a chunk and no node more than
// the policy's x, wherever the repair of the chunk stops.
func place(p policy.Policy, disks []policy.Disk, have []uint64, i int, rng policy.Rand) uint64 {
	return policy.PlaceOne(p, disks, have, i, rng)
}

// urgentFirst sorts fragments that are to be made again: those that nobody can
// read before those that only have to move, data before parity.
func urgentFirst(lost []lostFragment) {
	slices.SortStableFunc(lost, func(a, b lostFragment) int {
		switch {
		case a.readable == b.readable:
			return a.index - b.index
		case b.readable:
			return -1
		}
		return 1
	})
}

// lostFragment is a fragment that is to be made again, elsewhere.
type lostFragment struct {
	index    int
	readable bool // where it is now
}
