package embedded

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/asd"
	"openvstorage/alba/client"
	"openvstorage/alba/cluster"
	"openvstorage/alba/fleet"
	"openvstorage/alba/fragmentcache"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm"
	"openvstorage/alba/osd"
	"openvstorage/arakoon/groups"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"

	"github.com/google/uuid"
)

// Backend is an open backend. Its methods are safe for concurrent use.
type Backend struct {
	*client.Client // the store

	opt    Options
	groups *groups.Groups
	alone  *datadir.Directory // the data directory, if nobody else has it

	fleet *fleet.Fleet
	abm   *abm.Client
	nsm   *nsm.Client
	host  uint64 // the NSM host's number
	cache *fragmentcache.Cache
	work  *maintenance.Maintenance
	ring  keyring

	mu       sync.Mutex // disks come and go one at a time
	asds     map[uint64]*asd.ASD
	recorded map[string]bool  // the directories that the ABM knows
	files    *asd.Descriptors // of all of them
	expect   func(context.Context) ([]string, error)

	seenMu     sync.Mutex
	seen       disksSeen   // what ASDs were told to remember
	fleetKnown atomic.Bool // the fleet has all disks that the ABM knows

	census census // of what objects may lose

	unsettled atomic.Bool // the ABM may have decided what the fleet does not follow yet

	stop context.CancelFunc
	done sync.WaitGroup
}

// openFilesLeast is how many files a process should be allowed to have open: with
// fewer, segments of large disks are closed and opened again for reads.
const openFilesLeast = 16 << 10

// Specs are the groups of a backend. What is made in the data directory after
// them says that they were made.
func Specs() []groups.Spec {
	after := []string{"asd", "cache", "buffer", "map", "arakoon/registry"}
	return []groups.Spec{
		{Name: "abm", Functions: cluster.Functions(abm.Functions()), After: after},
		{Name: hostName, Functions: cluster.Functions(nsm.Functions()), After: after},
	}
}

// Open opens the backend of a data directory, making it at the first start. Any
// of its disks may be missing.
func Open(ctx context.Context, o Options) (*Backend, error) {
	if err := o.ensureDefaults(); err != nil {
		return nil, err
	}
	b := &Backend{opt: o, fleet: fleet.New(nil), groups: o.Groups, census: newCensus(), asds: make(map[uint64]*asd.ASD), recorded: make(map[string]bool), files: asd.NewDescriptors(o.Descriptors), ring: keyring{keys: o.Keys}}
	if err := b.open(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *Backend) open(ctx context.Context) (err error) {
	if b.groups == nil {
		if err := b.openAlone(ctx); err != nil {
			return err
		}
	}
	a, n := b.manager("abm"), b.manager(hostName)
	b.abm, b.nsm = abm.NewClient(a, a), nsm.NewClient(n, n)
	newest, err := b.judgeDisks(ctx)
	if err != nil {
		return err
	}
	seen, err := b.groups.Witnessed(ctx, "abm", disksWitness)
	if err != nil {
		return err
	}
	if b.seen, err = decodeDisksSeen(seen); err != nil {
		return err
	}
	b.groups.Watch(groups.Witness{Group: "abm", Name: disksWitness, Value: b.witness, Follows: true})
	if err := b.groups.Claim(ctx, newest, b.opt.AcceptOlder); err != nil {
		return err
	}
	if err := b.setUp(ctx); err != nil {
		return err
	}
	o := &b.opt
	if n := asd.OpenFilesMax(); n < openFilesLeast {
		o.Logger.Warn("the process may have few files open at once, of which the disks keep half: raise LimitNOFILE, or `ulimit -n`",
			"limit", n, "wanted", openFilesLeast, "segments", b.files.Stats().Max)
	}
	if o.CacheBytes > 0 {
		b.cache, err = fragmentcache.Open(fragmentcache.Options{FS: o.FS, Dir: path.Join(o.Dir, "cache"), Bytes: o.CacheBytes, Logger: o.Logger})
		if err != nil {
			return err
		}
	}
	if err := b.refresh(ctx); err != nil {
		return err
	}
	b.fleetKnown.Store(true)
	b.work = maintenance.New(maintenance.Options{
		ABM: b.abm, Host: b.hostOf, Fleet: b.fleet, Logger: o.Logger,
		Invalidate: func(ns uint64, name string) { b.Client.Invalidate(ns, name) }, MayDelete: b.mayDelete,
		Tick: o.Maintain.Tick, Survey: o.Maintain.Survey, Collect: o.Maintain.Collect, Grace: o.Maintain.Grace,
		RebuildAfter: o.Maintain.RebuildAfter, Scrub: o.Maintain.Scrub, Retry: o.Maintain.Retry,
		ScrubKept: b.scrubKept, ScrubKeep: b.scrubKeep,
	})
	b.Client = client.New(b.clientOptions())
	if err := b.checkKeys(ctx); err != nil {
		return err
	}
	if o.Maintain.ByHand {
		return nil
	}
	var background context.Context
	background, b.stop = context.WithCancel(context.Background())
	b.work.Start()
	b.done.Go(func() { b.lookOut(background) })
	b.done.Go(func() { b.beats(background) })
	return nil
}

// Maintenance is the work on the backend, which runs in the background unless
// Options say otherwise.
func (b *Backend) Maintenance() *maintenance.Maintenance { return b.work }

// openAlone takes the data directory and opens its groups.
func (b *Backend) openAlone(ctx context.Context) (err error) {
	o := &b.opt
	if b.alone, err = datadir.Open(o.FS, o.Dir); err != nil {
		return err
	}
	o.ID = b.alone.ID
	b.groups, err = groups.Open(ctx, groups.Options{FS: o.FS, Dir: o.Dir, ID: o.ID, Ledger: b.alone, Logger: o.Logger}, Specs()...)
	return err
}

// manager is the group that a manager runs on.
func (b *Backend) manager(name string) *cluster.Client {
	var n cluster.Node = b.groups.Node(name)
	if b.opt.Node != nil {
		n = b.opt.Node(name, n)
	}
	return cluster.NewClient(n)
}

func (b *Backend) clientOptions() client.Options {
	o := client.Options{
		ABM: b.abm, Host: b.hostOf, Fleet: b.fleet, Refresh: b.refresh,
		Bad: b.work.Bad, Unread: b.work.Unread, Deleted: b.work.Wake, Uploads: b.opt.Uploads, Logger: b.opt.Logger,
	}
	if b.cache != nil {
		o.Cache = b.cache
	}
	if len(b.ring.keys) > 0 {
		o.Key, o.Prove = b.ring.get, b.proveKey
	}
	return o
}

func (b *Backend) hostOf(number uint64) (*nsm.Client, error) {
	if number != b.host {
		return nil, fmt.Errorf("NSM host %d is not in this process, which has %d", number, b.host)
	}
	return b.nsm, nil
}

// Close ends everything, what uses others first. Nothing may use the backend
// any more.
func (b *Backend) Close() error {
	var errs []error
	if b.stop != nil {
		b.stop()
		b.done.Wait()
	}
	if b.work != nil {
		b.work.Close()
	}
	if b.Client != nil {
		errs = append(errs, b.Client.Close())
	}
	if b.cache != nil {
		errs = append(errs, b.cache.Close())
	}
	if b.groups != nil && b.abm != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		if err := b.Beat(ctx); err != nil {
			b.opt.Logger.Warn("the last generation was not claimed everywhere", "err", err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for number, a := range b.asds {
		if d := b.fleet.Disk(number); d != nil {
			d.Detach(errors.New("the backend is closed"))
		}
		errs = append(errs, a.Close())
	}
	if b.alone != nil {
		if b.groups != nil {
			errs = append(errs, b.groups.Close())
		}
		errs = append(errs, b.alone.Close())
	}
	return errors.Join(errs...)
}

// closePatience is how long Close waits for a last claim: a disk may be full.
const closePatience = 5 * time.Second

// refresh makes the fleet what the ABM says, and opens the disks that are there.
func (b *Backend) refresh(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	all, err := maintenance.AllOSDs(ctx, b.abm)
	if err != nil {
		return err
	}
	known := make(map[uint64]bool)
	var missing []*fleet.Disk
	clear(b.recorded)
	for _, o := range all {
		if o.Number == 0 {
			continue
		}
		b.recorded[b.path(string(o.Endpoint))] = true
		known[o.Number] = true
		if o.State == abm.OSDLost {
			b.drop(o.Number, errors.New("it is lost, and was given up"))
			continue
		}
		d := b.fleet.Add(o.Number, uuid.UUID(o.LongID), o.Node, string(o.Endpoint))
		d.SetLeaving(o.State == abm.OSDDraining)
		if d.Missing() != nil {
			missing = append(missing, d)
		}
	}
	for _, d := range b.fleet.All() {
		if !known[d.Number] {
			b.drop(d.Number, errors.New("it was forgotten"))
		}
	}
	b.attach(ctx, missing...)
	return nil
}

// drop takes a disk out of the fleet. b.mu is held.
func (b *Backend) drop(number uint64, reason error) {
	if d := b.fleet.Disk(number); d != nil {
		d.Detach(reason)
		b.fleet.Remove(number)
	}
	if a := b.asds[number]; a != nil {
		delete(b.asds, number)
		if err := a.Close(); err != nil {
			b.opt.Logger.Warn("close of a disk that was given up", "disk", number, "err", err)
		}
	}
}

// attach opens disks of the fleet that are there, side by side: one that was not
// closed cleanly reads much of itself. b.mu is held.
func (b *Backend) attach(ctx context.Context, disks ...*fleet.Disk) {
	disks = b.find(disks)
	asds, errs := make([]*asd.ASD, len(disks)), make([]error, len(disks))
	var all sync.WaitGroup
	for i, d := range disks {
		all.Go(func() { asds[i], errs[i] = b.openASD(ctx, b.path(d.Place), d.UUID) })
	}
	all.Wait()
	for i, d := range disks {
		if err := errs[i]; err != nil {
			b.cannotOpen(d, err)
			continue
		}
		b.asds[d.Number] = asds[i]
		d.Attach(asds[i])
		if err := d.Refresh(ctx); err != nil {
			b.opt.Logger.Warn("a disk does not tell how full it is", "disk", d.Number, "err", err)
		}
		b.opt.Logger.Info("disk is there", "disk", d.Number, "dir", b.path(d.Place))
		if b.work != nil {
			b.work.Wake()
		}
	}
}

// cannotOpen notes why a disk cannot be opened: it is missing, or it is there and
// the machine lacks what it takes to open it.
func (b *Backend) cannotOpen(d *fleet.Disk, err error) {
	if old := d.Reason(); old != nil && old.Error() == err.Error() {
		return
	}
	if asd.Passes(err) {
		b.opt.Logger.Warn("disk cannot be opened", "disk", d.Number, "dir", b.path(d.Place), "err", err)
		d.Unopened(err)
		return
	}
	b.opt.Logger.Warn("disk is missing", "disk", d.Number, "dir", b.path(d.Place), "err", err)
	d.Detach(err)
}

// openASD opens the ASD in a directory if it is the one that is wanted.
func (b *Backend) openASD(ctx context.Context, dir string, id uuid.UUID) (*asd.ASD, error) {
	there, err := asd.ReadIdentity(b.opt.FS, dir)
	if err != nil {
		return nil, err
	}
	switch {
	case there.ID != id:
		return nil, fmt.Errorf("%s holds another ASD, %s: put back the one that was here, or take that directory for `ovs alba osd replace`", dir, there.ID)
	case there.Owner != uuid.Nil && there.Owner != b.opt.ID:
		return nil, fmt.Errorf("the ASD in %s belongs to backend %s", dir, there.Owner)
	}
	if err := b.mayAttach(dir, id); err != nil {
		return nil, err
	}
	b.tighten(dir)
	a, err := asd.Open(asd.Options{
		FS: b.opt.FS, Dir: dir, SegmentBytes: b.opt.SegmentBytes, Descriptors: b.files, Logger: b.opt.Logger.With("asd", dir),
		Leave: b.leave(dir),
	})
	if err != nil {
		return nil, err
	}
	// It remembers this start before it takes anything from it. One that is full
	// can still be read and deleted from, one that takes no writes be read; either
	// is told with the next beat that it takes.
	m := b.groups.Mark()
	if err := a.Raise(ctx, m); errors.Is(err, syscall.ENOSPC) || errors.Is(err, osd.ErrReadOnly) {
		b.opt.Logger.Warn("a disk has not remembered this start yet", "dir", dir, "err", err)
	} else if err != nil {
		return nil, errors.Join(err, a.Close())
	} else {
		b.told(a, m)
	}
	return a, nil
}

// tighten makes an ASD its owner's alone: the mount point of a disk may be open to
// all. One whose mode cannot be changed (its disk is read-only, say) is told, and
// used: what is on it was there for others to read before.
func (b *Backend) tighten(dir string) {
	t := disk.TightenOnce(b.opt.FS, dir)
	if t.Names > 0 {
		b.opt.Logger.Warn("an ASD was open to other users of this machine; it is its owner's alone now", "dir", dir, "names", t.Names, "mode", fmt.Sprintf("%04o", t.Was))
	}
	if t.Failed > 0 {
		b.opt.Logger.Warn("other users of this machine may read what is on an ASD: chmod -R go= it", "dir", dir, "err", t.Err)
	}
}

// lookOut looks for missing disks until ctx ends, and gives memory back that
// idle uploads hold.
func (b *Backend) lookOut(ctx context.Context) {
	tick := time.NewTicker(b.opt.Look)
	defer tick.Stop()
	var idle time.Time
	var puts uint64
	reopened := make(map[uint64]time.Time)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if b.unsettled.Load() {
			if err := b.settle(ctx); err != nil && ctx.Err() == nil {
				b.opt.Logger.Warn("what the ABM has decided is not known yet", "err", err)
			}
		}
		b.lookAll(ctx, reopened)
		if n := b.Client.Stats().Plain; n != puts || idle.IsZero() {
			puts, idle = n, time.Now()
		} else if time.Since(idle) > 10*time.Second {
			b.Client.Trim()
			idle = time.Now()
		}
	}
}

// Look opens disks that were missing and are back, and those that take no
// writes, as is done all the time in the background. What failed lately is tried
// again at once.
func (b *Backend) Look(ctx context.Context) {
	for _, d := range b.fleet.All() {
		d.TryAgain()
	}
	b.lookAll(ctx, make(map[uint64]time.Time))
}

func (b *Backend) lookAll(ctx context.Context, reopened map[uint64]time.Time) {
	for _, d := range b.fleet.All() {
		b.look(ctx, d, reopened)
	}
}

// reopenEvery is how often a disk is opened anew that takes no writes, or that is
// there and could not be opened: an open may read much.
const reopenEvery = 10 * time.Second

// look opens a disk that is missing, if it is back, and one that takes no
// writes or answers nothing: what made it so may be over, and if its directory
// was taken away, or cannot be read, it is missing.
func (b *Backend) look(ctx context.Context, d *fleet.Disk, reopened map[uint64]time.Time) {
	reason := d.Refresh(ctx) // before the lock: a dying disk takes its time
	if reason == nil {
		reason = d.Known().ReadOnly
	}
	if errors.Is(reason, syscall.EROFS) {
		// Until it is mounted for writing it would be no better, and could not be read
		// meanwhile.
		if on, err := b.opt.FS.Statfs(b.path(d.Place)); err == nil && on.ReadOnly {
			return
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fleet.Disk(d.Number) != d {
		return
	}
	if d.Missing() != nil {
		if !errors.Is(d.Reason(), asd.ErrNoASD) {
			if time.Since(reopened[d.Number]) < reopenEvery {
				return
			}
			reopened[d.Number] = time.Now()
		}
		b.attach(ctx, d)
		return
	}
	if reason == nil || errors.Is(reason, fleet.ErrMissing) || ctx.Err() != nil || time.Since(reopened[d.Number]) < reopenEvery {
		return
	}
	reopened[d.Number] = time.Now()
	b.opt.Logger.Warn("a disk takes no writes, or does not answer; it is opened anew", "disk", d.Number, "err", reason)
	d.Detach(reason)
	a := b.asds[d.Number]
	delete(b.asds, d.Number)
	if err := a.Close(); err != nil {
		b.opt.Logger.Warn("close of a disk that took no writes", "disk", d.Number, "err", err)
	}
	b.attach(ctx, d)
}
