package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/asd"
	"openvstorage/alba/cluster"
	"openvstorage/alba/fleet"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/osd"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/generation"

	"github.com/google/uuid"
)

// HostOptions are for NewHostDisks. FS, Dir, Backend, Host, ABM and Record must be given.
type HostOptions struct {
	FS      disk.FS
	Dir     string                // data directory of the host
	Backend uuid.UUID             // that the disks are of
	Host    uuid.UUID             // this host: the node of its disks
	Zone    string                // where it is; "": nowhere
	ABM     cluster.Node          // the way to the ABM's group
	Record  func() datadir.Record // of the data directory: disks are judged by its generations

	// Dirs are absolute paths of directories for ASDs. An empty one gets an ASD, which is
	// taken into the backend. One that holds an ASD must hold one of this host.
	Dirs           []string
	Absent         func(dir string) (point, by string, ok bool) // see Options
	Resolve        func(dir string) string
	AllowUnmounted bool

	SegmentBytes int64         // of ASD segments; default 32 MiB
	Descriptors  int           // files of segments open at once; default half of what the process may have
	Leave        uint64        // bytes that ASDs leave free on the file system of the data directory
	Every        time.Duration // between looks for disks that are back; default 1 s
	Logger       *slog.Logger  // nil: none
}

// ErrNotOurs is matched by the error of Run for a directory whose disk is not one of this
// host. Nothing was changed in it.
var ErrNotOurs = errors.New("it is no disk of this host")

// HostDisks are the disks of a host whose backend runs on another one: the ABM says which
// they are. It opens them and opens them again, and others use them by Served. Its methods
// are safe for concurrent use.
type HostDisks struct {
	layout
	opt        HostOptions
	abm        *abm.Client
	fleet      *fleet.Fleet
	asds       *asdSet
	places     *places
	membership *Membership
}

// NewHostDisks opens nothing yet: Run does.
func NewHostDisks(o HostOptions) *HostDisks {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 32 << 20
	}
	if o.Every == 0 {
		o.Every = time.Second
	}
	at := layout{dir: o.Dir, id: o.Backend, host: o.Host}
	c := cluster.NewClient(o.ABM)
	h := &HostDisks{layout: at, opt: o, abm: abm.NewClient(c, c), fleet: fleet.New(nil)}
	work := newErrands(o.FS)
	h.places = &places{layout: at, fs: o.FS, given: o.Dirs, abm: h.abm, fleet: h.fleet, errands: work, logger: o.Logger}
	h.asds = &asdSet{
		layout: at, fs: o.FS, segmentBytes: o.SegmentBytes, files: asd.NewDescriptors(o.Descriptors), room: sharedRoom{fs: o.FS, dir: o.Dir, leave: o.Leave},
		abm: h.abm, fleet: h.fleet, errands: work, places: h.places, generations: hostMarks{o.Dir, o.Record},
		others: newRemotes(h.fleet, &Options{ReopenEvery: o.Every, Logger: o.Logger}, func() {}),
		enough: func(context.Context) bool { return true }, wake: func() {}, logger: o.Logger,
		open: make(map[uint64]openASD), opening: make(map[uint64]*opening),
	}
	follow := &decisions{carry: func(context.Context) error { return nil }, follow: h.refresh} // whoever has the NSM hosts carries
	mounts := &mountCheck{layout: at, given: o.Dirs, absent: o.Absent, resolve: o.Resolve, fleet: h.fleet, errands: work, logger: o.Logger}
	h.membership = &Membership{layout: at, abm: h.abm, fleet: h.fleet, asds: h.asds, places: h.places, mounts: mounts, decisions: follow, zone: o.Zone}
	return h
}

// hostMarks judges the disks of a host by its data directory. A disk that has seen more than
// the directory tells that the directory is an older copy.
type hostMarks struct {
	dir    string
	record func() datadir.Record
}

func (h hostMarks) mayAttach(fsys disk.FS, dir string, _ uuid.UUID) error {
	m, _, err := asd.ReadClaim(fsys, dir)
	if err != nil {
		return err
	}
	r := h.record()
	if v := r.History.Judge(r.Generation, m); v != generation.Ours {
		return fmt.Errorf("%w: %s is of generation %d, and %v: stop, and put the newest copy back", ErrOlder, h.dir, r.Generation, contradiction{dir, m, v})
	}
	return nil
}

func (h hostMarks) mark() (m generation.Mark) {
	if all := h.record().History; len(all) > 0 {
		m = all[len(all)-1]
	}
	return m
}

func (h hostMarks) remembered(*asd.ASD, generation.Mark) {}

// Served returns the ASD of an id, if it is open here. It waits for nothing.
func (s *asdSet) Served(id uuid.UUID) (osd.OSD, bool) {
	a, ok := s.served.Load(id)
	if !ok {
		return nil, false
	}
	return a.(*asd.ASD), true
}

// Served returns the disk of an id, if it is open here. It waits for nothing.
func (h *HostDisks) Served(id uuid.UUID) (osd.OSD, bool) { return h.asds.Served(id) }

// Served returns the disk of an id, if it is one of this host and open. It waits for
// nothing.
func (b *Backend) Served(id uuid.UUID) (osd.OSD, bool) {
	if b.asds == nil {
		return nil, false
	}
	return b.asds.Served(id)
}

const (
	askMax       = 10 * time.Second // how long the ABM is waited for at a time
	refreshEvery = 5 * time.Second  // between looks at what the ABM says
)

// Run takes the given directories in, and has the disks of this host open, until ctx ends.
// Then it closes them. It waits for the ABM as long as that does not answer, and ends with
// an error only for a directory that is refused: ErrNotOurs, ErrUnmounted.
func (h *HostDisks) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, h.asds.close()) }()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go h.fleet.Watch(watching, h.changed)
	left, said := slices.Clone(h.opt.Dirs), ""
	tick := time.NewTicker(h.opt.Every)
	defer tick.Stop()
	tried := make(map[uint64]time.Time)
	var refreshed time.Time
	for ctx.Err() == nil {
		var failed error
		if len(left) > 0 || time.Since(refreshed) >= refreshEvery {
			left, failed = h.follow(ctx, left)
			refreshed = time.Now()
		}
		if refused(failed) {
			return failed
		}
		if failed != nil && ctx.Err() == nil && failed.Error() != said {
			said = failed.Error()
			h.opt.Logger.Warn("which disks this host has is not known yet, to be tried again", "err", failed)
		}
		h.asds.reopenAll(ctx, tried)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return nil
}

func refused(err error) bool { return errors.Is(err, ErrNotOurs) || errors.Is(err, ErrUnmounted) }

func (h *HostDisks) changed(d *fleet.Disk, before, after fleet.Condition) {
	h.opt.Logger.Warn("a disk is "+after.State.String(), "disk", d.Number, "was", before.State.String(), "reason", after.Reason)
}

// refresh opens what the ABM says that this host has.
func (h *HostDisks) refresh(ctx context.Context) error { return h.asds.refresh(ctx) }

// follow takes directories in, and makes the disks what the ABM says. It returns the
// directories that are left to be taken in.
func (h *HostDisks) follow(ctx context.Context, dirs []string) ([]string, error) {
	bounded, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	// A group that is not raised yet knows no zones. That keeps no disk from being used.
	zone := sayZone(bounded, h.abm, h.layout, h.opt.Zone)
	for len(dirs) > 0 {
		if err := h.take(bounded, dirs[0]); err != nil {
			return dirs, err
		}
		dirs = dirs[1:]
	}
	return dirs, errors.Join(zone, h.refresh(bounded))
}

// take takes a directory in: it makes an ASD in an empty one, unless the backend knows of a
// disk there. That one is missing then, like one that is lost while the host runs: what else
// this host does, the members of groups above all, must not end with a disk. Nothing is made
// in its place (P8).
func (h *HostDisks) take(ctx context.Context, dir string) error {
	all, err := maintenance.AllOSDs(ctx, h.abm)
	if err != nil {
		return err
	}
	there, err := h.places.identity(ctx, dir)
	switch number := h.knownAt(dir, all); {
	case err != nil && number != 0:
		h.opt.Logger.Warn("a disk is not where it should be: mount it, or give it up with `ovs alba osd replace` on the first host; nothing was made in its place",
			"disk", number, "dir", dir, "err", err)
		return nil
	case errors.Is(err, asd.ErrNoASD):
		if err := h.mayMake(ctx, dir); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("%w: --asd %s: what is there cannot be read: %w", ErrNotOurs, dir, err)
	default:
		made, err := h.judge(dir, there, all)
		if err != nil || made {
			return err
		}
	}
	number, err := h.membership.AddOSD(ctx, dir)
	if err == nil {
		h.opt.Logger.Info("a disk was taken into the backend", "disk", number, "dir", dir)
	}
	return err
}

// judge refuses an ASD that is not one of this host. It reports whether the backend has it
// already: else the call that took it in was cut short.
func (h *HostDisks) judge(dir string, there asd.Identity, all []abm.OSD) (has bool, err error) {
	if there.Owner != uuid.Nil && there.Owner != h.id {
		return false, fmt.Errorf("%w: --asd %s: the ASD in it, %s, belongs to backend %s, and this host is of %s: give another directory", ErrNotOurs, dir, there.ID, there.Owner, h.id)
	}
	i := slices.IndexFunc(all, func(o abm.OSD) bool { return uuid.UUID(o.LongID) == there.ID })
	switch {
	case i < 0:
		return false, fmt.Errorf("%w: --asd %s: the backend does not know the ASD in it, %s: it was removed or replaced; give an empty directory", ErrNotOurs, dir, there.ID)
	case !h.own(all[i].Node):
		return false, fmt.Errorf("%w: --asd %s: the ASD in it, %s, is disk %d of host %s: put it back into that host", ErrNotOurs, dir, there.ID, all[i].Number, all[i].Node)
	case h.path(string(all[i].Endpoint)) != dir:
		return false, fmt.Errorf("%w: --asd %s: the ASD in it, %s, is disk %d, whose place on this host is %s: mount it there", ErrNotOurs, dir, there.ID, all[i].Number, h.path(string(all[i].Endpoint)))
	}
	return all[i].Number != 0, nil
}

// knownAt is the number of the disk of this host that should be in a directory, 0 if none is.
func (h *HostDisks) knownAt(dir string, all []abm.OSD) uint64 {
	for _, o := range h.mine(all) {
		if h.path(string(o.Endpoint)) == dir && o.State != abm.OSDLost {
			return o.Number
		}
	}
	return 0
}

// mayMake refuses a directory without an ASD in which none may be made.
func (h *HostDisks) mayMake(ctx context.Context, dir string) error {
	if !path.IsAbs(dir) {
		return fmt.Errorf("%w: --asd %s: give an absolute path", ErrNotOurs, dir)
	}
	if !h.opt.AllowUnmounted {
		if err := h.membership.CheckPlace(dir); err != nil {
			return err
		}
	}
	if err := h.places.checkEmpty(ctx, dir); err != nil {
		return fmt.Errorf("%w: --asd: %w", ErrNotOurs, err)
	}
	return nil
}
