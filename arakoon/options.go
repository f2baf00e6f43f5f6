package arakoon

import (
	"log/slog"
	"path"
	"time"

	"openvstorage/arakoon/raftlog"
	"openvstorage/arakoon/state"
	"openvstorage/internal/disk"

	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Types of the state machine that users of a node need.
type (
	Sequence = state.Sequence
	Result   = state.Result
	Function = state.Function
	Tx       = state.Tx
	Error    = state.Error
	Lease    = state.Lease
	Event    = state.Event
	Events   = state.Events

	ErrCompacted = state.ErrCompacted
	LevelError   = state.LevelError
)

// Transport carries messages to other members. Send must not block; it may lose messages,
// delay them, bring them twice or in another order. The messages share memory with the log:
// nobody may change them.
type Transport interface {
	Send(messages []*pb.Message)
}

// Options for Open. FS, Dir, Cluster and Member must be given; zero values of
// the others get the defaults.
type Options struct {
	FS      disk.FS
	Dir     string // holds log/ and state/; beside it Dir.marks, see package raftlog
	Cluster uuid.UUID
	Member  uint64 // used once in the cluster's life; not 0
	// Life is that of the group, which each recovery raises; 0 takes the life that log
	// and state have. Files of a later life are refused. Generation is the newest of
	// the host. Log and state remember the highest of each that they were told.
	Life, Generation uint64
	// SameLife says that a member that is there must be of that life, if it is not 0: files of
	// an older life are refused too, as those of a member that a recovery has given up.
	SameLife  bool
	Functions []Function
	// Knows makes the member one of an older release, see state.Options; 0: this one.
	Knows     uint32
	Transport Transport // none: a group of one
	Fetcher   Fetcher   // none: snapshots of other members are refused

	// Joining says that this member was added to a group as a learner, under an id that
	// no member of it ever had, or is about to be. A new one then begins with nothing,
	// and without members: it never makes a group of its own, and does not campaign
	// before the group has made it a voter. Without Joining a new member is a group of
	// one: only the very first member of a group is opened so.
	Joining bool
	// Zone tells in which zone a member is, "" if in none; nil: there are no zones. It
	// must be fast, must not block, and may be called at any time. Of this member itself
	// it tells where the process is that it runs in, and is asked once: what the member
	// acknowledges counts for that zone. Of others it is for words alone.
	Zone func(member uint64) string
	// SyncPatience is for how long a group with one voter waits for a learner that was in
	// sync, before it goes on without it; below 0 for ever. 0: no learner is kept in sync,
	// which must not change to and fro, as a learner would not know.
	SyncPatience time.Duration
	// Preferred are the masters that are preferred, all alike: a leader that is none of
	// them gives the lead to one that was heard from and had caught up for 20 times
	// Tick, and tries that ever more rarely where it gets the lead back soon.
	Preferred []uint64
	// Forced says that no other than a preferred master may lead, once one of them is a
	// voter. While all of them are away the group serves no writes and no consistent
	// reads. Another member stands in meanwhile: it brings them up to date when they
	// come, and takes no requests.
	Forced bool

	// Existing says that this member was made before. If its log is missing, Open
	// fails with ErrMissing and makes nothing (rule P8).
	Existing bool

	Proposals     int   // waiting or under way, then ErrBusy; default 4096
	ProposalBytes int64 // of those; default 64 MiB
	Reads         int   // waiting for their index, then ErrBusy; default 16384
	EntryBytes    int   // about how much is harvested into an entry; default 1 MiB

	SegmentBytes  int64 // of the log; default 64 MiB
	LogCacheBytes int   // entries kept in memory; default 16 MiB
	// HoldCompaction keeps the log from being truncated, and the state from being
	// flushed for that, until Node.MayCompact is called. It is for a caller that still
	// has to find out whether these are the newest files: older ones must stay as they
	// are, so that newer ones can be put back.
	HoldCompaction  bool
	CompactBytes    int64  // the log is truncated when more than this lies behind; default 64 MiB
	StateCacheBytes int64  // default 16 MiB
	MemTableBytes   uint64 // default 16 MiB, up to four of them

	// SnapshotBytesPerSecond bounds what is read of this member's snapshots, by all who
	// read together; default 200 MB/s, below 0 unbounded. SnapshotBusyBytesPerSecond is the
	// bound while writes or consistent reads are under way at this member, so that serving
	// goes on beside: whoever fetches takes CPU and disk from others too. Default 40 MB/s,
	// or SnapshotBytesPerSecond if that is less; below 0 unbounded.
	SnapshotBytesPerSecond, SnapshotBusyBytesPerSecond int64
	// HoldBytes is how much more of the log is kept for members that catch up by a
	// snapshot, in bytes of segment files; then they need another one. Default 4 GiB.
	HoldBytes int64

	Group     string               // its name, which backups have; default the last element of Dir
	History   state.HistoryOptions // of events for watchers
	ScanBytes int64                // a second, that a hash or a backup reads; default 64 MiB

	Tick time.Duration // heartbeat; an election begins after 4 to 7 without one; default 100 ms
	// Beat is a moment from which the ticks are whole numbers of ticks away, before or
	// behind it. Nodes of a process that share one wake the process up together, so that
	// many of them cost little more than one while they are idle. Default: when the node is
	// opened.
	Beat      time.Time
	Now       func() time.Time // the proposer's time; default time.Now
	Logger    *slog.Logger
	OnFailure func(error) // called once when the node has failed; must not block
	// OnFull is called again and again while the node waits for room. It must not
	// block. A receiver that can free some room should do so.
	OnFull func(error)
}

func (o Options) withDefaults() Options {
	setDefault(&o.Proposals, 4096)
	setDefault(&o.ProposalBytes, 64<<20)
	setDefault(&o.Reads, 16384)
	setDefault(&o.EntryBytes, 1<<20)
	setDefault(&o.SegmentBytes, 64<<20)
	setDefault(&o.CompactBytes, 64<<20)
	setDefault(&o.SnapshotBytesPerSecond, 200_000_000)
	busy := int64(40_000_000)
	if o.SnapshotBytesPerSecond > 0 {
		busy = min(busy, o.SnapshotBytesPerSecond)
	}
	setDefault(&o.SnapshotBusyBytesPerSecond, busy)
	setDefault(&o.HoldBytes, 4<<30)
	setDefault(&o.ScanBytes, 64<<20)
	setDefault(&o.Group, path.Base(o.Dir))
	setDefault(&o.Tick, 100*time.Millisecond)
	if o.Beat.IsZero() {
		o.Beat = time.Now()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnFailure == nil {
		o.OnFailure = func(error) {}
	}
	if o.OnFull == nil {
		o.OnFull = func(error) {}
	}
	return o
}

// begin is where log and state of a new member begin. Index 1 of term 1 stands for the
// empty state in every group; the very first member is the only one there. A group that is
// made of a backup must begin behind it.
func (o Options) begin() raftlog.Marker {
	m := raftlog.Marker{Index: 1, Term: 1, Conf: &pb.ConfState{}}
	if !o.Joining {
		m.Conf.Voters = []uint64{o.Member}
	}
	return m
}

func setDefault[T int | int64 | string | time.Duration](v *T, d T) {
	if *v == *new(T) {
		*v = d
	}
}
