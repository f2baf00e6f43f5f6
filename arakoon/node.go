package arakoon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/arakoon/raftlog"
	"openvstorage/arakoon/state"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Node is one member. All methods are safe for concurrent use.
type Node struct {
	QueryCalls
	LeaseCalls
	ImageCalls
	ZoneCalls

	opt       Options
	functions *state.Registry
	lock      io.Closer
	log       *raftlog.Log
	state     current

	end       *shutdown
	closing   sync.Once
	work      *queue[any] // for the stepper
	progress  *progress
	proposals *proposals
	readers   *readers
	stepper   *stepper
	appender  *appender
	applier   *applier
	history   *state.History
	figures   figures
	leaser    *leaser
	hasher    *hasher
	compactor *compactor
	source    *source
	incoming  *incoming
	installer *installer

	inbox inbox // of other members' messages

	leading atomic.Bool   // as raft said last
	leader  atomic.Uint64 // as raft said last
	full    atomic.Bool   // Pebble waits for room
	missing atomic.Pointer[ZonesError]
}

// Open opens a member, or makes it. A new one is a group of one, unless Options.Joining
// says that it joins one. A group of one leads when Open returns, and its log is applied.
// Any other member is open at once, and has applied what it had noted as committed or
// hears of from whoever leads.
func Open(opt Options) (*Node, error) { return OpenWithin(context.Background(), opt) }

// OpenWithin is Open that can be cancelled while it waits for room on the disk, or for the
// log to be applied. The node does not depend on ctx once it is open.
func OpenWithin(ctx context.Context, opt Options) (*Node, error) {
	n := unopened(opt)
	opt = n.opt
	if err := n.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("arakoon: open %s: %w", opt.Dir, err), n.closeStores())
	}
	if err := n.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("arakoon: open %s: %w", opt.Dir, err), n.Close())
	}
	return n, nil
}

// unopened is a node without files.
func unopened(opt Options) *Node {
	opt = opt.withDefaults()
	n := &Node{
		opt: opt, end: newShutdown(opt.Dir), work: newQueue[any](),
		progress:  &progress{waiters: map[chan struct{}]uint64{}},
		proposals: &proposals{most: opt.Proposals, mostBytes: opt.ProposalBytes, batches: map[uint64][]*proposal{}},
	}
	n.QueryCalls, n.LeaseCalls, n.ImageCalls, n.ZoneCalls = QueryCalls{n}, LeaseCalls{n}, ImageCalls{n}, ZoneCalls{n}
	n.history, n.leaser, n.hasher = state.NewHistory(opt.History), &leaser{node: n}, &hasher{node: n}
	n.end.onEnd, n.end.onFailure = n.proposals.end, n.onFailure
	n.readers = &readers{most: opt.Reads, work: n.work, progress: n.progress, end: n.end}
	n.compactor = &compactor{bytes: opt.CompactBytes, most: opt.HoldBytes, progress: n.progress, end: n.end, state: &n.state, allowed: make(chan struct{})}
	return n
}

// open opens the files: first the lock, so that two processes do not write one log;
// then the log, as it says how far the state must reach; then the state.
func (n *Node) open(ctx context.Context) (err error) {
	o := n.opt
	if o.Member == 0 {
		return errors.New("member 0 is no member")
	}
	if n.functions, err = state.NewRegistry(o.Functions...); err != nil {
		return err
	}
	if o.Existing {
		if _, err := o.FS.Stat(path.Join(o.Dir, "log")); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %w; restore it", ErrMissing, err)
		} else if err != nil {
			return err
		}
	}
	if err := o.FS.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	if err := o.FS.SyncDir(path.Dir(o.Dir)); err != nil {
		return err
	}
	if n.lock, err = o.FS.Lock(path.Join(o.Dir, "lock")); err != nil {
		return err
	}
	begin := o.begin()
	log := raftlog.Options{
		FS: o.FS, Dir: path.Join(o.Dir, "log"), Marks: o.Dir + ".marks", Cluster: o.Cluster, Member: o.Member,
		SegmentBytes: o.SegmentBytes, CacheBytes: o.LogCacheBytes, Life: o.Life, SameLife: o.SameLife, Generation: o.Generation,
	}
	if !o.Existing {
		log.Begin = begin
	}
	n.log, err = raftlog.Open(log)
	if errors.Is(err, raftlog.ErrMissing) {
		err = fmt.Errorf("%w: %w", ErrMissing, err)
	}
	if err != nil {
		return err
	}
	// A state that was never flushed begins where the log did, and with the same members:
	// those of Options would make a member that joined a group of its own.
	if m := n.log.Marker(); m.Index == begin.Index {
		begin = m
	}
	return n.openState(ctx, state.Position{Index: begin.Index, Term: begin.Term, Conf: begin.Conf})
}

// openState opens the state in use.
func (n *Node) openState(ctx context.Context, begin state.Position) error {
	options := func(dir string) state.Options { return stateOptions(n, dir, begin) }
	n.installer = &installer{
		opt: n.opt, end: n.end, log: n.log, state: &n.state, progress: n.progress, options: options, full: &n.full,
	}
	dirs := n.installer.dirs()
	if err := dirs.find(); err != nil {
		return err
	}
	if err := dirs.check(); err != nil {
		return err
	}
	dirs.tidy()
	s, err := state.OpenWithin(ctx, options(path.Join(n.opt.Dir, dirs.use)))
	if err != nil {
		return err
	}
	n.state.set(s)
	return n.join()
}

// stateOptions are those of a state in a directory.
func stateOptions(n *Node, dir string, begin state.Position) state.Options {
	o := n.opt
	return state.Options{
		FS: o.FS, Dir: dir, Cluster: o.Cluster, Member: o.Member,
		Begin: begin, Functions: n.functions, Knows: o.Knows, Life: o.Life, Generation: o.Generation,
		CacheBytes: o.StateCacheBytes, MemTableBytes: o.MemTableBytes, History: n.history, OnMark: n.hasher.take,
		OnFailure: n.end.fail, OnFull: n.onFull, OnRoom: func() { n.full.Store(false) },
	}
}

// join checks that the log leads on from the state, and makes raft and the parts
// that run it of both.
func (n *Node) join() error {
	at := n.state.Applied()
	last, _ := n.log.LastIndex()
	// A gap cannot be filled by a group of one, and a state ahead of its log was
	// applied from another one.
	if m := n.log.Marker(); at.Index < m.Index || at.Index > last {
		return fmt.Errorf("%w: the state is at entry %d, the log holds %d to %d; restore both", ErrFailed, at.Index, m.Index+1, last)
	}
	n.log.StateDurable(at.Index)
	n.progress.advance(at.Index, at.Term)
	n.source, n.incoming = newSource(n, at), newIncoming(n)
	n.installer.done = func() { n.figures.snapshotsTaken.Add(1); n.incoming.done() }
	r, err := raft.NewRawNode(&raft.Config{
		ID: n.opt.Member, ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks,
		Storage: storage{n.log, at, n.source}, Applied: at.Index, AsyncStorageWrites: true,
		MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: 4 << 20, MaxInflightMsgs: 256, MaxInflightBytes: 64 << 20,
		PreVote: true, CheckQuorum: true, DisableProposalForwarding: true, StepDownOnRemoval: true,
		Logger: logger{n.opt.Logger.With("cluster", n.opt.Cluster, "member", n.opt.Member)},
	})
	if err != nil {
		return err
	}
	appends, applies := newQueue[*pb.Message](), newQueue[*pb.Message]()
	origin := rand.Uint64()
	out := outbox{member: n.opt.Member, transport: n.opt.Transport, work: n.work}
	own := ""
	if n.opt.Zone != nil {
		own = n.opt.Zone(n.opt.Member)
		out.stamp = appendStamp(nil, origin, own)
	}
	n.stepper = &stepper{
		raft: r, work: n.work, appends: appends, applies: applies, out: out, end: n.end,
		progress: n.progress, proposals: n.proposals, opt: n.opt, origin: origin, asked: map[uint64][]*read{},
		leading: &n.leading, leader: &n.leader, inbox: &n.inbox, gone: n.state.Gone, last: last, toldOthers: make(chan struct{}),
		needs: needs{missing: &n.missing, state: n.state.Requirement}, places: places{self: n.opt.Member, own: own, of: map[uint64]*placed{}, roster: n.opt.Zone},
		synced: newSynced(n.opt, n.marks),
		source: n.source, incoming: n.incoming, figures: &n.figures,
	}
	n.appender = &appender{log: n.log, queue: appends, out: out, end: n.end, logger: n.opt.Logger, onFull: n.opt.OnFull, installer: n.installer, took: n.figures.stores.add, stored: n.hasher.stored}
	n.stepper.storing = n.appender.storing
	n.stepper.zones.zone = n.stepper.places.said
	if err := n.stepper.needs.load(n.stepper, at.Index, last, n.log.Entries); err != nil {
		return err
	}
	n.stepper.setConf(at.Conf) // raft has the same
	n.applier = &applier{
		state: &n.state, log: n.log, queue: applies, work: n.work, out: out, end: n.end,
		progress: n.progress, proposals: n.proposals, compactor: n.compactor, leaser: n.leaser, origin: origin, held: last, took: n.figures.applies.add,
	}
	n.compactor.log, n.compactor.source = n.log, n.source
	n.hasher.held.Store(last)
	return nil
}

// storage is the log with what the state knows better: all that is applied is
// committed, and the members are those at the applied index.
type storage struct {
	*raftlog.Log
	at     state.Position
	source *source
}

// Snapshot is there when the source has made one: the log holds none.
func (s storage) Snapshot() (*pb.Snapshot, error) { return s.source.snapshot() }

func (s storage) InitialState() (*pb.HardState, *pb.ConfState, error) {
	hard, _, err := s.Log.InitialState()
	if hard != nil && hard.GetCommit() < s.at.Index {
		hard.Commit = new(s.at.Index)
	}
	return hard, s.at.Conf, err
}

// MayCompact ends Options.HoldCompaction.
func (n *Node) MayCompact() { n.compactor.mayCompact() }

// start starts the goroutines. In a group of one it waits until the log is applied.
func (n *Node) start(ctx context.Context) error {
	if !n.opt.HoldCompaction {
		n.MayCompact()
	}
	if soleVoter(n.state.Applied().Conf, n.opt.Member) {
		// There is nobody to hear from first: waiting for an election's timeout
		// would only make each start a second longer. raft refuses if its log says that
		// there are others by now.
		if err := n.stepper.raft.Campaign(); err != nil {
			return err
		}
	}
	zoned := n.stepper.zones.active() // from here on it is the stepper's
	n.end.run(n.stepper.loop)
	n.end.run(n.appender.loop)
	n.end.run(n.applier.loop)
	n.end.run(n.leaser.loop)
	n.end.run(n.hasher.loop)
	alone := false
	if !zoned {
		var err error
		if alone, err = n.applyAlone(ctx, n.stepper.toldOthers); err != nil {
			return err
		}
	}
	if !alone || n.opt.HoldCompaction {
		n.end.run(func() { n.compactor.loop(nil) })
		return nil
	}
	// Each opening begins a segment. Compacting before anything is served keeps
	// their number down, even if this process ends soon, and the next one too.
	first := make(chan struct{})
	n.end.run(func() { n.compactor.loop(first) })
	select {
	case <-first:
	case <-time.After(compactPatience):
	case <-n.end.failed:
		return n.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// applyAlone waits in a group of one until the log is applied. others is closed when it
// turns out that there are other members: the state may be from before they came, and then
// they have to be heard from first, which Open does not wait for.
func (n *Node) applyAlone(within context.Context, others <-chan struct{}) (alone bool, err error) {
	ctx, cancel := context.WithCancel(within)
	done := make(chan error, 1)
	go func() { done <- n.readers.settle(ctx, Consistent) }()
	select {
	case err = <-done:
		cancel()
		return err == nil, err
	case <-others:
		cancel()
		<-done
		return false, nil
	}
}

// onFull notes that Pebble waits for room. Close does not wait for that: the log
// has all that the state lacks.
func (n *Node) onFull(err error) {
	n.full.Store(true)
	n.opt.OnFull(err)
	select {
	case <-n.end.stop:
		n.state.state().Abandon()
	default:
	}
}

// onFailure tells everybody who waits. What was proposed may be in the log, or may
// not, and only the next opening finds out.
func (n *Node) onFailure(err error) {
	n.leading.Store(false)
	n.proposals.drop(fmt.Errorf("%w: %w", ErrUnknownOutcome, err))
	n.opt.Logger.Error("arakoon node has failed", slog.Any("error", err))
	n.opt.OnFailure(err)
}

// Err is why the node has failed, ErrClosed, or nil.
func (n *Node) Err() error { return n.end.err() }

// Failed is closed when the node has failed.
func (n *Node) Failed() <-chan struct{} { return n.end.failed }

// Leading says whether this member believes that it leads.
func (n *Node) Leading() bool { return n.leading.Load() }

// Applied is the index up to which the log is applied.
func (n *Node) Applied() uint64 {
	index, _ := n.progress.now()
	return index
}

// Stats are figures of a node.
type Stats struct {
	Applied       uint64
	Syncs         uint64 // of the log
	Proposals     int    // under way
	ProposalBytes int64
	Reads         int    // waiting for their index
	Full          bool   // the state waits for room on the disk, or the log for whatever it lacks
	Dropped       uint64 // messages of others that were not taken, see Step
}

// Stats returns the figures as they are now.
func (n *Node) Stats() Stats {
	s := Stats{Applied: n.Applied(), Syncs: n.log.Syncs(), Reads: n.readers.count(), Dropped: n.inbox.dropped.Load()}
	s.Full = n.full.Load() || n.incoming.full.Load() || n.appender.stalled.Load() != nil
	s.Proposals, s.ProposalBytes = n.proposals.usage()
	return s
}

// Checkpoint makes a directory, which must be absent, hold a copy of the state.
func (n *Node) Checkpoint(dir string) error {
	release, err := n.end.hold()
	if err != nil {
		return err
	}
	defer release()
	return n.state.Checkpoint(dir)
}

// Close stops the node. What waits gets ErrUnknownOutcome. The error is why
// the node had failed, or what failed in closing.
func (n *Node) Close() (err error) {
	n.closing.Do(func() {
		err = n.end.begin()
		if s := n.state.state(); n.full.Load() && s != nil {
			s.Abandon()
		}
		n.end.running.Wait()
		n.leading.Store(false)
		n.proposals.drop(fmt.Errorf("%w: %w", ErrUnknownOutcome, ErrClosed))
		e := n.closeStores()
		// On a full disk the state could not be flushed. The log has what it lacks,
		// so nothing has failed.
		if err == nil && !n.full.Load() {
			err = e
		}
	})
	return err
}

// closeState flushes the state, unless nobody has said that these are the newest
// files (Options.HoldCompaction): what an older log was applied to would not fit
// the newest one, should that be put back.
func (n *Node) closeState(s *state.State) error {
	if !n.compactor.may() {
		return s.Leave()
	}
	err := s.Close()
	if err == nil && n.log != nil {
		n.log.StateDurable(s.Durable().Index)
	}
	return err
}

func (n *Node) closeStores() error {
	var errs []error
	if s := n.state.state(); s != nil {
		n.hasher.drop()
		errs = append(errs, n.closeState(s))
	}
	if n.log != nil {
		errs = append(errs, n.log.Close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}
