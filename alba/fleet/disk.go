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

	fleet  *Fleet
	now    func() time.Time
	load   atomic.Int32
	counts counts
	health health
	costs  [2]latency      // of reads and writes, for each unit
	par    [2]atomic.Int64 // what they take on the other disks, nanoseconds; 0: not known

	asked refresh

	mu       sync.RWMutex
	osd      osd.OSD     // nil: missing
	turn     func() bool // see Follow; nil: nobody has told
	reason   error       // why it is missing
	unopened bool        // it is missing, and there
	usage    osd.Usage
	leaving  bool // takes no new fragments
	failures int  // writes that failed in a row
	failure  error
	failing  time.Time // since when
	rest     time.Time
	refused  refusal
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
	d.osd, d.turn, d.reason, d.unopened, d.failures, d.rest = o, nil, nil, false, 0, time.Time{}
	d.usage, d.refused = osd.Usage{Capacity: 1}, refusal{} // until Refresh
}

// Detach makes the disk missing. Calls under way end as they may.
func (d *Disk) Detach(reason error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.osd, d.turn, d.reason, d.unopened = nil, nil, reason, false
}

// Unopened is Detach of a disk that is where it should be: see ErrUnopened.
func (d *Disk) Unopened(reason error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.osd, d.turn, d.reason, d.unopened = nil, nil, reason, true
}

// SetLeaving says whether the disk is on its way out: it is read, and gets no
// new fragments.
func (d *Disk) SetLeaving(leaving bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaving = leaving
}

// Missing returns why the disk cannot be reached, nil if it can. One that does not
// answer cannot.
func (d *Disk) Missing() error {
	if _, err := d.target(); err != nil {
		return err
	}
	return d.Silent()
}

// Attached is Missing of a disk from which an answer may yet come.
func (d *Disk) Attached() error {
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

// Known returns the usage that Refresh saw last; its Capacity is 1 as long as that has
// seen none.
func (d *Disk) Known() osd.Usage {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.usage
}

// refreshMost is how long Refresh waits.
const refreshMost = 2 * time.Second

// refresh is a call of Refresh under way, which others share.
type refresh struct {
	mu   sync.Mutex
	done chan struct{} // nil: none is
	err  error
}

// ErrLate is matched by the error of Refresh for a disk that has not told in time how
// full it is, and of which nobody can say yet that it does not answer. What it told
// last is Known.
var ErrLate = errors.New("disk takes its time")

// Refresh asks the disk how full it is, for placement. It waits for two seconds: a
// disk that takes longer is asked by one call only.
func (d *Disk) Refresh(ctx context.Context) error {
	r := &d.asked
	r.mu.Lock()
	if r.done == nil {
		r.done = make(chan struct{})
		done := r.done
		go func() {
			err := d.refresh(context.WithoutCancel(ctx))
			r.mu.Lock()
			defer r.mu.Unlock()
			r.err, r.done = err, nil
			close(done)
		}()
	}
	done := r.done
	r.mu.Unlock()
	t := time.NewTimer(refreshMost)
	defer t.Stop()
	select {
	case <-done:
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.err
	case <-ctx.Done():
		return d.name(ctx.Err())
	case <-t.C:
		if err := d.Silent(); err != nil {
			return err
		}
		return d.name(fmt.Errorf("%w: it has not told how full it is for %v", ErrLate, refreshMost))
	}
}

func (d *Disk) refresh(ctx context.Context) error {
	u, err := d.usageOf(ctx)
	if err != nil {
		return d.name(err)
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

// Patience is how long a read of so many bytes may take before it is worth while
// to ask others: see Fleet.Patience. Where nothing is known of the fleet, what reads
// of this disk took counts.
func (d *Disk) Patience(bytes int) time.Duration {
	bound := d.fleet.usual.Load()
	if bound == 0 {
		bound = int64(d.costs[reading].bound())
	}
	return patience(bound, bytes)
}

// Patience is how long a read of so many bytes should take: what reads took lately,
// and four times their spread more. It is what the disks of the fleet take, the half
// of them that is faster: one that has got slow must not make others wait for it.
func (f *Fleet) Patience(bytes int) time.Duration {
	if bound := f.usual.Load(); bound != 0 {
		return patience(bound, bytes)
	}
	return patienceMax
}

func patience(bound int64, bytes int) time.Duration {
	return min(max(time.Duration(float64(bound)*units(bytes)), patienceMin), patienceMax)
}

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
	silent := d.Silent() != nil
	d.mu.RLock()
	defer d.mu.RUnlock()
	return policy.Disk{
		OSD: d.Number, Node: d.Node, Used: d.usage.Used, Capacity: d.usage.Capacity, Load: uint32(max(d.load.Load(), 0)),
		Failing: d.osd == nil || d.leaving || d.usage.Full || d.usage.ReadOnly != nil || d.now().Before(d.rest) || silent,
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
		d.failures, d.failure, d.rest = 0, nil, time.Time{}
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
	now := d.now()
	if d.failures == 0 {
		d.failing = now
	}
	d.rest = now.Add(min(restMin<<min(d.failures, 10), restMax))
	d.failures++
	d.failure = err
}

// ID implements osd.OSD.
func (d *Disk) ID() uuid.UUID { return d.UUID }

// Apply implements osd.OSD. When the disk is seen not to answer, what still waits
// for its turn is given up.
func (d *Disk) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	o, err := d.target()
	if err != nil {
		return err
	}
	bytes := 0
	for i := range updates {
		bytes += len(updates[i].Value.Data)
	}
	i, err := d.begin(writing, bytes)
	if err != nil {
		return err
	}
	d.load.Add(1)
	defer d.load.Add(-1)
	answers := d.Answers()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(answers, cancel)
	err = o.Apply(ctx, asserts, updates)
	stop()
	cancel()
	d.end(writing, i, err)
	if left(err, answers) {
		err = fmt.Errorf("%w: %w", ErrNotAnswering, err)
	}
	d.wrote(putBytes(updates), err)
	return d.name(err)
}

// ApplyAside is Apply for those who must not wait for a disk that does not answer.
// They leave it what they pass: it may be read until they end.
func (d *Disk) ApplyAside(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	_, err := aside(ctx, d, func(ctx context.Context) (struct{}, error) { return struct{}{}, d.Apply(ctx, asserts, updates) })
	return err
}

// Read implements osd.OSD.
func (d *Disk) Read(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error {
	o, err := d.target()
	if err != nil {
		return err
	}
	i, err := d.begin(reading, len(p))
	if err != nil {
		return err
	}
	return d.read(ctx, o, i, key, off, p, crcs)
}

// ReadWaiting is Read of a disk that may not answer, for those who have nobody else
// to ask.
func (d *Disk) ReadWaiting(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error {
	o, err := d.target()
	if err != nil {
		return err
	}
	h := &d.health
	h.mu.Lock()
	i := h.kinds[reading].add(d.fleet.ticks.Load(), d.now(), len(p))
	h.mu.Unlock()
	return d.read(ctx, o, i, key, off, p, crcs)
}

func (d *Disk) read(ctx context.Context, o osd.OSD, i int32, key []byte, off uint32, p []byte, crcs []uint32) error {
	d.load.Add(1)
	defer d.load.Add(-1)
	d.counts.reads.Add(1)
	err := o.Read(ctx, key, off, p, crcs)
	d.end(reading, i, err)
	if err == nil {
		return nil
	}
	d.counts.readErrors.Add(1)
	if errors.Is(err, osd.ErrCorrupt) {
		d.counts.corrupt.Add(1)
	}
	return d.name(err)
}

// ReadAside is Read for those who must not wait for a disk that does not answer, and
// who leave it their memory.
func (d *Disk) ReadAside(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error {
	_, err := aside(ctx, d, func(ctx context.Context) (struct{}, error) { return struct{}{}, d.Read(ctx, key, off, p, crcs) })
	return err
}

// ask makes a call that is neither, and that its caller leaves if the disk does not
// answer.
func ask[T any](ctx context.Context, d *Disk, k kind, call func(context.Context, osd.OSD) (T, error)) (v T, err error) {
	o, err := d.target()
	if err != nil {
		return v, err
	}
	i, err := d.begin(k, 0)
	if err != nil {
		return v, err
	}
	v, err = aside(ctx, d, func(ctx context.Context) (T, error) {
		v, err := call(ctx, o)
		d.end(k, i, err)
		return v, d.name(err)
	})
	return v, err
}

// Stat implements osd.OSD. Keys must not be changed after an error.
func (d *Disk) Stat(ctx context.Context, keys [][]byte) ([]osd.Info, error) {
	return ask(ctx, d, asking, func(ctx context.Context, o osd.OSD) ([]osd.Info, error) { return o.Stat(ctx, keys) })
}

// Range implements osd.OSD.
func (d *Disk) Range(ctx context.Context, first, last []byte, limit int) ([]osd.Info, error) {
	return ask(ctx, d, asking, func(ctx context.Context, o osd.OSD) ([]osd.Info, error) { return o.Range(ctx, first, last, limit) })
}

// Verify implements osd.OSD.
func (d *Disk) Verify(ctx context.Context, after []byte, limit int) ([]osd.Bad, []byte, error) {
	type found struct {
		bad  []osd.Bad
		next []byte
	}
	// It may read as many whole values as it is asked to: that it takes its time
	// says nothing, unless nothing else comes back either.
	v, err := ask(ctx, d, verifying, func(ctx context.Context, o osd.OSD) (v found, err error) {
		v.bad, v.next, err = o.Verify(ctx, after, limit)
		return v, err
	})
	return v.bad, v.next, err
}

// Usage implements osd.OSD.
func (d *Disk) Usage(ctx context.Context) (osd.Usage, error) { return d.usageOf(ctx) }

func (d *Disk) usageOf(ctx context.Context) (osd.Usage, error) {
	return ask(ctx, d, asking, func(ctx context.Context, o osd.OSD) (osd.Usage, error) { return o.Usage(ctx) })
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
	took = max(took, 1) // 0: nothing is known
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

func (l *latency) bound() time.Duration { return time.Duration(l.mean.Load() + 4*l.spread.Load()) }
