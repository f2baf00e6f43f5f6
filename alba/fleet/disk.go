package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/alba/osd"
	"openvstorage/alba/policy"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// After a failed write a disk is left alone for this long, doubled with each
// failure in a row.
const (
	restMin = time.Second
	restMax = time.Minute
)

// Bounds of Patience.
const (
	patienceMin = 10 * time.Millisecond
	patienceMax = time.Second
)

// Disk is one OSD of the fleet, there or missing. It implements osd.OSD:
// calls on a missing disk return ErrMissing with the reason.
type Disk struct {
	Number uint64
	UUID   uuid.UUID
	Node   string // the machine that it is in
	Place  string // where it should be, for people: its directory or address

	now    func() time.Time
	load   atomic.Int32
	counts counts

	mu       sync.RWMutex
	osd      osd.OSD // nil: missing
	reason   error   // why it is missing
	unopened bool    // it is missing, and there
	usage    osd.Usage
	leaving  bool // takes no new fragments
	failures int  // writes that failed in a row
	rest     time.Time
	refused  refusal

	reads latency
}

type counts struct{ reads, writes, readErrors, writeErrors, refused, corrupt atomic.Uint64 }

// Counts says what was asked of a disk since it was added. Refused writes had no
// room; they are no errors.
type Counts struct{ Reads, Writes, ReadErrors, WriteErrors, Refused, Corrupt uint64 }

// Counts returns the disk's counters.
func (d *Disk) Counts() Counts {
	c := &d.counts
	return Counts{c.reads.Load(), c.writes.Load(), c.readErrors.Load(), c.writeErrors.Load(), c.refused.Load(), c.corrupt.Load()}
}

// Attach makes the disk reachable.
func (d *Disk) Attach(o osd.OSD) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.osd, d.reason, d.unopened, d.failures, d.rest = o, nil, false, 0, time.Time{}
	d.usage, d.refused = osd.Usage{Capacity: 1}, refusal{} // until Refresh
}

// Detach makes the disk missing. Calls under way end as they may.
func (d *Disk) Detach(reason error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.osd, d.reason, d.unopened = nil, reason, false
}

// Unopened is Detach of a disk that is where it should be: see ErrUnopened.
func (d *Disk) Unopened(reason error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.osd, d.reason, d.unopened = nil, reason, true
}

// SetLeaving says whether the disk is on its way out: it is read, and gets no
// new fragments.
func (d *Disk) SetLeaving(leaving bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaving = leaving
}

// Missing returns why the disk cannot be reached, nil if it can.
func (d *Disk) Missing() error {
	_, err := d.target()
	return err
}

// Reason returns why the disk is missing, as Detach was told; nil if it is there.
func (d *Disk) Reason() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.osd != nil {
		return nil
	}
	return d.why()
}

// Known returns the usage that Refresh saw last.
func (d *Disk) Known() osd.Usage {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.usage
}

// Refresh asks the disk how full it is, for placement.
func (d *Disk) Refresh(ctx context.Context) error {
	u, err := d.Usage(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.usage = u
	d.refused.look(u.Room)
	return nil
}

// TryAgain ends the time for which the disk is left alone after failures:
// somebody knows that it is well.
func (d *Disk) TryAgain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures, d.rest = 0, time.Time{}
}

// Patience is how long a read of this disk may take before it is worth while
// to ask others: what reads took lately, and four times their spread more.
func (d *Disk) Patience() time.Duration { return d.reads.bound() }

// Stuck reports whether so many requests wait for the disk.
func (d *Disk) Stuck(requests int32) bool { return d.load.Load() >= requests }

func (d *Disk) target() (osd.OSD, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	switch {
	case d.osd == nil && d.unopened:
		return nil, fmt.Errorf("disk %d (%s): %w: %w", d.Number, d.Place, ErrUnopened, d.why())
	case d.osd == nil:
		return nil, fmt.Errorf("disk %d (%s): %w: %w", d.Number, d.Place, ErrMissing, d.why())
	}
	return d.osd, nil
}

// why is the reason for which the disk is missing; nobody may have told one yet.
// d.mu is held.
func (d *Disk) why() error {
	if d.reason == nil {
		return errUnseen
	}
	return d.reason
}

var errUnseen = errors.New("it was not looked for yet")

func (d *Disk) placement() policy.Disk {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return policy.Disk{
		OSD: d.Number, Node: d.Node, Used: d.usage.Used, Capacity: d.usage.Capacity, Load: uint32(max(d.load.Load(), 0)),
		Failing: d.osd == nil || d.leaving || d.usage.Full || d.usage.ReadOnly != nil || d.now().Before(d.rest),
	}
}

// wrote keeps the score of a write of so many bytes of values.
func (d *Disk) wrote(bytes uint64, err error) {
	d.counts.writes.Add(1)
	switch {
	case err == nil:
		d.mu.RLock()
		clean := d.failures == 0 && d.refused.need == 0
		d.mu.RUnlock()
		if clean {
			return
		}
		d.mu.Lock()
		d.failures, d.rest = 0, time.Time{}
		d.refused.took(bytes)
		d.mu.Unlock()
		return
	case errors.Is(err, osd.ErrFull):
		d.counts.refused.Add(1)
		d.mu.Lock()
		d.usage.Full = true // until Refresh says otherwise
		d.refused.refuse(bytes)
		d.mu.Unlock()
		return
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, osd.ErrAssert), errors.Is(err, osd.ErrInvalid), errors.Is(err, osd.ErrCorrupt):
		return // not the disk's fault
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM):
		return // nor this: no other disk would do better
	}
	d.counts.writeErrors.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rest = d.now().Add(min(restMin<<min(d.failures, 10), restMax))
	d.failures++
}

// ID implements osd.OSD.
func (d *Disk) ID() uuid.UUID { return d.UUID }

// Apply implements osd.OSD.
func (d *Disk) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	o, err := d.target()
	if err != nil {
		return err
	}
	d.load.Add(1)
	defer d.load.Add(-1)
	err = o.Apply(ctx, asserts, updates)
	d.wrote(putBytes(updates), err)
	return d.name(err)
}

// Read implements osd.OSD.
func (d *Disk) Read(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error {
	o, err := d.target()
	if err != nil {
		return err
	}
	d.load.Add(1)
	defer d.load.Add(-1)
	d.counts.reads.Add(1)
	start := time.Now()
	if err = o.Read(ctx, key, off, p, crcs); err == nil {
		d.reads.note(time.Since(start))
		return nil
	}
	d.counts.readErrors.Add(1)
	if errors.Is(err, osd.ErrCorrupt) {
		d.counts.corrupt.Add(1)
	}
	return d.name(err)
}

// Stat implements osd.OSD.
func (d *Disk) Stat(ctx context.Context, keys [][]byte) ([]osd.Info, error) {
	o, err := d.target()
	if err != nil {
		return nil, err
	}
	list, err := o.Stat(ctx, keys)
	return list, d.name(err)
}

// Range implements osd.OSD.
func (d *Disk) Range(ctx context.Context, first, last []byte, limit int) ([]osd.Info, error) {
	o, err := d.target()
	if err != nil {
		return nil, err
	}
	list, err := o.Range(ctx, first, last, limit)
	return list, d.name(err)
}

// Verify implements osd.OSD.
func (d *Disk) Verify(ctx context.Context, after []byte, limit int) ([]osd.Bad, []byte, error) {
	o, err := d.target()
	if err != nil {
		return nil, nil, err
	}
	bad, next, err := o.Verify(ctx, after, limit)
	return bad, next, d.name(err)
}

// Usage implements osd.OSD.
func (d *Disk) Usage(ctx context.Context) (osd.Usage, error) {
	o, err := d.target()
	if err != nil {
		return osd.Usage{}, err
	}
	u, err := o.Usage(ctx)
	return u, d.name(err)
}

// name says in an error which disk it is of.
func (d *Disk) name(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("disk %d (%s): %w", d.Number, d.Place, err)
}

// latency follows how long reads take, as TCP follows its round trips (RFC
// 6298): a mean and a mean deviation, each moved a little by every read.
type latency struct {
	mean, spread atomic.Int64 // nanoseconds
}

func (l *latency) note(took time.Duration) {
	mean := l.mean.Load()
	if mean == 0 {
		l.mean.Store(int64(took))
		l.spread.Store(int64(took) / 2)
		return
	}
	off := int64(took) - mean
	l.mean.Store(mean + off/8)
	spread := l.spread.Load()
	l.spread.Store(spread + (max(off, -off)-spread)/4)
}

func (l *latency) bound() time.Duration {
	return min(max(time.Duration(l.mean.Load()+4*l.spread.Load()), patienceMin), patienceMax)
}
