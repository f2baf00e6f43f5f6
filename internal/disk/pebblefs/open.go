package pebblefs

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// Open is pebble.Open, except that no compaction runs before it has returned. If
// pebble.Open fails it closes what it has opened: a compaction that ran at that time
// would meet closed files and end the process.
func Open(dir string, po *pebble.Options) (*pebble.DB, error) {
	late := &lateScheduler{ConcurrencyLimitScheduler: pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()}
	po.Experimental.CompactionScheduler = late
	db, err := pebble.Open(dir, po)
	if err != nil {
		return nil, err
	}
	late.begin()
	return db, nil
}

// lateScheduler is a scheduler of compactions for Pebble that refuses all until begin.
// It has no timer: our stores run one compaction at a time, so a refused one is granted
// when the running one is done.
type lateScheduler struct {
	*pebble.ConcurrencyLimitScheduler
	begun atomic.Bool
}

// begin grants what was refused.
func (s *lateScheduler) begin() {
	s.begun.Store(true)
	if granted, handle := s.TrySchedule(); granted {
		handle.Done() // it was not needed, and whoever waits gets it
	}
}

// TrySchedule is called by Pebble when it wants to run a compaction.
func (s *lateScheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if !s.begun.Load() {
		return false, nil
	}
	return s.ConcurrencyLimitScheduler.TrySchedule()
}
