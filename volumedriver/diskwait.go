package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"openvstorage/backend"
	"openvstorage/internal/counted"
)

// A read for which too few disks of the backend answer waits for them, as a write waits
// for room (P6). An error could not be taken back: a guest's file system that is told of
// one goes read-only, and drops what it has not written yet; one that waits goes on when a
// disk is back, and has lost nothing. It ends with its context, which front ends end with
// their client, and with the vDisk; it is listed with the reason, counted and logged.
// Options.ReadWait bounds it. What asks for no user does not wait: it fails, and is tried
// again by its own rules.

// Pauses between tries of a read that waits.
const (
	starveFirst = 100 * time.Millisecond
	starveLast  = time.Second
	// starveTell is how often is logged, at most, that reads of a vDisk wait.
	starveTell = time.Minute
)

// starved are the requests of a vDisk that wait for disks of the backend.
type starved struct {
	mu    sync.Mutex
	n     int
	since time.Time // of the first of them
	cause error     // of the last try
	told  time.Time
}

// hunger is the wait of one request. Its zero value has not waited.
type hunger struct {
	writes bool // it is of a request that changes something
	since  time.Time
	pause  time.Duration
}

// await returns nil if a call that failed with err is to be made again, after a while;
// else why the request fails.
func (v *Volume) await(ctx context.Context, h *hunger, err error) error {
	if !errors.Is(err, backend.ErrUnavailable) {
		return err
	}
	now, first := time.Now(), h.since.IsZero()
	since, pause := h.since, h.pause
	if first {
		since, pause = now, starveFirst
	}
	if most := v.host.opt.ReadWait; most != 0 {
		left := most - now.Sub(since)
		if left <= 0 {
			return err
		}
		pause = min(pause, left)
	}
	h.since = since
	v.starve(now, first, err)
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return fmt.Errorf("%w; it waited for disks: %w", ctx.Err(), err)
	case <-v.living.Done():
		return err
	}
	h.pause = min(2*pause, starveLast)
	if h.writes {
		return v.Err() // a halted vDisk is read all the same, and not written
	}
	return v.gone()
}

// starve notes that a request waits, and says so.
func (v *Volume) starve(now time.Time, first bool, err error) {
	s := &v.starved
	s.mu.Lock()
	defer s.mu.Unlock()
	if first {
		if s.n++; s.n == 1 {
			s.since = now
		}
	}
	s.cause = err
	if now.Sub(s.told) >= starveTell {
		s.told = now
		v.log.Warn("reads wait: too few disks of the backend answer", "waiting", s.n, "since", s.since, "err", err)
	}
}

// fed ends the wait of a request, if it has waited.
func (v *Volume) fed(h *hunger) {
	if h.since.IsZero() {
		return
	}
	s := &v.starved
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n--; s.n == 0 {
		if s.told.After(s.since) || s.told.Equal(s.since) {
			v.log.Info("no read waits for disks of the backend any more", "waited", time.Since(s.since).Round(time.Second))
		}
		s.cause = nil
	}
}

// starving is how many requests wait for disks of the backend, since when, and why.
func (v *Volume) starving() (n int, since time.Time, cause error) {
	s := &v.starved
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n, s.since, s.cause
}

// starvingReason says it to people, "" if none waits.
func (v *Volume) starvingReason() string {
	n, since, cause := v.starving()
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s since %s; what waits goes on by itself when the disks are back, and fails when they are given up: %v",
		counted.Of(n, "read waits", "reads wait"), since.UTC().Format(time.RFC3339), cause)
}
