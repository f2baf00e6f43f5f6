package fusefs

// Since is Change.since.
func Since(c Change, epoch, seq uint64) bool { return c.since(epoch, seq) }
