package groups

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/state"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/generation"

	"github.com/google/uuid"
)

// Errors of Open that callers match with errors.Is.
var (
	// ErrMissing: a group that was made is not there.
	ErrMissing = errors.New("group is missing")
	// ErrOlder: a group, or the directory's record, is an older copy.
	ErrOlder = errors.New("an older copy")
	// ErrForeign: a group belongs to a copy of the directory that was used on its own.
	ErrForeign = errors.New("of another copy")
)

// Ledger is the record of the data directory; a *datadir.Directory.
type Ledger interface {
	Record() datadir.Record
	Change(func(*datadir.Record)) error
}

// Spec is a group that is wanted.
type Spec struct {
	Name      string // of the group
	Functions []state.Function
	// After are names in the data directory that are made only after the group. If one
	// of them is there, the group was made.
	After []string

	// Member is the number of the member that is held here; 0 is 1, the first of a group.
	// Only a first member makes a group. All others are made by Make.
	Member uint64
	// Away says that the group has no member here any more, and is used here all the same, by
	// Link: its only member here was dropped, and the record of the data directory says so.
	Away bool
	// Link is how this member reaches the others. Its zero value is for a group that has
	// no others.
	Link Link
}

// Link is how a member of a group reaches the others.
type Link struct {
	Transport arakoon.Transport
	// Tune, if not nil, gives the member's options what only its caller knows.
	Tune func(*arakoon.Options)
	// Attach is called with the member as soon as the record knows of it, and before
	// anything is asked of the group: from then on the member hears from the others.
	// It is called again with each opening of a member that had failed.
	Attach func(*arakoon.Node)
	// Detach is called when the member has failed, before it is closed to be opened anew, or
	// for good: others hear nothing of it any more. nil: there are no others.
	Detach func()
	// Store is the group as claims see it: a client that follows the master. nil: the
	// member itself.
	Store Store
	// Changed returns a number that changes with the group, and not with claims: hosts
	// whose claims were reasons for each other's would claim for ever. nil: how far the
	// member has applied the log.
	Changed func() uint64
}

// Store is a group as claims see it; a *arakoon.Node.
type Store interface {
	MultiGet(ctx context.Context, c arakoon.Consistency, keys ...[]byte) ([][]byte, error)
	Write(ctx context.Context, seq *arakoon.Sequence) (index uint64, results []arakoon.Result, err error)
}

// AwayName is how the record of a data directory has a group whose member here was dropped, in
// the directory that the groups were made in. Without that, the absence of the member would be
// a loss (P8). A release that does not know it refuses the directory.
func AwayName(group string) string { return group + ".away" }

// dirName is the name of the member's directory under DIR/arakoon, and its name in the record.
func (s Spec) dirName() string {
	if s.Away {
		return AwayName(s.Name)
	}
	if s.Member <= 1 {
		return s.Name
	}
	return fmt.Sprintf("%s.%d", s.Name, s.Member)
}

// Options for Open. FS, Dir, ID and Ledger must be given.
type Options struct {
	FS     disk.FS
	Dir    string    // the data directory
	ID     uuid.UUID // of the data directory that the groups were made in
	Host   uuid.UUID // of this data directory; default ID
	Ledger Ledger
	Logger *slog.Logger
	// OnFull is called again and again while a group waits for room; must not block.
	OnFull func(error)
}

// Sizes of a group of one that runs beside others in a process: little memory,
// and quick to make.
const (
	logSegment  = 4 << 20
	logCache    = 1 << 20
	compactLog  = 16 << 20
	stateCache  = 6 << 20
	stateMemory = 6 << 20
)

// Groups are the open groups of a data directory. Methods are safe for concurrent
// use.
type Groups struct {
	opt   Options
	specs []Spec

	mark atomic.Pointer[generation.Mark] // the newest that is settled

	members members
	making  sync.Mutex // one Make or Drop at a time

	mu    sync.Mutex // one claim at a time, which may take as long as a disk is full
	start uint64     // random, drawn by this start

	witnesses []*watched

	stop    context.CancelFunc
	beating sync.WaitGroup
}

// Open opens groups, side by side, and makes those that were never made. A group that is
// missing, or older than the rest, is refused by name, and nothing is made in its place.
func Open(ctx context.Context, opt Options, specs ...Spec) (*Groups, error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Host == uuid.Nil {
		opt.Host = opt.ID
	}
	g := &Groups{opt: opt, specs: slices.Clone(specs), start: rand.Uint64()}
	g.members.open = make(map[string]*member)
	if err := g.open(ctx); err != nil {
		return nil, errors.Join(err, g.closeNodes())
	}
	for _, m := range g.members.all() {
		g.watchOver(m)
	}
	return g, nil
}

// watchOver has a member opened anew whenever it has failed. It is called once for each.
func (g *Groups) watchOver(m *member) {
	if m.spec.Away {
		return
	}
	m.tended = make(chan struct{})
	go tender{g}.tend(m)
}

func (g *Groups) open(ctx context.Context) error {
	if err := g.finishDrops(); err != nil {
		return err
	}
	if err := comeToAway(g); err != nil {
		return err
	}
	for _, name := range g.opt.Ledger.Record().Groups {
		if !slices.ContainsFunc(g.specs, func(s Spec) bool { return s.dirName() == name }) {
			return fmt.Errorf("data directory %s has a group %s, and it was not asked for: what is settled is so in all groups", g.opt.Dir, name)
		}
	}
	there, absent, err := g.find()
	if err != nil {
		return err
	}
	// Those that are there first: they may know of the others.
	if err := g.openMembers(ctx, there, true); err != nil {
		return err
	}
	for _, m := range g.members.all() {
		m.attach()
	}
	for _, s := range g.specs {
		if s.Away {
			g.members.put(newMember(s, nil))
		}
	}
	if err := g.check(ctx); err != nil {
		return err
	}
	if err := g.mayMake(ctx, absent); err != nil {
		return err
	}
	if len(absent) > 0 {
		parent := path.Join(g.opt.Dir, "arakoon")
		if err := errors.Join(g.opt.FS.MkdirAll(parent, 0o700), g.opt.FS.SyncDir(g.opt.Dir)); err != nil {
			return err
		}
	}
	// A group that is evidence of another must not be there before that one: after a
	// power cut between the two, the other would count as lost.
	first, then := inOrder(absent)
	if err := g.openMembers(ctx, first, false); err != nil {
		return err
	}
	if err := g.openMembers(ctx, then, false); err != nil {
		return err
	}
	if err := g.remember(g.dirNames()...); err != nil {
		return err
	}
	for _, s := range absent {
		g.members.get(s.Name).attach()
	}
	return nil
}

func specsOf(list []*member) (specs []Spec) {
	for _, m := range list {
		specs = append(specs, m.spec)
	}
	return specs
}

// inOrder divides groups that are to be made: one that another names in After comes then.
func inOrder(specs []Spec) (first, then []Spec) {
	for _, s := range specs {
		if slices.ContainsFunc(specs, func(o Spec) bool { return slices.Contains(o.After, path.Join("arakoon", s.Name)) }) {
			then = append(then, s)
		} else {
			first = append(first, s)
		}
	}
	return first, then
}

// dir is where a member is.
func (g *Groups) dir(s Spec) string { return path.Join(g.opt.Dir, "arakoon", s.dirName()) }

// comeToAway makes specs of members that a Drop, which was cut, has finished just now those of
// groups that are away; and refuses one of a member that only Make may make.
func comeToAway(g *Groups) error {
	record := g.opt.Ledger.Record()
	for i := range g.specs {
		s := &g.specs[i]
		if !s.Away && !record.Made(s.dirName()) && record.Made(AwayName(s.Name)) {
			s.Away, s.Member = true, 0
		}
		if s.Away && s.Link.Store == nil {
			return fmt.Errorf("group %s: its member here was dropped, and there is no way to the others", s.Name)
		}
	}
	g.specs = slices.DeleteFunc(g.specs, func(s Spec) bool { return !s.Away && s.Member > 1 && !record.Made(s.dirName()) })
	return nil
}

// openMembers opens members side by side, as most of that time is waiting for the disk.
func (g *Groups) openMembers(ctx context.Context, specs []Spec, existing bool) error {
	errs := make([]error, len(specs))
	var all sync.WaitGroup
	for i, s := range specs {
		all.Go(func() {
			n, err := g.openMember(ctx, s, existing, nil)
			if errs[i] = err; n != nil {
				g.members.put(newMember(s, n))
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// Cluster is the UUID in the files of a group's members. id is that of the data directory that
// the group was made in.
func Cluster(id uuid.UUID, group string) uuid.UUID { return uuid.NewSHA1(id, []byte(group)) }

// beat is what the ticks of all members of the process have in common.
var beat = time.Now()

// openMember opens a member. onFull, unless nil, is told too while it waits for room.
func (g *Groups) openMember(ctx context.Context, s Spec, existing bool, onFull func(error)) (*arakoon.Node, error) {
	opt := arakoon.Options{
		FS: g.opt.FS, Dir: g.dir(s), Group: s.Name, Cluster: Cluster(g.opt.ID, s.Name), Member: max(s.Member, 1),
		Functions: s.Functions, Existing: existing, Generation: g.opt.Ledger.Record().Generation, Transport: s.Link.Transport,
		SegmentBytes: logSegment, LogCacheBytes: logCache, CompactBytes: compactLog, HoldCompaction: true, StateCacheBytes: stateCache, MemTableBytes: stateMemory,
		Logger: g.opt.Logger.With("group", s.Name), OnFull: g.opt.OnFull, Beat: beat,
	}
	if onFull != nil {
		opt.OnFull = func(err error) {
			if onFull(err); g.opt.OnFull != nil {
				g.opt.OnFull(err)
			}
		}
	}
	if s.Link.Tune != nil {
		s.Link.Tune(&opt)
	}
	n, err := g.openNode(ctx, opt)
	if errors.Is(err, arakoon.ErrMissing) {
		err = g.missing(s.Name, err)
	}
	return n, err
}

// openNode opens a group's member. Each opening begins a segment of the log, and on a full
// disk that waits for room (P6).
func (g *Groups) openNode(ctx context.Context, opt arakoon.Options) (*arakoon.Node, error) {
	for told := false; ; told = true {
		n, err := arakoon.OpenWithin(ctx, opt)
		if disk.CauseOf(err) != disk.Full {
			return n, err
		}
		if opt.OnFull != nil {
			opt.OnFull(err)
		}
		if !told {
			opt.Logger.Warn("the group waits until it can be opened", "err", err)
		}
		select {
		case <-time.After(claimAgain):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w, while it waited for room: %w", ctx.Err(), err)
		}
	}
}

// HostOf is the host that the members are on.
func HostOf(g *Groups) uuid.UUID {
	if g.opt.Host == uuid.Nil {
		return g.opt.ID
	}
	return g.opt.Host
}

// Node is a group's member as it was opened last, nil for a group that has none here. It may
// have failed, and be opened anew as another one: whoever uses a group for longer has a User.
func (g *Groups) Node(name string) *arakoon.Node {
	if m := g.members.get(name); m != nil {
		return m.node()
	}
	return nil
}

// Names are those of the groups that have a member here.
func (g *Groups) Names() (names []string) {
	for _, m := range g.members.all() {
		if !m.spec.Away {
			names = append(names, m.spec.Name)
		}
	}
	return names
}

// Close claims a last generation, if something has changed since the newest one, and closes
// the groups. The error says of members that had failed, and were not opened anew, why.
func (g *Groups) Close() error {
	if g.stop != nil {
		g.stop()
		g.beating.Wait()
	}
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	_, _, err := g.beat(ctx, true)
	if err != nil {
		// Nothing is wrong with the directory: the newest generation only says a
		// little less about how old a copy is.
		g.opt.Logger.Warn("the last generation was not claimed", "err", err)
	}
	return g.closeNodes()
}

// closeNodes closes all side by side, as each may wait a while for a full disk.
func (g *Groups) closeNodes() error {
	var all sync.WaitGroup
	list := g.members.all()
	errs := make(chan error, len(list))
	for _, m := range list {
		all.Go(func() {
			m.leave()
			if m.spec.Away {
				errs <- nil
				return
			}
			err := m.node().Close()
			m.lot.mu.Lock()
			failed := m.lot.fate.Failed
			m.lot.mu.Unlock()
			errs <- errors.Join(err, failed)
		})
	}
	all.Wait()
	close(errs)
	var joined []error
	for err := range errs {
		joined = append(joined, err)
	}
	return errors.Join(joined...)
}

func (g *Groups) missing(name string, err error) error {
	return fmt.Errorf("%w: %s: %w. Nothing is made in its place, as that would know of nothing that is stored. Restore %s from a copy that was made while nothing ran, with all of the data directory but asd/ and cache/: its parts belong together",
		ErrMissing, name, err, path.Join(g.opt.Dir, "arakoon"))
}
