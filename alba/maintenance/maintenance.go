package maintenance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/client"
	"openvstorage/alba/fleet"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"

	"github.com/google/uuid"

	"openvstorage/internal/bell"
)

// Options configure Maintenance. ABM, Host and Fleet must be given.
type Options struct {
	ABM        *abm.Client
	Host       func(number uint64) (*nsm.Client, error) // an NSM host, by its number
	Fleet      *fleet.Fleet
	Invalidate func(namespace uint64, name string) // hears of objects whose fragments moved
	MayDelete  func() error                        // why nothing may be deleted on disks now, or nil; default: nil
	Logger     *slog.Logger

	Tick         time.Duration // between looks at what there is to do; default 1 s
	Survey       time.Duration // between looks at all namespaces; default 30 s
	Collect      time.Duration // between collections of orphans; default 1 h
	Grace        time.Duration // how long an upload may take before its epoch is closed; default 1 min
	RebuildAfter time.Duration // how long a disk is missing before its fragments are made again elsewhere; default 15 min
	Scrub        time.Duration // in which all of a disk is read back once; default ScrubTime, negative: never
	QueueLength  int           // objects, and fragments reported bad, that wait for a repair; default 10,000
	Retry        time.Duration // before a repair that failed is tried again, twice as long with each failure; default 1 s, negative: at once
	RetryMax     time.Duration // at most; default 5 min

	// ScrubKept returns what ScrubKeep was given last, nil if nothing; ScrubKeep keeps
	// it over a restart. Default: nothing is kept.
	ScrubKept func() ([]byte, error)
	ScrubKeep func([]byte) error

	Now func() time.Time // the clock; nil: the machine's
}

func (o *Options) ensureDefaults() {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&o.Tick, time.Second}, {&o.Survey, 30 * time.Second}, {&o.Collect, time.Hour}, {&o.Grace, time.Minute},
		{&o.RebuildAfter, 15 * time.Minute}, {&o.Scrub, ScrubTime},
		{&o.Retry, time.Second}, {&o.RetryMax, 5 * time.Minute},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if o.QueueLength == 0 {
		o.QueueLength = 10_000
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Invalidate == nil {
		o.Invalidate = func(uint64, string) {}
	}
	if o.ScrubKept == nil {
		o.ScrubKept, o.ScrubKeep = func() ([]byte, error) { return nil, nil }, func([]byte) error { return nil }
	}
	if o.MayDelete == nil {
		o.MayDelete = func() error { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Stats counts what was done since the start, and what is to be done.
type Stats struct {
	Repaired      uint64 // fragments that were made again
	RepairedBytes uint64
	Deleted       uint64 // fragments that no object named any more
	Orphans       uint64 // of them, those that no object ever named
	Scrubbed      uint64 // fragments read back
	ScrubbedBytes uint64
	Bad           uint64 // fragments found missing or bad, by reads and scrub
	Dropped       uint64 // of them, those of which too many wait already: the next read or scrub finds them again
	Failures      uint64 // steps that failed, and are tried again

	Waiting    uint64 // objects that wait for a repair now: reported, or to be tried again
	NoPlace    uint64 // objects that no disk could take a fragment of, at the last survey
	Unreadable uint64 // objects with too few fragments on the disks that were there, at the last survey
}

type stats struct {
	repaired, repairedBytes, deleted, orphans, scrubbed, scrubbedBytes, bad, dropped, failures atomic.Uint64

	noPlace, unreadable atomic.Uint64
}

// Maintenance is the work on one backend. Its methods are safe for concurrent
// use; Start runs all of it in the background.
type Maintenance struct {
	opt   Options
	stats stats

	pending    pending
	unread     unread
	scrubs     scrubs
	wake       bell.Bell
	woken      atomic.Bool // what a wake asks for besides deletion is still to be done
	collectNow bell.Bell
	absentNow  bell.Bell

	mu        sync.Mutex           // one pass at a time
	missing   map[uint64]time.Time // since when a disk cannot be reached
	leave     map[uint64]bool      // disks whose fragments must be elsewhere
	lost      []abm.OSD            // those of them that are to be forgotten when they hold nothing
	hopeless  map[hope]hopeless    // what the disks did not allow at the last look
	absent    map[uint64]uint64    // what disks that are there lack of what they had
	refreshed time.Time            // when the disks were asked last
	surveyed  string               // the disks at the last survey
	sighted   []byte               // memory of sight
	narrow    atomic.Uint64
	alarm     atomic.Pointer[error] // why the last collection deleted nothing
	allowed   atomic.Bool           // the next one may delete however many there are

	closedMu sync.Mutex        // not mu: a rebuild holds that for hours
	closed   map[uint64]closed // namespaces, as the last collection found them

	stop context.CancelFunc
	done sync.WaitGroup
}

// New returns maintenance that does nothing by itself.
func New(opt Options) *Maintenance {
	opt.ensureDefaults()
	return &Maintenance{
		opt: opt, closed: make(map[uint64]closed),
		pending: pending{first: max(opt.Retry, 0), most: opt.RetryMax, limit: opt.QueueLength, objects: make(map[objectKey]*waiting)},
		unread:  unread{objects: make(map[objectKey]*unreadObject)},
		missing: make(map[uint64]time.Time), absent: make(map[uint64]uint64), leave: make(map[uint64]bool), hopeless: make(map[hope]hopeless),
		scrubs: scrubs{disks: make(map[uuid.UUID]*scrubDisk), stepped: make(chan struct{}, 1)},
	}
}

// Start runs it in the background until Close.
func (m *Maintenance) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	m.done.Go(func() { m.run(ctx) })
	m.done.Go(func() { m.collect(ctx) })
	if m.opt.Scrub > 0 {
		m.scrubs.load(m.opt)
		for _, d := range m.opt.Fleet.All() {
			m.scrubs.disk(d.UUID, m.opt.Now())
		}
		m.done.Go(func() { m.scrubAll(ctx) })
	}
}

// Close ends what Start began. A disk that does not answer the scrub is not waited
// for any longer than scrubPatience.
func (m *Maintenance) Close() {
	if m.stop == nil {
		return
	}
	m.stop()
	m.done.Wait()
	read := make(chan struct{})
	go func() {
		defer close(read)
		m.scrubs.steps.Wait()
	}()
	select {
	case <-read:
	case <-time.After(scrubPatience):
		m.opt.Logger.Warn("a disk does not answer the scrub; it is not waited for")
	}
	m.keepScrub()
}

// Stats returns the counters.
func (m *Maintenance) Stats() Stats {
	s := &m.stats
	return Stats{
		Repaired: s.repaired.Load(), RepairedBytes: s.repairedBytes.Load(), Deleted: s.deleted.Load(), Orphans: s.orphans.Load(),
		Scrubbed: s.scrubbed.Load(), ScrubbedBytes: s.scrubbedBytes.Load(), Bad: s.bad.Load(), Dropped: s.dropped.Load(), Failures: s.failures.Load(),
		Waiting: uint64(m.pending.count()), NoPlace: s.noPlace.Load(), Unreadable: s.unreadable.Load(),
	}
}

// Bad takes a report of a bad fragment. It does not block; a report that does not
// fit is counted as dropped, and made again by the next read or scrub.
func (m *Maintenance) Bad(b client.Bad) { m.report(b) }

// report is Bad, and reports whether there was room.
func (m *Maintenance) report(b client.Bad) bool {
	m.stats.bad.Add(1)
	ok := m.pending.report(b)
	if !ok {
		m.stats.dropped.Add(1)
	}
	m.Wake()
	return ok
}

// Wake has it delete at once what is to be deleted, and look at the next tick
// for what else there is to do. It does not block.
func (m *Maintenance) Wake() { m.wake.Ring() }

func (m *Maintenance) run(ctx context.Context) {
	tick := time.NewTicker(m.opt.Tick)
	defer tick.Stop()
	surveyed := time.Time{}
	due := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake.Rung():
			// Room that waits to be given back cannot wait for the next tick: a
			// vDisk that is written over makes it as fast as disks write. The rest
			// can.
			due = true
			m.try(ctx, "delete fragments", m.deleteAll)
			continue
		case <-tick.C:
		}
		due = m.woken.Swap(false) || due
		m.refresh(ctx)
		m.try(ctx, "repair reported fragments", m.Repair)
		if due || m.changed() || time.Since(surveyed) >= m.opt.Survey {
			due, surveyed = false, time.Now()
			m.try(ctx, "survey", m.Survey)
		}
	}
}

// collect runs the collection of orphans and the search for what is not where it
// should be, the first soon after the start. What a killed process left is thus
// seen at once, and deleted by the second.
func (m *Maintenance) collect(ctx context.Context) {
	wait := min(m.opt.Grace, m.opt.Collect)
	for {
		patient := true
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		case <-m.collectNow.Rung():
			patient = false
		case <-m.absentNow.Rung():
			m.try(ctx, "look for absent fragments", m.FindAbsent)
			continue
		}
		m.try(ctx, "collect orphans", func(ctx context.Context) error { return m.collectOnce(ctx, m.opt.Grace, patient) })
		m.try(ctx, "look for absent fragments", m.FindAbsent)
		wait = m.opt.Collect
	}
}

// try runs a step; what fails is tried again.
func (m *Maintenance) try(ctx context.Context, what string, step func(context.Context) error) {
	if err := step(ctx); err != nil && ctx.Err() == nil {
		m.stats.failures.Add(1)
		m.opt.Logger.Warn("maintenance: "+what+" failed, to be tried again", "err", err)
	}
}

// Survey does what there is to do now, all namespaces through: messages,
// cleanup, deletion, repair of what is below full width or on disks that are
// lost or leaving.
func (m *Maintenance) Survey(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	hosts, err := m.opt.ABM.Hosts(ctx, userfn.Consistent)
	if err != nil {
		return err
	}
	if err := m.findLeaving(ctx); err != nil {
		return err
	}
	m.surveyed = m.sight()
	var errs []error
	var sum survey
	for _, h := range hosts {
		host, err := m.opt.Host(h.Number)
		if err == nil {
			err = m.surveyHost(ctx, h.Number, host, &sum)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("NSM host %d: %w", h.Number, err))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	m.narrow.Store(sum.narrow)
	m.stats.noPlace.Store(sum.noPlace)
	m.stats.unreadable.Store(sum.unreadable)
	return errors.Join(append(errs, m.retire(ctx, hosts))...)
}

// Alarm is why the last collection found too many orphans and deleted none, or
// nil.
func (m *Maintenance) Alarm() error {
	if err := m.alarm.Load(); err != nil {
		return *err
	}
	return nil
}

// Allow has orphans collected now, however many there are: a person has said so.
func (m *Maintenance) Allow() {
	m.allowed.Store(true)
	m.collectNow.Ring()
}

// Narrow is the number of objects below full width at the last survey.
func (m *Maintenance) Narrow() uint64 { return m.narrow.Load() }

// survey is what a survey found.
type survey struct {
	narrow uint64 // objects that stay below full width
	tally         // objects that stay so, or where they must not be
}

// surveyHost does all that there is to do on a host. What fails leaves the rest to
// be done.
func (m *Maintenance) surveyHost(ctx context.Context, number uint64, host *nsm.Client, sum *survey) error {
	errs := []error{m.opt.ABM.Carry(ctx, number, host)}
	spaces, err := m.spaces(ctx, host)
	errs = append(errs, err)
	for _, ns := range spaces {
		if ns.State == nsm.NamespaceRemoving {
			errs = append(errs, m.cleanup(ctx, host, ns.Number))
			continue
		}
		errs = append(errs, m.repairSpace(ctx, host, ns.Number, sum))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(append(errs, m.deleteObsolete(ctx, host))...)
}

// spaces returns all namespaces of a host.
func (m *Maintenance) spaces(ctx context.Context, host *nsm.Client) ([]nsm.NamespaceInfo, error) {
	var all []nsm.NamespaceInfo
	for after := uint64(0); ; {
		page, err := host.Namespaces(ctx, after, nsm.MaxKeys, userfn.Consistent)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < nsm.MaxKeys {
			return all, nil
		}
		after = page[len(page)-1].Number
	}
}

// cleanup takes all objects out of a namespace that was deleted.
func (m *Maintenance) cleanup(ctx context.Context, host *nsm.Client, ns uint64) error {
	for {
		step, err := host.Cleanup(ctx, ns, nsm.MaxNames)
		if err != nil || step.Done {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
