package pebblefs

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// Open opens a Pebble. It is pebble.Open, but no compaction runs before that has
// returned: one that runs while it fails would meet what it has closed, and end
// the process.
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

// lateScheduler is Pebble's scheduler of compactions, which refuses all until
// begin. It is the one without a timer: a Pebble of ours runs one compaction at a
// time, so what has to wait is granted when another is done.
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
