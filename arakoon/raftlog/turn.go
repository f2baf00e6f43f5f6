package raftlog

// turn is a mutex that may be held while a disk syncs, however long that takes. It is a
// channel, so that a bubble of testing/synctest counts whoever waits for it as blocked: the
// bubble's clock stands still while anybody waits for a sync.Mutex.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// Lock waits for the turn.
func (t turn) Lock() { t <- struct{}{} }

// TryLock takes the turn if nobody has it.
func (t turn) TryLock() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

// Unlock passes the turn on.
func (t turn) Unlock() { <-t }
