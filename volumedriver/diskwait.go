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
// one goes read-only, and drops what it has not written yet. A file system that waits goes
// on when a disk is back, and has lost nothing. The wait ends with the context of the
// request, which front ends end with their client, and with the vDisk. It is listed with
// the reason, counted and logged. Options.ReadWait bounds it. Reads that no user asks for
// do not wait: they fail, and are tried again by rules of their own.

// Pauses between tries of a read that waits.
const (
	waitFirst = 100 * time.Millisecond
	waitLast  = time.Second
	// waitTell is how often it is logged, at most, that reads of a vDisk wait.
	waitTell = time.Minute
)

// diskWaits are the requests of a vDisk that wait for disks of the backend.
type diskWaits struct {
	*core

	mu    sync.Mutex
	n     int
	since time.Time // when the first of them began to wait
	cause error     // of the last try
	told  time.Time // when it was last logged
}

// diskWait is the wait of one request. Its zero value has not waited.
type diskWait struct {
	writes bool // it is of a request that changes something
	since  time.Time
	pause  time.Duration
}

// await waits a while if err is that too few disks answer, and returns nil: the call that
// failed is to be made again. Else it returns why the request fails. h is the wait of the
// request, which ends with end.
func (w *diskWaits) await(ctx context.Context, h *diskWait, err error) error {
	if !errors.Is(err, backend.ErrUnavailable) {
		return err
	}
	now, first := time.Now(), h.since.IsZero()
	since, pause := h.since, h.pause
	if first {
		since, pause = now, waitFirst
	}
	if most := w.host.opt.ReadWait; most != 0 {
		left := most - now.Sub(since)
		if left <= 0 {
			return err
		}
		pause = min(pause, left)
	}
	h.since = since
	w.note(now, first, err)
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return fmt.Errorf("%w; it waited for disks: %w", ctx.Err(), err)
	case <-w.living.Done():
		return err
	}
	h.pause = min(2*pause, waitLast)
	if h.writes {
		return w.Err() // a halted vDisk is read all the same, and not written
	}
	return w.gone()
}

// note notes that a request waits, and logs it. first says that it has not waited before.
func (w *diskWaits) note(now time.Time, first bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if first {
		if w.n++; w.n == 1 {
			w.since = now
		}
	}
	w.cause = err
	if now.Sub(w.told) >= waitTell {
		w.told = now
		w.log.Warn("reads wait: too few disks of the backend answer", "waiting", w.n, "since", w.since, "err", err)
	}
}

// end ends the wait of a request, if it has waited.
func (w *diskWaits) end(h *diskWait) {
	if h.since.IsZero() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n--; w.n == 0 {
		if w.told.After(w.since) || w.told.Equal(w.since) {
			w.log.Info("no read waits for disks of the backend any more", "waited", time.Since(w.since).Round(time.Second))
		}
		w.cause = nil
	}
}

// waiting is how many requests wait for disks of the backend, since when, and why.
func (w *diskWaits) waiting() (n int, since time.Time, cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n, w.since, w.cause
}

// reason says to people what waiting says, "" if none waits.
func (w *diskWaits) reason() string {
	n, since, cause := w.waiting()
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s since %s; what waits goes on by itself when the disks are back, and fails when they are given up: %v",
		counted.Of(n, "read waits", "reads wait"), since.UTC().Format(time.RFC3339), cause)
}
