package fleet

import (
	"errors"
	"fmt"
	"sync"

	"openvstorage/alba/osd"
)

// attachment is how a disk is reached, or why it is not.
type attachment struct {
	of string // the disk, for errors

	mu       sync.RWMutex
	osd      osd.OSD     // nil: missing
	turn     func() bool // see Disk.Follow; nil: nobody has told
	reason   error       // why it is missing
	unopened bool        // it is missing, and where it should be
	missing  error       // what target returns: made once, as many may ask
}

var errUnseen = errors.New("it was not looked for yet")

// set makes the disk reachable.
func (a *attachment) set(o osd.OSD) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.osd, a.turn, a.reason, a.unopened, a.missing = o, nil, nil, false, nil
}

// drop makes the disk missing for a reason; nil: nobody has told one.
func (a *attachment) drop(reason error, unopened bool) {
	if reason == nil {
		reason = errUnseen
	}
	kind := ErrMissing
	if unopened {
		kind = ErrUnopened
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.osd, a.turn, a.reason, a.unopened = nil, nil, reason, unopened
	a.missing = fmt.Errorf("%s: %w: %w", a.of, kind, reason)
}

// inherit takes over why another disk is missing.
func (a *attachment) inherit(from *attachment) {
	from.mu.RLock()
	reason, unopened := from.reason, from.unopened
	from.mu.RUnlock()
	a.drop(reason, unopened)
}

func (a *attachment) follow(turn func() bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn = turn
}

func (a *attachment) turns() func() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.turn
}

// target returns the OSD, or an error that is ErrMissing, with the reason.
func (a *attachment) target() (osd.OSD, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.osd == nil {
		return nil, a.missing
	}
	return a.osd, nil
}

// why is the reason for which the disk is missing, nil if it is there.
func (a *attachment) why() error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.reason
}

// there reports whether the disk is attached.
func (a *attachment) there() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.osd != nil
}
