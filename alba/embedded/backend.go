package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/asd"
	"openvstorage/alba/client"
	"openvstorage/alba/cluster"
	"openvstorage/alba/fleet"
	"openvstorage/alba/fragmentcache"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm"
	"openvstorage/arakoon"
	"openvstorage/arakoon/state"

	"github.com/google/uuid"
)

// Backend is an open backend. Its methods are safe for concurrent use.
type Backend struct {
	*client.Client // the store

	opt   Options
	fleet *fleet.Fleet
	nodes map[string]*arakoon.Node
	abm   *abm.Client
	nsm   *nsm.Client
	host  uint64 // the NSM host's number
	cache *fragmentcache.Cache
	work  *maintenance.Maintenance

	mu   sync.Mutex // disks come and go one at a time
	asds map[uint64]*asd.ASD

	unsettled atomic.Bool // the ABM may have decided what the fleet does not follow yet

	stop context.CancelFunc
	done sync.WaitGroup
}

// Sizes of a cluster of one that runs beside others in a process: little memory,
// and quick to make.
const (
	logSegment  = 4 << 20
	logCache    = 1 << 20
	compactLog  = 16 << 20
	stateCache  = 6 << 20
	stateMemory = 6 << 20
)

// OpenGroup opens an Arakoon cluster of one member in DIR/arakoon/NAME.
func OpenGroup(o Options, name string, functions []state.Function) (*arakoon.Node, error) {
	parent := path.Join(o.Dir, "arakoon")
	if err := errors.Join(o.FS.MkdirAll(parent, 0o700), o.FS.SyncDir(o.Dir)); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return arakoon.Open(arakoon.Options{
		FS: o.FS, Dir: path.Join(parent, name), Cluster: uuid.NewSHA1(o.ID, []byte(name)), Member: 1, Functions: functions,
		SegmentBytes: logSegment, LogCacheBytes: logCache, CompactBytes: compactLog, StateCacheBytes: stateCache, MemTableBytes: stateMemory,
		Logger: o.Logger.With("group", name),
	})
}

// Open opens the backend of a data directory, making it at the first start. Any
// of its disks may be missing.
func Open(ctx context.Context, o Options) (*Backend, error) {
	if err := o.ensureDefaults(); err != nil {
		return nil, err
	}
	b := &Backend{opt: o, fleet: fleet.New(nil), nodes: make(map[string]*arakoon.Node), asds: make(map[uint64]*asd.ASD)}
	if err := b.open(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *Backend) open(ctx context.Context) (err error) {
	if err := b.openGroups(); err != nil {
		return err
	}
	if err := b.setUp(ctx); err != nil {
		return err
	}
	o := &b.opt
	if o.CacheBytes > 0 {
		b.cache, err = fragmentcache.Open(fragmentcache.Options{FS: o.FS, Dir: path.Join(o.Dir, "cache"), Bytes: o.CacheBytes, Logger: o.Logger})
		if err != nil {
			return err
		}
	}
	if err := b.refresh(ctx); err != nil {
		return err
	}
	b.work = maintenance.New(maintenance.Options{
		ABM: b.abm, Host: b.hostOf, Fleet: b.fleet, Logger: o.Logger,
		Invalidate: func(ns uint64, name string) { b.Client.Invalidate(ns, name) },
		Tick:       o.Maintain.Tick, Survey: o.Maintain.Survey, Collect: o.Maintain.Collect, Grace: o.Maintain.Grace,
		RebuildAfter: o.Maintain.RebuildAfter, Scrub: o.Maintain.Scrub,
	})
	b.Client = client.New(b.clientOptions())
	if o.Maintain.ByHand {
		return nil
	}
	var background context.Context
	background, b.stop = context.WithCancel(context.Background())
	b.work.Start()
	b.done.Go(func() { b.lookOut(background) })
	return nil
}

// Maintenance is the work on the backend, which runs in the background unless
// Options say otherwise.
func (b *Backend) Maintenance() *maintenance.Maintenance { return b.work }

// openGroups opens the clusters side by side: most of the time they wait for
// the disk.
func (b *Backend) openGroups() error {
	groups := []struct {
		name      string
		functions []state.Function
	}{
		{"abm", cluster.Functions(abm.Functions())},
		{hostName, cluster.Functions(nsm.Functions())},
	}
	nodes, errs := make([]*arakoon.Node, len(groups)), make([]error, len(groups))
	var all sync.WaitGroup
	for i, g := range groups {
		all.Go(func() { nodes[i], errs[i] = OpenGroup(b.opt, g.name, g.functions) })
	}
	all.Wait()
	for i, g := range groups {
		if nodes[i] != nil {
			b.nodes[g.name] = nodes[i]
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	a, n := b.manager("abm"), b.manager(hostName)
	b.abm, b.nsm = abm.NewClient(a, a), nsm.NewClient(n, n)
	return nil
}

// manager is the group that a manager runs on.
func (b *Backend) manager(name string) *cluster.Client {
	var n cluster.Node = b.nodes[name]
	if b.opt.Node != nil {
		n = b.opt.Node(name, n)
	}
	return cluster.NewClient(n)
}

func (b *Backend) clientOptions() client.Options {
	o := client.Options{
		ABM: b.abm, Host: b.hostOf, Fleet: b.fleet, Refresh: b.refresh,
		Bad: b.work.Bad, Deleted: b.work.Wake, Uploads: b.opt.Uploads, Logger: b.opt.Logger,
	}
	if b.cache != nil {
		o.Cache = b.cache
	}
	if len(b.opt.Keys) > 0 {
		o.Key = func(number uint64) ([]byte, error) {
			if key := b.opt.Keys[number]; key != nil {
				return key, nil
			}
			return nil, fmt.Errorf("master key %d is not in the key file, which has %v", number, slices.Sorted(maps.Keys(b.opt.Keys)))
		}
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
	b.mu.Lock()
	defer b.mu.Unlock()
	for number, a := range b.asds {
		if d := b.fleet.Disk(number); d != nil {
			d.Detach(errors.New("the backend is closed"))
		}
		errs = append(errs, a.Close())
	}
	for _, n := range b.nodes {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}

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
	for _, o := range all {
		if o.Number == 0 {
			continue
		}
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

// attach opens disks of the fleet that are where they should be, side by side:
// one that was not closed cleanly reads much of itself. b.mu is held.
func (b *Backend) attach(ctx context.Context, disks ...*fleet.Disk) {
	asds, errs := make([]*asd.ASD, len(disks)), make([]error, len(disks))
	var all sync.WaitGroup
	for i, d := range disks {
		all.Go(func() { asds[i], errs[i] = b.openASD(b.path(d.Place), d.UUID) })
	}
	all.Wait()
	for i, d := range disks {
		if err := errs[i]; err != nil {
			if old := d.Reason(); old == nil || old.Error() != err.Error() {
				b.opt.Logger.Warn("disk is missing", "disk", d.Number, "dir", b.path(d.Place), "err", err)
				d.Detach(err)
			}
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

// openASD opens the ASD in a directory if it is the one that is wanted.
func (b *Backend) openASD(dir string, id uuid.UUID) (*asd.ASD, error) {
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
	return asd.Open(asd.Options{FS: b.opt.FS, Dir: dir, SegmentBytes: b.opt.SegmentBytes, Logger: b.opt.Logger.With("asd", dir)})
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

// reopenEvery is how often a disk is opened anew that takes no writes.
const reopenEvery = 10 * time.Second

// look opens a disk that is missing, if it is back, and one that takes no
// writes or answers nothing: what made it so may be over, and if its directory
// was taken away, or cannot be read, it is missing.
func (b *Backend) look(ctx context.Context, d *fleet.Disk, reopened map[uint64]time.Time) {
	reason := d.Refresh(ctx) // before the lock: a dying disk takes its time
	if reason == nil {
		reason = d.Known().ReadOnly
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fleet.Disk(d.Number) != d {
		return
	}
	if d.Missing() != nil {
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
