package fleet

import (
	"fmt"
	"sync"
	"time"

	"openvstorage/alba/osd"
)

// After a failed write a disk is left alone for restMin, for twice as long with each
// failure in a row, and for restMax at most.
const (
	restMin = time.Second
	restMax = time.Minute
)

// outcome is what a write says of its disk.
type outcome int

const (
	taken   outcome = iota // the disk took it
	noRoom                 // the disk is full: no fault of it
	refuses                // it takes no writes, as it says itself
	away                   // it was not asked, or its answer was lost
	nothing                // the fault is the caller's or the machine's, or one value's
	failed                 // the disk is at fault
)

// outcomeOf says what the error of a write says of the disk: see osd.BlameOf.
func outcomeOf(err error) outcome {
	if err == nil {
		return taken
	}
	switch osd.BlameOf(err) {
	case osd.NoRoom:
		return noRoom
	case osd.Refuses:
		return refuses
	case osd.Away:
		return away
	case osd.AtFault:
		return failed
	}
	return nothing
}

// record is how writes to a disk have gone lately, and how much room it has: what
// placement goes by.
type record struct {
	now func() time.Time

	mu       sync.RWMutex
	usage    osd.Usage
	leaving  bool // it is on its way out, and takes no new fragments
	failures int  // writes that failed in a row
	failure  error
	failing  time.Time // since when
	rest     time.Time // until when it is left alone
	refused  refusal
}

// renew forgets what was known of the disk: another one may have been attached.
func (r *record) renew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures, r.rest = 0, time.Time{}
	r.usage, r.refused = osd.Usage{Capacity: 1}, refusal{} // until Refresh
}

// note keeps the score of a write of so many bytes of values.
func (r *record) note(bytes uint64, o outcome, err error) {
	switch o {
	case nothing:
		return
	case taken:
		r.mu.RLock()
		clean := r.failures == 0 && r.refused.need == 0
		r.mu.RUnlock()
		if clean {
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch o {
	case taken:
		r.failures, r.failure, r.rest = 0, nil, time.Time{}
		r.refused.took(bytes)
	case noRoom:
		r.usage.Full = true // until Refresh says otherwise
		r.refused.refuse(bytes)
	case refuses:
		r.usage.ReadOnly = err // until Refresh says otherwise
	case away:
		// For as long as a disk that has failed once: it may be there again at any time.
		if rest := r.now().Add(restMin); rest.After(r.rest) {
			r.rest = rest
		}
	case failed:
		now := r.now()
		if r.failures == 0 {
			r.failing = now
		}
		r.rest = now.Add(min(restMin<<min(r.failures, 10), restMax))
		r.failures++
		r.failure = err
	}
}

// saw takes what the disk says of its room.
func (r *record) saw(u osd.Usage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.usage = u
	r.refused.reported(u.Room)
}

func (r *record) known() osd.Usage {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.usage
}

// tryAgain ends the time for which the disk is left alone.
func (r *record) tryAgain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures, r.rest = 0, time.Time{}
}

func (r *record) setLeaving(leaving bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaving = leaving
}

func (r *record) isLeaving() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.leaving
}

// noRoom reports whether a put was refused and nothing says yet that there is room
// again.
func (r *record) noRoom() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.refused.need > 0
}

// takes returns the usage, and whether the disk takes new fragments as far as its record
// tells.
func (r *record) takes() (osd.Usage, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.usage, !r.leaving && !r.usage.Full && r.usage.ReadOnly == nil && !r.now().Before(r.rest)
}

// writesFail says why writes fail, and since when, if several in a row have failed and
// one was tried lately; "" if not.
func (r *record) writesFail() (why string, since time.Time) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.failures < 2 || r.now().Sub(r.rest) > idleAfter {
		return "", time.Time{}
	}
	return fmt.Sprintf("%d writes in a row have failed: %v", r.failures, r.failure), r.failing
}
