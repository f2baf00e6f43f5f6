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
)

// Bounds of Patience.
const (
	patienceMin = 2 * time.Millisecond
	patienceMax = time.Second
)

// Disk is one OSD of the fleet, there or missing. It implements osd.OSD: calls on a
// missing disk return ErrMissing with the reason.
type Disk struct {
	Number uint64
	UUID   uuid.UUID
	Node   string // the machine that it is in
	Place  string // where it should be, for people: its directory or address

	fleet *Fleet
	zone  atomic.Pointer[string] // nil: none was told
	load  atomic.Int32           // requests under way

	counts    counts
	attached  attachment
	record    record
	health    health
	suspicion suspicion
	asked     refresh
}

type counts struct{ reads, writes, readErrors, writeErrors, refused, corrupt atomic.Uint64 }

// Counts says what was asked of a disk since it was added. Refused counts writes that the
// disk had no room for, which are no errors.
type Counts struct{ Reads, Writes, ReadErrors, WriteErrors, Refused, Corrupt uint64 }

// Counts returns the disk's counters.
func (d *Disk) Counts() Counts {
	c := &d.counts
	return Counts{c.reads.Load(), c.writes.Load(), c.readErrors.Load(), c.writeErrors.Load(), c.refused.Load(), c.corrupt.Load()}
}

// Attach makes the disk reachable. Nothing is known of its room until Refresh.
func (d *Disk) Attach(o osd.OSD) {
	d.record.renew()
	d.attached.set(o)
}

// Detach makes the disk missing. Calls under way end as they may.
func (d *Disk) Detach(reason error) { d.attached.drop(reason, false) }

// Unopened is Detach of a disk that is where it should be: see ErrUnopened.
func (d *Disk) Unopened(reason error) { d.attached.drop(reason, true) }

// Follow tells the disk, once it is attached, how to find out whether calls on its file
// system come back. turn is called again and again. It returns true if every call on the
// file system that began before turn's call before last has come back.
func (d *Disk) Follow(turn func() bool) { d.attached.follow(turn) }

// SetLeaving says whether the disk is on its way out: it is read, and gets no
// new fragments.
func (d *Disk) SetLeaving(leaving bool) { d.record.setLeaving(leaving) }

// SetZone says in which zone the disk's node is: what may fail together with it. Placement
// spreads fragments over zones, and readers ask near ones first. "", which a new disk has, is
// a zone like others.
func (d *Disk) SetZone(zone string) {
	if d.Zone() != zone {
		d.zone.Store(&zone)
	}
}

// Zone returns what SetZone said last.
func (d *Disk) Zone() string {
	if z := d.zone.Load(); z != nil {
		return *z
	}
	return ""
}

// Missing returns why the disk cannot be reached, nil if it can. A disk that does not
// answer cannot.
func (d *Disk) Missing() error {
	if err := d.Attached(); err != nil {
		return err
	}
	return d.Silent()
}

// Attached is Missing of a disk from which an answer may yet come.
func (d *Disk) Attached() error {
	_, err := d.attached.target()
	return err
}

// Reason returns why the disk is missing, as Detach was told; nil if it is there.
func (d *Disk) Reason() error { return d.attached.why() }

// Known returns the usage that Refresh saw last. Its Capacity is 1 as long as Refresh has
// seen none.
func (d *Disk) Known() osd.Usage { return d.record.known() }

// refreshMost is how long Refresh waits.
const refreshMost = 2 * time.Second

// refresh is a call of Refresh under way, which others share.
type refresh struct {
	mu   sync.Mutex
	done chan struct{} // nil: none is
	err  error
}

// ErrLate is matched by the error of Refresh for a disk that has not told in time how full
// it is, though it still counts as answering. Known is what it told last.
var ErrLate = errors.New("disk takes its time")

// Refresh asks the disk how full it is, for placement. It waits for refreshMost at most.
// Callers share one request: a disk that takes longer is asked only once.
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
	u, err := d.Usage(ctx)
	if err != nil {
		return err
	}
	d.record.saw(u)
	return nil
}

// TryAgain ends the time for which the disk is left alone after failures. It is for a caller
// that knows that the disk is well.
func (d *Disk) TryAgain() { d.record.tryAgain() }

// Refused reports whether the disk refused a put for want of room, and has since neither
// taken one as large nor got as much more room.
func (d *Disk) Refused() bool { return d.record.noRoom() }

// Condition returns how the disk does.
func (d *Disk) Condition() Condition { return d.health.state() }

// Silent is not nil if the disk does not answer, and says so.
func (d *Disk) Silent() error { return d.health.mute() }

// ReadsHang reports whether the disk does not answer because its reads hang: whoever
// reads from it waits too. If only its writes hang, a read may succeed.
func (d *Disk) ReadsHang() bool { return d.health.readsHang() }

// Answers ends as soon as the disk is seen not to answer.
func (d *Disk) Answers() context.Context { return d.health.answering() }

// Late reports whether a caller that can do without the disk should not wait for it.
func (d *Disk) Late() bool { return d.Condition().State != Well }

// Behind reports whether the disk is not well and has something to write. What it cannot
// take is better left to a repair than kept in memory for it.
func (d *Disk) Behind() bool { return d.health.behind() }

// Stuck reports whether so many requests wait for the disk.
func (d *Disk) Stuck(requests int32) bool { return d.load.Load() >= requests }

// Patience is how long a read of so many bytes may take before others should be asked: as long
// as 95 of 100 of the disk's last reads of that size took, but at most twice as long as is
// usual in the fleet, as a disk that has become slow must not make its readers wait longer;
// between 2 ms and 1 s.
func (d *Disk) Patience(bytes int) time.Duration {
	bound := d.fleet.usual.Load()
	if bound == 0 {
		bound = int64(d.health.costs[reading].bound())
	}
	return patienceOf(d.health.tails[reading].p95(bytes), d.fleet.usually(reading, bytes), scaled(bound, bytes))
}

// Pace is how long a read of so many bytes takes in the mean, 0 if nothing is known.
func (d *Disk) Pace(bytes int) time.Duration {
	return scaled(d.health.costs[reading].mean.Load(), bytes)
}

// WritesWithin is within what time 95 of 100 of a disk's last writes of so many bytes came
// back, but at most twice as long as is usual in the fleet; 0 if nothing is known.
func (f *Fleet) WritesWithin(d *Disk, bytes int) time.Duration {
	return moderate(d.health.tails[writing].p95(bytes), f.usually(writing, bytes))
}

// placement returns what placement needs to know of the disk.
func (d *Disk) placement() policy.Disk {
	silent := d.health.mute() != nil
	there := d.attached.there() // before the record: an attachment renews that first
	u, takes := d.record.takes()
	return policy.Disk{
		OSD: d.Number, Node: d.Node, Zone: d.Zone(), Used: u.Used, Capacity: u.Capacity, Load: uint32(max(d.load.Load(), 0)),
		Failing: !takes || silent || !there,
	}
}

// judge is health.judge with what the other parts know.
func (d *Disk) judge(now int64) (before, after Condition) {
	why, since := d.record.writesFail()
	return d.health.judge(now, d.attached.turns(), why, since)
}

// wrote keeps the score of a write of so many bytes of values.
func (d *Disk) wrote(bytes uint64, err error) {
	d.counts.writes.Add(1)
	o := outcomeOf(err)
	switch o {
	case taken:
		d.suspicion.wroteInTime()
	case noRoom:
		d.counts.refused.Add(1)
	case failed, refuses, away:
		d.counts.writeErrors.Add(1)
	}
	d.record.note(bytes, o, err)
}

// name adds to an error which disk it is of.
func (d *Disk) name(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("disk %d (%s): %w", d.Number, d.Place, err)
}
