package arakoon

import (
	"log/slog"
	"path"
	"time"

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

// Transport carries messages to other members. Send must not block; it may
// lose messages.
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
	Functions        []Function
	Transport        Transport // none: a cluster of one

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

	Group     string               // its name, which backups have; default the last element of Dir
	History   state.HistoryOptions // of events for watchers
	ScanBytes int64                // a second, that a hash or a backup reads; default 64 MiB

	Tick      time.Duration    // heartbeat; an election takes 10; default 100 ms
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
	setDefault(&o.ScanBytes, 64<<20)
	setDefault(&o.Group, path.Base(o.Dir))
	setDefault(&o.Tick, 100*time.Millisecond)
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

func setDefault[T int | int64 | string | time.Duration](v *T, d T) {
	if *v == *new(T) {
		*v = d
	}
}
