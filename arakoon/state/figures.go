package state

// Sessions is how many sessions there are.
func (s *State) Sessions() int { return int(s.sessionCount.Load()) }

// Size is how many bytes the state's files have, as Pebble counts them. The state must not
// be closed meanwhile.
func (s *State) Size() uint64 { return s.db.Metrics().DiskSpaceUsage() }
