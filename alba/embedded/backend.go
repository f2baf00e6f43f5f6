package embedded

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/asd"
	"openvstorage/alba/client"
	"openvstorage/alba/cluster"
	"openvstorage/alba/fleet"
	"openvstorage/alba/fragmentcache"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm"
	"openvstorage/alba/policy"
	"openvstorage/arakoon/groups"
	"openvstorage/internal/datadir"
)

// Backend is an open backend. It ties its parts: it opens and closes them in order,
// and does in the background what they ask for. Its methods are safe for concurrent
// use.
type Backend struct {
	*client.Client // the store
	*Membership    // which disks there are
	*PresetStore
	*Inventory  // what is stored
	*DiskReport // how the disks are

	opt    Options
	groups *groups.Groups
	alone  *datadir.Directory // the data directory, if nobody else has it

	abm   *abm.Client
	nsm   *nsm.Client
	host  uint64 // the NSM host's number
	fleet *fleet.Fleet
	files *asd.Descriptors
	room  sharedRoom
	cache *fragmentcache.Cache // nil: none
	work  *maintenance.Maintenance

	generations *generations
	asds        *asdSet
	decisions   *decisions
	ring        *keyring

	stop context.CancelFunc
	done sync.WaitGroup
}

// openFilesLeast is how many files a process should be allowed to have open. With
// fewer, the segments of large disks are closed, and opened again for reads.
const openFilesLeast = 16 << 10

// Specs are the groups of a backend. The paths after them in the data directory are made
// later than the groups: if one of them is there, the groups were made.
func Specs() []groups.Spec {
	after := []string{"asd", "cache", "buffer", "map", "arakoon/registry"}
	return []groups.Spec{
		{Name: "abm", Functions: cluster.Functions(abm.Functions()), After: after},
		{Name: hostName, Functions: cluster.Functions(nsm.Functions()), After: after},
	}
}

// Open opens the backend of a data directory, and makes it at the first start. Any of
// its disks may be missing.
func Open(ctx context.Context, o Options) (*Backend, error) {
	if err := o.ensureDefaults(); err != nil {
		return nil, err
	}
	b := &Backend{opt: o, groups: o.Groups}
	if err := b.open(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *Backend) open(ctx context.Context) error {
	if b.groups == nil {
		if err := b.openAlone(ctx); err != nil {
			return err
		}
	}
	a, n := b.manager("abm"), b.manager(hostName)
	b.abm, b.nsm = abm.NewClient(a, a), nsm.NewClient(n, n)
	places, mounts := b.makeDiskParts()
	if err := b.claim(ctx, places); err != nil {
		return err
	}
	first := setup{layout: places.layout, opt: &b.opt, abm: b.abm, places: places, mounts: mounts}
	if err := first.run(ctx); err != nil {
		return err
	}
	if err := b.putHost(ctx); err != nil {
		return err
	}
	if err := sayZone(ctx, b.abm, places.layout, b.opt.Zone); err != nil {
		b.opt.Logger.Warn("the zone of this host is not told to placement", "err", err)
	}
	b.warnOfFewFiles()
	if err := b.openCache(); err != nil {
		return err
	}
	if err := b.asds.refresh(ctx); err != nil {
		return err
	}
	b.asds.others.settle(ctx, b.enough)
	b.generations.forgetOthers()
	b.fleet.SetNode(places.layout.node())
	b.makeStoreParts(places.layout)
	if err := b.ring.check(ctx); err != nil {
		return err
	}
	if !b.opt.Maintain.ByHand {
		b.start()
	}
	return nil
}

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
	var n cluster.Node
	if u := b.groups.User(name); u != nil {
		n = u
	}
	if b.opt.Node != nil {
		n = b.opt.Node(name, n)
	}
	return cluster.NewClient(n)
}

// makeDiskParts makes the parts that find, judge and open disks.
func (b *Backend) makeDiskParts() (*places, *mountCheck) {
	o := &b.opt
	at := layout{dir: o.Dir, id: o.ID}
	b.fleet, b.files = fleet.New(nil), asd.NewDescriptors(o.Descriptors)
	b.room = sharedRoom{fs: o.FS, dir: o.Dir, leave: o.Leave}
	work := newErrands(o.FS)
	places := &places{layout: at, fs: o.FS, given: o.Dirs, abm: b.abm, fleet: b.fleet, errands: work, logger: o.Logger}
	mounts := &mountCheck{layout: at, given: o.Dirs, absent: o.Absent, resolve: o.Resolve, fleet: b.fleet, errands: work, logger: o.Logger}
	others := newRemotes(b.fleet, o, b.wake)
	b.generations = &generations{layout: at, groups: b.groups, fleet: b.fleet, errands: work, logger: o.Logger, seen: make(disksSeen)}
	b.asds = &asdSet{
		layout: at, fs: o.FS, segmentBytes: o.SegmentBytes, files: b.files, room: b.room, abm: b.abm, fleet: b.fleet,
		errands: work, places: places, generations: b.generations, others: others, enough: b.enough, wake: b.wake, logger: o.Logger,
		open: make(map[uint64]openASD), opening: make(map[uint64]*opening),
	}
	b.decisions = &decisions{carry: b.carry, follow: b.follow}
	b.Membership = &Membership{layout: at, abm: b.abm, fleet: b.fleet, asds: b.asds, places: places, mounts: mounts, decisions: b.decisions, zone: o.Zone}
	b.PresetStore = &PresetStore{abm: b.abm, decisions: b.decisions}
	b.ring = &keyring{keys: o.Keys, id: o.ID, abm: b.abm, nsm: b.nsm, presets: b.PresetStore, logger: o.Logger}
	b.PresetStore.mayUse = b.ring.mayUse
	return places, mounts
}

// claim judges by the disks whether this data directory is the newest copy of itself,
// and claims a generation for this start before anything is written to a disk.
func (b *Backend) claim(ctx context.Context, places *places) error {
	dirs, err := places.candidates(ctx)
	if err != nil {
		return err
	}
	newest, accepted, err := b.generations.judge(ctx, dirs, b.opt.AcceptOlder)
	if err != nil {
		return err
	}
	if err := b.generations.watch(ctx); err != nil {
		return err
	}
	return b.groups.Claim(ctx, newest, accepted)
}

// putHost registers the NSM host, and tells it what the ABM has decided.
func (b *Backend) putHost(ctx context.Context) (err error) {
	if b.host, err = b.abm.PutHost(ctx, hostName, []byte("arakoon/"+hostName), false); err != nil {
		return err
	}
	return b.carry(ctx)
}

// warnOfFewFiles tells of a limit on open files under which large disks are slow.
func (b *Backend) warnOfFewFiles() {
	if n := asd.OpenFilesMax(); n < openFilesLeast {
		b.opt.Logger.Warn("the process may have few files open at once, of which the disks keep half: raise LimitNOFILE, or `ulimit -n`",
			"limit", n, "wanted", openFilesLeast, "segments", b.files.Stats().Max)
	}
}

func (b *Backend) openCache() (err error) {
	o := &b.opt
	if o.CacheBytes > 0 {
		b.cache, err = fragmentcache.Open(fragmentcache.Options{FS: o.FS, Dir: path.Join(o.Dir, "cache"), Bytes: o.CacheBytes, Logger: o.Logger})
	}
	return err
}

// makeStoreParts makes the parts that store objects, keep them and tell of them.
func (b *Backend) makeStoreParts(at layout) {
	o := &b.opt
	scrub := scrubFile{o.FS, o.Dir}
	b.work = maintenance.New(maintenance.Options{
		ABM: b.abm, Host: b.hostOf, Fleet: b.fleet, Logger: o.Logger,
		Invalidate: func(ns uint64, name string) { b.Client.Invalidate(ns, name) }, MayDelete: b.generations.mayDelete,
		Tick: o.Maintain.Tick, Survey: o.Maintain.Survey, Collect: o.Maintain.Collect, Grace: o.Maintain.Grace,
		RebuildAfter: o.Maintain.RebuildAfter, Scrub: o.Maintain.Scrub, Retry: o.Maintain.Retry,
		ScrubKept: scrub.read, ScrubKeep: scrub.write, Clients: b.moved,
		Agent: o.Maintain.Agent, Balance: o.Maintain.Balance, Rate: o.Maintain.Rate,
	})
	b.Client = client.New(b.clientOptions())
	b.ring.store = b.Client
	b.Inventory = &Inventory{abm: b.abm, nsm: b.nsm, store: b.Client, fleet: b.fleet, work: b.work, census: newCensus(b.nsm, b.work)}
	b.DiskReport = &DiskReport{layout: at, abm: b.abm, nsm: b.nsm, fleet: b.fleet, work: b.work, presets: b.PresetStore}
}

func (b *Backend) clientOptions() client.Options {
	o := client.Options{
		ABM: b.abm, Host: b.hostOf, Fleet: b.fleet, Refresh: b.asds.refresh,
		Bad: b.work.Bad, Unread: b.work.Unread, Deleted: b.work.Wake, Uploads: b.opt.Uploads, Logger: b.opt.Logger,
	}
	if b.cache != nil { // a nil pointer in the interface would not be nil
		o.Cache = b.cache
	}
	if len(b.ring.keys) > 0 {
		o.Key, o.Prove = b.ring.get, b.ring.prove
	}
	return o
}

// Close ends everything, and each part before the parts that it uses. Nothing may use
// the backend any more. A disk that does not answer is left as it is, its lock is given
// back, and the error names it.
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
	if b.asds != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		if err := b.Beat(ctx); err != nil {
			b.opt.Logger.Warn("the last generation was not claimed everywhere", "err", err)
		}
		errs = append(errs, b.asds.close())
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

// Maintenance is the work on the backend, which runs in the background unless
// Options.Maintain.ByHand is set.
func (b *Backend) Maintenance() *maintenance.Maintenance { return b.work }

// hostOf is the NSM host of a number.
func (b *Backend) hostOf(number uint64) (*nsm.Client, error) {
	if number != b.host {
		return nil, fmt.Errorf("NSM host %d is not in this process, which has %d", number, b.host)
	}
	return b.nsm, nil
}

// carry tells the NSM host what the ABM has decided.
func (b *Backend) carry(ctx context.Context) error { return b.abm.Carry(ctx, b.host, b.nsm) }

// follow makes the fleet what the ABM has decided.
func (b *Backend) follow(ctx context.Context) error {
	err := b.asds.refresh(ctx)
	b.wake()
	return err
}

// wake has maintenance look for work. Disks are opened before there is maintenance.
func (b *Backend) wake() {
	if b.work != nil {
		b.work.Wake()
	}
}

// enough reports whether the disks that are attached can keep one of the policies of
// the default preset.
func (b *Backend) enough(ctx context.Context) bool {
	p, err := b.Preset(ctx, "")
	if err != nil {
		return false
	}
	_, _, ok := policy.Choose(p.Policies, b.fleet.Disks())
	return ok
}
