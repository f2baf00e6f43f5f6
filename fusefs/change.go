package fusefs

import "openvstorage/fusefs/filetree"

// Change says when a vDisk was changed last, by whatever door. Seqs are those of
// its order (rule O9), times nanoseconds since 1970.
type Change struct {
	Epoch uint64 // of its opening; 0: it is not open, and nothing is known
	Base  uint64 // seq that it had reached when it was opened
	Seen  uint64 // seq up to which changes were looked for
	Last  uint64 // seq at which the last was found; Base: none since the opening
	At    int64  // when that was; of the opening if there was none since
}

// since reports whether a vDisk was changed since it was at a place in its order. If
// that place is of an earlier opening, the vDisk is unchanged only if it was opened
// right there and was not changed after: writes that nobody noted are changes, and so is
// the loss of what was not flushed.
func (c Change) since(epoch, seq uint64) bool {
	switch epoch {
	case 0: // never kept, or by a release that did not know the place
		return c.Base > 0 || c.Last > c.Base
	case c.Epoch:
		return seq < c.Last
	}
	return seq != c.Base || c.Last != c.Base
}

// settled is what is to be kept of a vDisk: the time of its last change, and the place
// in its order up to which that time holds. Of a vDisk that is not open it is what was
// kept.
func settled(kept filetree.DiskAttr, c Change) filetree.DiskAttr {
	if c.Epoch == 0 {
		return kept
	}
	if c.since(kept.Epoch, kept.Seq) {
		kept.Modified, kept.Changed = c.At, max(kept.Changed, c.At)
	}
	kept.Epoch, kept.Seq = c.Epoch, c.Seen
	return kept
}

// stale reports whether what is kept must be stored anew. It need not be if the vDisk
// was only opened again at the place in its order where it had been.
func stale(kept, now filetree.DiskAttr) bool {
	if kept.Seq == now.Seq {
		kept.Epoch = now.Epoch
	}
	return kept != now
}
