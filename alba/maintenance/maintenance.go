package maintenance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/alba/client"
	"openvstorage/alba/maintenance/pace"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"

	"github.com/google/uuid"

	"openvstorage/internal/bell"
)

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
	Moved         uint64 // fragments that were moved, to where they are better
	MovedBytes    uint64
	Failures      uint64 // steps that failed, and are tried again

	Waiting    uint64 // objects that wait for a repair now: reported, or to be tried again
	NoPlace    uint64 // objects that no disk could take a fragment of, at the last survey
	Unreadable uint64 // objects with too few fragments on the disks that were there, at the last survey
}

// Maintenance is the work on one backend. It ties the parts that do the work, each with
// its own state, and runs them. Its methods are safe for concurrent use; Start runs all
// of it in the background.
type Maintenance struct {
	managers
	opt Options

	disks     diskWatch
	pace      *pace.Pace
	pending   *pending
	unread    unread
	repairs   repairer
	balance   rebalancer
	deletion  deletion
	collector collector
	absent    absentSearch
	scrub     scrubber
	tried     attempts

	wake     bell.Bell
	woken    atomic.Bool            // what a wake asks for besides deletion is still to be done
	surveyed atomic.Pointer[survey] // what the last survey found

	stop context.CancelFunc
	done sync.WaitGroup
}

// New returns maintenance that does nothing by itself.
func New(opt Options) *Maintenance {
	opt.ensureDefaults()
	limit := pace.New(pace.Options{Clients: opt.Clients, Most: opt.Rate})
	m := &Maintenance{opt: opt, pace: limit, managers: managers{opt.ABM, opt.Host}}
	m.surveyed.Store(new(survey))
	m.tried.log = opt.Logger
	m.pending = newPending(max(opt.Retry, 0), opt.RetryMax, opt.QueueLength)
	m.disks = diskWatch{
		managers: m.managers, fleet: opt.Fleet, log: opt.Logger, now: opt.Now, rebuildAfter: opt.RebuildAfter, lacking: &m.absent.now,
		missing: make(map[uint64]time.Time), lacks: make(map[uint64]uint64), leave: make(map[uint64]bool),
	}
	m.unread = unread{
		managers: m.managers, disks: &m.disks, fleet: opt.Fleet, now: opt.Now, retry: max(opt.Retry, 0),
		objects: make(map[objectKey]*unreadObject),
	}
	m.repairs = repairer{
		managers: m.managers, opt: &m.opt, disks: &m.disks, pending: m.pending, tried: &m.tried, pace: limit, report: m.report, meanwhile: m.meanwhile,
		fruitless: make(map[listing]fruitless), team: newTogether(&m.opt),
	}
	m.balance = rebalancer{repairs: &m.repairs, gap: opt.Balance}
	m.deletion = deletion{managers: m.managers, fleet: opt.Fleet, mayDelete: opt.MayDelete}
	m.collector = collector{managers: m.managers, opt: &m.opt, closed: make(map[uint64]closed)}
	m.absent = absentSearch{managers: m.managers, fleet: opt.Fleet, log: opt.Logger, report: m.report, repair: m.Repair}
	m.scrub = scrubber{managers: m.managers, opt: &m.opt, tried: &m.tried, pace: limit, report: m.report}
	m.scrub.state.disks = make(map[uuid.UUID]*scrubDisk)
	return m
}

// Start runs all of the work in the background until Close.
func (m *Maintenance) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	m.done.Go(func() { m.run(ctx) })
	m.done.Go(func() { m.collect(ctx) })
	if m.opt.Scrub > 0 {
		m.scrub.begin()
		m.done.Go(func() { m.scrub.run(ctx) })
	}
}

// Close ends what Start began. It waits for a disk that does not answer the scrub for
// scrubPatience at most.
func (m *Maintenance) Close() {
	if m.stop == nil {
		return
	}
	m.stop()
	m.done.Wait()
	m.scrub.end()
}

// Stats returns the counters.
func (m *Maintenance) Stats() Stats {
	found := m.surveyed.Load()
	orphans := m.collector.deleted.Load()
	return Stats{
		Repaired: m.repairs.repaired.Load(), RepairedBytes: m.repairs.bytes.Load(),
		Deleted: m.deletion.deleted.Load() + orphans, Orphans: orphans, Moved: m.balance.moved.Load(), MovedBytes: m.balance.bytes.Load(),
		Scrubbed: m.scrub.fragments.Load(), ScrubbedBytes: m.scrub.bytes.Load(),
		Bad: m.pending.reported.Load(), Dropped: m.pending.dropped.Load(), Failures: m.tried.failed.Load(),
		Waiting: uint64(m.pending.count()), NoPlace: found.noPlace, Unreadable: found.unreadable,
	}
}

// Bad takes a report of a bad fragment. It does not block. A report that does not fit is
// counted as dropped, and the next read or scrub makes it again.
func (m *Maintenance) Bad(b client.Bad) { m.report(b) }

// report is Bad, and reports whether there was room.
func (m *Maintenance) report(b client.Bad) bool {
	ok := m.pending.report(b)
	m.Wake()
	return ok
}

// Unread takes a report of a range that could be neither read nor made. It does not block.
func (m *Maintenance) Unread(u client.Unread) { m.unread.report(u) }

// KnownBad reports whether a fragment was reported bad on a disk and not repaired since.
func (m *Maintenance) KnownBad(ns uint64, name string, id manifest.ObjectID, chunk, fragment int, disk uint64) bool {
	return m.pending.knownBad(ns, name, id, chunk, fragment, disk)
}

// Suspects returns up to limit objects with fragments that are known to be bad or absent,
// in no order, and how many there are.
func (m *Maintenance) Suspects(limit int) (list []Suspect, all uint64) {
	return m.pending.suspects(limit)
}

// Failed is how many objects had too few good fragments to be read or repaired at the last
// try, and one of them with its error.
func (m *Maintenance) Failed() (n uint64, example string) {
	failed := m.pending.short()
	m.unread.failed(failed)
	var first objectKey
	for k := range failed {
		if example == "" || k.name < first.name {
			first, example = k, fmt.Sprintf("object %s of namespace %d: %v", k.name, k.ns, failed[k])
		}
	}
	return uint64(len(failed)), example
}

// Wake has fragments deleted at once that are to be deleted, and everything else looked
// at with the next tick. It does not block.
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
			// Deletion cannot wait for the next tick: overwriting a vDisk leaves
			// fragments to delete as fast as disks write. The rest can wait.
			due = true
			m.tried.try(ctx, "delete fragments", m.deletion.all)
			continue
		case <-tick.C:
		}
		due = m.woken.Swap(false) || due
		m.disks.refresh(ctx)
		m.tried.try(ctx, "repair reported fragments", m.Repair)
		m.tried.try(ctx, "help others with the repair", m.Help)
		if due || m.disks.changed() || time.Since(surveyed) >= m.opt.Survey {
			due, surveyed = false, time.Now()
			m.tried.try(ctx, "survey", m.Survey)
		}
	}
}

// collect runs the collection of orphans and the search for absent fragments, each soon
// after the start and then again and again. So the first collection sees what a killed
// process left, and the second deletes it.
func (m *Maintenance) collect(ctx context.Context) {
	wait := min(m.opt.Grace, m.opt.Collect)
	for {
		patient := true
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		case <-m.collector.now.Rung():
			patient = false
		case <-m.absent.now.Rung():
			m.tried.try(ctx, "look for absent fragments", m.absent.run)
			continue
		}
		m.tried.try(ctx, "collect orphans", func(ctx context.Context) error { return m.collector.collect(ctx, m.opt.Grace, patient) })
		m.tried.try(ctx, "look for absent fragments", m.absent.run)
		wait = m.opt.Collect
	}
}

// meanwhile does what cannot wait for the end of a pass over objects, which may take
// hours: every tick the disks are asked how full they are, and what is to be deleted is
// deleted. It reports whether a tick has passed.
func (m *Maintenance) meanwhile(ctx context.Context) bool {
	if m.disks.age() < m.opt.Tick || ctx.Err() != nil {
		return false
	}
	m.disks.refresh(ctx)
	select {
	case <-m.wake.Rung():
		m.woken.Store(true) // run has still to do all the rest that this ring asks for
		m.tried.try(ctx, "delete fragments", m.deletion.all)
	default:
	}
	return true
}

// Repair repairs what reads and scrub have reported, and tries failed repairs again
// whose time has come. It also makes failed reads again. An object that fails does not
// keep the others from being repaired.
func (m *Maintenance) Repair(ctx context.Context) error {
	m.repairs.begin()
	defer m.repairs.end()
	err := m.repairs.reported(ctx)
	m.unread.reread(ctx)
	return err
}

// Survey does all that there is to do now: it carries messages to the NSM hosts, cleans up,
// repairs what is below full width or on disks that are lost or to be left, and deletes. Of
// the objects of all namespaces it repairs those first that outlive the fewest deaths.
func (m *Maintenance) Survey(ctx context.Context) error {
	m.repairs.begin()
	defer m.repairs.end()
	hosts, err := m.hosts(ctx)
	if err != nil {
		return err
	}
	if err := m.disks.findLeaving(ctx); err != nil {
		return err
	}
	m.disks.beginSurvey()
	var errs []error
	found := new(survey)
	for _, h := range hosts {
		host, err := m.host(h.Number)
		if err == nil {
			err = m.tidy(ctx, h.Number, host)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("NSM host %d: %w", h.Number, err))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	err = m.repairs.all(ctx, hosts, found)
	errs = append(errs, err)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !errors.Is(err, errRiskier) { // else it has not seen all
		m.surveyed.Store(found)
	}
	if err == nil && found.all() == 0 && found.narrow == 0 {
		more, err := m.balance.run(ctx, hosts)
		errs = append(errs, err)
		if more {
			m.woken.Store(true)
		}
	}
	errs = append(errs, m.deletion.all(ctx))
	return errors.Join(append(errs, m.disks.retire(ctx, hosts))...)
}

// Help does pieces of the repair that another agent has planned, until none is free. An agent
// that is alone has nothing to do.
func (m *Maintenance) Help(ctx context.Context) error {
	if m.repairs.team == nil {
		return nil
	}
	m.repairs.begin()
	defer m.repairs.end()
	var sum survey
	return m.repairs.help(ctx, &sum)
}

// FindAbsent looks for fragments that an object names and that their disk, which is
// there, does not have. What is found is repaired. A disk or a namespace that fails does
// not keep the others from being looked at.
func (m *Maintenance) FindAbsent(ctx context.Context) error { return m.absent.run(ctx) }

// Collect deletes the fragments that no object names and none ever will: those of
// uploads and repairs that ended before their commit. It opens a gc epoch in every
// namespace, gives uploads under older epochs the time of grace to end, and closes those
// epochs. From then on, what was written under them can no more be committed (the first
// fence). Then Collect goes through the disks, and asks the NSM about each object that
// has fragments of a closed epoch.
//
// That an NSM does not name a fragment is the absence of a record, and by itself no
// reason to delete anything (rule P8). So both managers must agree on what became of the
// namespace (collection.judge). Orphans are counted before any is deleted: if they are
// more than a share of all that is stored, Collect deletes nothing and fails with
// ErrTooMany, and Alarm says so until Allow. Nothing is deleted while Options.MayDelete
// has a reason.
func (m *Maintenance) Collect(ctx context.Context, grace time.Duration) error {
	return m.collector.collect(ctx, grace, false)
}

// Alarm is why the last collection found too many orphans and deleted none, or nil.
func (m *Maintenance) Alarm() error { return m.collector.why() }

// Allow has orphans collected now, however many there are: a person has said so.
func (m *Maintenance) Allow() { m.collector.allow() }

// ScrubOf is how far the scrub of a disk is; ok is false before it has begun.
func (m *Maintenance) ScrubOf(number uint64) (p ScrubProgress, ok bool) {
	d := m.opt.Fleet.Disk(number)
	if d == nil {
		return p, false
	}
	return m.scrub.state.progress(d.UUID)
}

// ScrubTime is in what time a disk is read back whole; negative: never.
func (m *Maintenance) ScrubTime() time.Duration { return m.opt.Scrub }

// ScrubSome reads up to n fragments of each disk back at once, and has repaired what is
// bad. A disk that fails does not keep the others from being read.
func (m *Maintenance) ScrubSome(ctx context.Context, n int) error { return m.scrub.some(ctx, n) }

// Narrow is the number of objects below full width at the last survey.
func (m *Maintenance) Narrow() uint64 { return m.surveyed.Load().narrow }

// survey is what a survey found.
type survey struct {
	narrow uint64 // objects that stay below full width
	tally         // objects that stay so, or on disks that are to be left
}

// tidy carries what a host must learn, and takes the objects out of its namespaces that
// were deleted. What fails does not keep the rest from being done.
func (m *Maintenance) tidy(ctx context.Context, number uint64, host *nsm.Client) error {
	errs := []error{m.abm.Carry(ctx, number, host)}
	errs = append(errs, eachSpace(ctx, host, func(ns nsm.NamespaceInfo) error {
		if ns.State == nsm.NamespaceRemoving {
			errs = append(errs, cleanup(ctx, host, ns.Number))
		}
		return ctx.Err()
	}))
	return errors.Join(errs...)
}

// cleanup takes all objects out of a namespace that was deleted.
func cleanup(ctx context.Context, host *nsm.Client, ns uint64) error {
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
