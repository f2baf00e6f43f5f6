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
	Attach func(*arakoon.Node)
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

// dirName is the name of the member's directory under DIR/arakoon, and its name in the record.
func (s Spec) dirName() string {
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
	g := &Groups{opt: opt, specs: specs, start: rand.Uint64()}
	g.members.open = make(map[string]*member)
	if err := g.open(ctx); err != nil {
		return nil, errors.Join(err, g.closeNodes())
	}
	return g, nil
}

func (g *Groups) open(ctx context.Context) error {
	if err := g.finishDrops(); err != nil {
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

// openMembers opens members side by side, as most of that time is waiting for the disk.
func (g *Groups) openMembers(ctx context.Context, specs []Spec, existing bool) error {
	errs := make([]error, len(specs))
	var all sync.WaitGroup
	for i, s := range specs {
		all.Go(func() {
			m, err := g.openMember(ctx, s, existing)
			if errors.Is(err, arakoon.ErrMissing) {
				err = g.missing(s.Name, err)
			}
			if errs[i] = err; m != nil {
				g.members.put(m)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// Cluster is the UUID in the files of a group's members. id is that of the data directory that
// the group was made in.
func Cluster(id uuid.UUID, group string) uuid.UUID { return uuid.NewSHA1(id, []byte(group)) }

func (g *Groups) openMember(ctx context.Context, s Spec, existing bool) (*member, error) {
	opt := arakoon.Options{
		FS: g.opt.FS, Dir: g.dir(s), Cluster: Cluster(g.opt.ID, s.Name), Member: max(s.Member, 1),
		Functions: s.Functions, Existing: existing, Generation: g.opt.Ledger.Record().Generation, Transport: s.Link.Transport,
		SegmentBytes: logSegment, LogCacheBytes: logCache, CompactBytes: compactLog, HoldCompaction: true, StateCacheBytes: stateCache, MemTableBytes: stateMemory,
		Logger: g.opt.Logger.With("group", s.Name), OnFull: g.opt.OnFull,
	}
	if s.Link.Tune != nil {
		s.Link.Tune(&opt)
	}
	n, err := g.openNode(ctx, opt)
	if err != nil {
		return nil, err
	}
	return &member{spec: s, node: n}, nil
}

// openNode opens a group's member. Each opening begins a segment of the log, and on a full
// disk that waits for room (P6).
func (g *Groups) openNode(ctx context.Context, opt arakoon.Options) (*arakoon.Node, error) {
	for told := false; ; told = true {
		n, err := arakoon.Open(opt)
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

// Node is a group's member, nil for a group that has none here.
func (g *Groups) Node(name string) *arakoon.Node {
	if m := g.members.get(name); m != nil {
		return m.node
	}
	return nil
}

// Names are those of the groups that have a member here.
func (g *Groups) Names() (names []string) {
	for _, s := range specsOf(g.members.all()) {
		names = append(names, s.Name)
	}
	return names
}

// Close claims a last generation, if something has changed since the newest one, and closes
// the groups.
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
		all.Go(func() { errs <- m.node.Close() })
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
