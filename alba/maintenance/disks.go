package maintenance

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"sync"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/fleet"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/policy"

	"openvstorage/internal/bell"
)

// diskWatch follows the disks for repairs: since when a disk is missing, what each disk
// lacks, and from which disks fragments must be moved.
type diskWatch struct {
	managers
	fleet        *fleet.Fleet
	log          *slog.Logger
	now          func() time.Time
	rebuildAfter time.Duration // how long a disk is missing before its fragments are made again elsewhere; not above 0: for ever
	lacking      *bell.Bell    // rung when a disk reports more lost fragments than before

	mu        sync.Mutex
	missing   map[uint64]time.Time // since when a disk cannot be reached
	lacks     map[uint64]uint64    // how many of its fragments each disk says that it lacks
	leave     map[uint64]bool      // disks that the ABM calls lost or draining: their fragments must be elsewhere
	lost      []abm.OSD            // those of leave, to be forgotten once they hold nothing
	refreshed time.Time            // when the disks were asked last
	surveyed  string               // the fingerprint at the last survey
	buf       []byte               // memory of fingerprint
}

// refresh asks every disk how full it is, and notes since when those are missing
// that do not answer.
func (w *diskWatch) refresh(ctx context.Context) {
	w.mu.Lock()
	w.refreshed = w.now()
	w.mu.Unlock()
	said := w.fleet.Refresh(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	there := make(map[uint64]bool)
	for d, err := range said {
		w.noteLackingLocked(d, err)
		// A disk that is there and cannot be opened, because the machine lacks
		// something, is not missing: it starts no rebuild.
		if there[d.Number] = !errors.Is(err, fleet.ErrMissing) || errors.Is(err, fleet.ErrUnopened); there[d.Number] {
			delete(w.missing, d.Number)
		} else if _, known := w.missing[d.Number]; !known {
			w.missing[d.Number] = w.now()
		}
	}
	for number := range w.missing {
		if _, known := there[number]; !known {
			delete(w.missing, number)
		}
	}
}

// noteLackingLocked has fragments looked for at once when a disk says that it lacks
// more than it did.
func (w *diskWatch) noteLackingLocked(d *fleet.Disk, err error) {
	lacks := uint64(0)
	if err == nil {
		lacks = d.Known().Absent
	}
	if lacks > w.lacks[d.Number] {
		w.lacking.Ring()
	}
	w.lacks[d.Number] = lacks
}

// age is how long ago the disks were asked last.
func (w *diskWatch) age() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now().Sub(w.refreshed)
}

// fingerprint tells the disks of one moment from those of another, as far as it matters
// to a repair: which disks there are, which of them take fragments, how much room they
// have (to a factor of two), and which are to be left.
func (w *diskWatch) fingerprint() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fingerprintLocked()
}

func (w *diskWatch) fingerprintLocked() string {
	b := w.buf[:0]
	for _, d := range w.fleet.Disks() {
		b = strconv.AppendUint(b, d.OSD, 10)
		if _, there := w.fleet.Alive(d.OSD); !there {
			b = append(b, '-')
		}
		if d.Usable() {
			b = append(b, '+')
			if known := w.fleet.Disk(d.OSD); known != nil {
				b = strconv.AppendInt(b, int64(bits.Len64(known.Known().Room)), 10)
			}
		}
		b = append(b, ' ')
	}
	for _, number := range w.leavingLocked() {
		b = strconv.AppendUint(append(b, '!'), number, 10)
	}
	w.buf = b
	return string(b)
}

// beginSurvey notes the disks that a survey begins with.
func (w *diskWatch) beginSurvey() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.surveyed = w.fingerprintLocked()
}

// changed reports whether the disks are others than at the last survey.
func (w *diskWatch) changed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.surveyed != w.fingerprintLocked()
}

// leaving returns the disks whose fragments must be elsewhere, in order.
func (w *diskWatch) leaving() []uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leavingLocked()
}

func (w *diskWatch) leavingLocked() []uint64 {
	list := slices.Collect(maps.Keys(w.leave))
	for number := range w.missing {
		if !w.leave[number] && w.goneLocked(number) {
			list = append(list, number)
		}
	}
	slices.Sort(list)
	return list
}

// goneLocked reports whether a disk is missing for so long that its fragments are made again.
// It ends with the refresh that finds the disk back.
func (w *diskWatch) goneLocked(number uint64) bool {
	since, missing := w.missing[number]
	return missing && w.rebuildAfter > 0 && w.now().Sub(since) >= w.rebuildAfter
}

// risk tells the disks of one moment from those of another, as far as it matters to how safe
// objects are: which disks are there, and which are to be left.
func (w *diskWatch) risk() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b []byte
	for _, d := range w.fleet.All() {
		if d.Missing() == nil {
			b = append(strconv.AppendUint(b, d.Number, 10), ' ')
		}
	}
	for _, number := range w.leavingLocked() {
		b = strconv.AppendUint(append(b, '!'), number, 10)
	}
	return string(b)
}

// leaves reports whether the fragments of a disk must be elsewhere.
func (w *diskWatch) leaves(number uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leave[number] || w.goneLocked(number)
}

// candidates returns the disks as placement sees them. A disk that is to be left, or
// that has no room for a fragment of so many bytes, takes none.
func (w *diskWatch) candidates(bytes uint32) []policy.Disk {
	w.mu.Lock()
	defer w.mu.Unlock()
	disks := w.fleet.Disks()
	for i := range disks {
		d := w.fleet.Disk(disks[i].OSD)
		if d == nil || w.leave[d.Number] || w.goneLocked(d.Number) || d.Known().Room < uint64(bytes) {
			disks[i].Failing = true
		}
	}
	return disks
}

// findLeaving finds the disks that the ABM calls lost or draining. Their fragments must be
// elsewhere, as those of disks that are missing for long.
func (w *diskWatch) findLeaving(ctx context.Context) error {
	all, err := AllOSDs(ctx, w.abm)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leave, w.lost = make(map[uint64]bool), nil
	for _, o := range all {
		if o.Number != 0 && (o.State == abm.OSDLost || o.State == abm.OSDDraining) {
			w.leave[o.Number] = true
			w.lost = append(w.lost, o)
		}
	}
	return nil
}

// retire has the managers forget the disks that are lost, or were drained, and
// hold nothing any more.
func (w *diskWatch) retire(ctx context.Context, hosts []abm.Host) error {
	w.mu.Lock()
	lost := w.lost
	w.mu.Unlock()
	var errs []error
	for _, o := range lost {
		if o.State == abm.OSDDraining && w.fleet.Disk(o.Number) != nil && w.fleet.Disk(o.Number).Missing() != nil {
			continue // what is to be deleted on it waits until it is back
		}
		done := true
		for _, h := range hosts {
			host, err := w.host(h.Number)
			if err == nil {
				var gone bool
				gone, err = forget(ctx, host, o.Number)
				done = done && gone
			}
			if err != nil {
				errs = append(errs, err)
				done = false
			}
		}
		if !done {
			continue
		}
		if err := w.abm.PurgeOSD(ctx, o.Number); err != nil && !errors.Is(err, abm.ErrNotFound) {
			errs = append(errs, err)
			continue
		}
		w.fleet.Remove(o.Number)
		w.log.Info("a disk that was lost or drained holds nothing any more and is forgotten", "disk", o.Number)
	}
	return errors.Join(errs...)
}

// AllOSDs returns all OSDs that the ABM knows.
func AllOSDs(ctx context.Context, c *abm.Client) ([]abm.OSD, error) {
	var all []abm.OSD
	var after *[16]byte
	for {
		page, err := c.OSDs(ctx, after, abm.MaxPage, userfn.Consistent)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < abm.MaxPage {
			return all, nil
		}
		after = &page[len(page)-1].LongID
	}
}

// forget has an NSM host forget a disk, if nothing is on it.
func forget(ctx context.Context, host *nsm.Client, number uint64) (bool, error) {
	for {
		step, err := host.ForgetOSD(ctx, number)
		switch {
		case errors.Is(err, nsm.ErrInUse):
			return false, nil
		case errors.Is(err, nsm.ErrNotFound):
			return true, nil
		case err != nil:
			return false, err
		case step.Done:
			return true, nil
		case step.Removed == 0: // objects have fragments on it still
			return false, nil
		}
	}
}
