package arakoon

import (
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

	"openvstorage/internal/bell"
)

// Node is one member. All methods are safe for concurrent use.
type Node struct {
	opt       Options
	functions *state.Registry
	lock      io.Closer
	log       *raftlog.Log
	state     *state.State
	raft      *raft.RawNode // the loop's
	origin    uint64        // of what this start proposes

	work        *queue[any]         // for the loop: see turn
	appends     *queue[*pb.Message] // for the log
	applies     *queue[*pb.Message] // for the state
	compact     bell.Bell
	compactable chan struct{} // closed when the log may be truncated
	release     sync.Once
	held        uint64 // the last entry that the log held when it was opened

	progress progress
	leading  atomic.Bool
	full     atomic.Bool           // Pebble waits for room
	stalled  atomic.Pointer[error] // why the log waits, nil if it does not
	stop     chan struct{}
	failed   chan struct{}
	running  sync.WaitGroup
	closing  sync.Once

	mu      sync.Mutex
	err     error // ErrFailed, or ErrClosed
	count   int   // proposals under way
	bytes   int64
	reads   int
	batches map[uint64][]*proposal // proposed, by number of the batch
}

// Open opens a member, or makes it. A new one is a cluster of one. It returns
// when the log is applied; a cluster of one then leads.
func Open(opt Options) (*Node, error) {
	opt = opt.withDefaults()
	n := &Node{
		opt: opt, origin: rand.Uint64(),
		work: newQueue[any](), appends: newQueue[*pb.Message](), applies: newQueue[*pb.Message](),
		compactable: make(chan struct{}), stop: make(chan struct{}), failed: make(chan struct{}),
		progress: progress{waiters: map[chan struct{}]uint64{}}, batches: map[uint64][]*proposal{},
	}
	if err := n.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("arakoon: open %s: %w", opt.Dir, err), n.closeStores())
	}
	if err := n.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("arakoon: open %s: %w", opt.Dir, err), n.Close())
	}
	return n, nil
}

func (n *Node) open() (err error) {
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
	begin := raftlog.Marker{Index: 1, Term: 1, Conf: &pb.ConfState{Voters: []uint64{o.Member}}}
	log := raftlog.Options{
		FS: o.FS, Dir: path.Join(o.Dir, "log"), Marks: o.Dir + ".marks", Cluster: o.Cluster, Member: o.Member,
		SegmentBytes: o.SegmentBytes, CacheBytes: o.LogCacheBytes, Life: o.Life, Generation: o.Generation,
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
	of := state.Options{
		FS: o.FS, Dir: path.Join(o.Dir, "state"), Cluster: o.Cluster, Member: o.Member,
		Begin: state.Position(begin), Functions: n.functions, Life: o.Life, Generation: o.Generation,
		CacheBytes: o.StateCacheBytes, MemTableBytes: o.MemTableBytes,
		OnFailure: n.fail, OnFull: n.onFull, OnRoom: func() { n.full.Store(false) },
	}
	if err := n.checkState(of); err != nil {
		return err
	}
	if n.state, err = state.Open(of); err != nil {
		return err
	}
	return n.join()
}

// checkState refuses a state that is behind what was durable, before anything is
// changed in it: Pebble removes tables that its manifest does not know.
func (n *Node) checkState(of state.Options) error {
	if was := n.log.StateWas(); was > 0 {
		return state.CheckReach(of, was)
	}
	return nil
}

// join checks that the log leads on from the state, and makes raft of both.
func (n *Node) join() error {
	at := n.state.Applied()
	last, _ := n.log.LastIndex()
	if m := n.log.Marker(); at.Index < m.Index || at.Index > last {
		return fmt.Errorf("%w: the state is at entry %d, the log holds %d to %d; restore both", ErrFailed, at.Index, m.Index+1, last)
	}
	n.log.StateDurable(at.Index)
	n.progress.index, n.progress.term, n.held = at.Index, at.Term, last
	var err error
	n.raft, err = raft.NewRawNode(&raft.Config{
		ID: n.opt.Member, ElectionTick: 10, HeartbeatTick: 1,
		Storage: storage{n.log, at}, Applied: at.Index, AsyncStorageWrites: true,
		MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: 4 << 20, MaxInflightMsgs: 256, MaxInflightBytes: 64 << 20,
		PreVote: true, CheckQuorum: true, DisableProposalForwarding: true, StepDownOnRemoval: true,
		Logger: logger{n.opt.Logger.With("cluster", n.opt.Cluster, "member", n.opt.Member)},
	})
	return err
}

// storage is the log with what the state knows better: all that is applied is
// committed, and the members are those at the applied index.
type storage struct {
	*raftlog.Log
	at state.Position
}

func (s storage) InitialState() (*pb.HardState, *pb.ConfState, error) {
	hard, _, err := s.Log.InitialState()
	if hard != nil && hard.GetCommit() < s.at.Index {
		hard.Commit = new(s.at.Index)
	}
	return hard, s.at.Conf, err
}

// MayCompact ends Options.HoldCompaction.
func (n *Node) MayCompact() { n.release.Do(func() { close(n.compactable) }) }

func (n *Node) start() error {
	if !n.opt.HoldCompaction {
		n.MayCompact()
	}
	conf := n.state.Applied().Conf
	alone := len(conf.GetVoters()) == 1 && conf.GetVoters()[0] == n.opt.Member && len(conf.GetVotersOutgoing()) == 0
	if alone {
		if err := n.raft.Campaign(); err != nil {
			return err
		}
	}
	for _, run := range []func(){n.loop, n.appendLoop, n.applyLoop} {
		n.running.Go(func() { n.guard(run) })
	}
	if !alone {
		n.running.Go(func() { n.guard(func() { n.compactLoop(nil) }) })
		return nil
	}
	if err := n.replay(); err != nil {
		return err
	}
	if n.opt.HoldCompaction {
		n.running.Go(func() { n.guard(func() { n.compactLoop(nil) }) })
		return nil
	}
	// Each opening begins a segment. Whatever ends this process soon after, as the
	// one before it, the segments do not add up.
	first := make(chan struct{})
	n.running.Go(func() { n.guard(func() { n.compactLoop(first) }) })
	select {
	case <-first:
	case <-time.After(compactPatience):
	case <-n.failed:
		return n.Err()
	}
	return nil
}

// replay waits until all is applied that the log held.
func (n *Node) replay() error {
	// The first entry of its own term says that all before it is applied.
	read := &read{index: make(chan uint64, 1), err: make(chan error, 1)}
	n.work.put(read)
	select {
	case index := <-read.index:
		if c := n.progress.wait(index); c != nil {
			select {
			case <-c:
			case <-n.failed:
				return n.Err()
			}
		}
		return nil
	case err := <-read.err:
		return err
	case <-n.failed:
		return n.Err()
	}
}

// guard turns a panic of raft's, which gives up that way, into a failed node.
func (n *Node) guard(run func()) {
	defer func() {
		if p := recover(); p != nil {
			n.fail(fmt.Errorf("%v", p))
		}
	}()
	run()
}

// onFull notes that Pebble waits for room. Closing does not: the log has all.
func (n *Node) onFull(err error) {
	n.full.Store(true)
	n.opt.OnFull(err)
	select {
	case <-n.stop:
		n.state.Abandon()
	default:
	}
}

// fail ends the node's work; it stays as it is until it is closed.
func (n *Node) fail(err error) {
	n.mu.Lock()
	if n.err != nil {
		n.mu.Unlock()
		return
	}
	n.err = fmt.Errorf("%w: %s: %w", ErrFailed, n.opt.Dir, err)
	err = n.err
	close(n.failed)
	n.mu.Unlock()
	n.leading.Store(false)
	n.drop(fmt.Errorf("%w: %w", ErrUnknownOutcome, err))
	n.opt.Logger.Error("arakoon node has failed", slog.Any("error", err))
	n.opt.OnFailure(err)
}

// Err is why the node has failed, ErrClosed, or nil.
func (n *Node) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

// Failed is closed when the node has failed.
func (n *Node) Failed() <-chan struct{} { return n.failed }

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
	Reads         int
	Full          bool // applying waits for room on the disk, or storing for what it needs
}

// Stats returns the figures as they are now.
func (n *Node) Stats() Stats {
	s := Stats{Applied: n.Applied(), Syncs: n.log.Syncs(), Full: n.full.Load() || n.stalled.Load() != nil}
	n.mu.Lock()
	defer n.mu.Unlock()
	s.Proposals, s.ProposalBytes, s.Reads = n.count, n.bytes, n.reads
	return s
}

// Checkpoint makes a directory, which must be absent, hold a copy of the state.
func (n *Node) Checkpoint(dir string) error {
	if err := n.Err(); err != nil {
		return err
	}
	return n.state.Checkpoint(dir)
}

// Close stops the node. What waits gets ErrUnknownOutcome. The error is why
// the node had failed, or what failed in closing.
func (n *Node) Close() (err error) {
	n.closing.Do(func() {
		n.mu.Lock()
		if n.err == nil {
			n.err = fmt.Errorf("%w: %s", ErrClosed, n.opt.Dir)
		} else {
			err = n.err
		}
		n.mu.Unlock()
		close(n.stop)
		if n.full.Load() {
			n.state.Abandon()
		}
		n.running.Wait()
		n.leading.Store(false)
		n.drop(fmt.Errorf("%w: %w", ErrUnknownOutcome, ErrClosed))
		e := n.closeStores()
		if err == nil && !n.full.Load() {
			err = e
		}
	})
	return err
}

// closeState flushes the state, unless nobody has said that these are the newest
// files (Options.HoldCompaction): what an older log was applied to would not fit
// the newest one, should that be put back.
func (n *Node) closeState() error {
	select {
	case <-n.compactable:
	default:
		return n.state.Leave()
	}
	err := n.state.Close()
	if err == nil && n.log != nil {
		n.log.StateDurable(n.state.Durable().Index)
	}
	return err
}

func (n *Node) closeStores() error {
	var errs []error
	if n.state != nil {
		errs = append(errs, n.closeState())
	}
	if n.log != nil {
		errs = append(errs, n.log.Close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}
