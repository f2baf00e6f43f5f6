package state

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"sync/atomic"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/pebblefs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Errors that callers match with errors.Is.
var (
	// ErrIdentity: the state is another cluster's or member's.
	ErrIdentity = errors.New("state is another member's")
	// ErrStopped: the member met an entry that it cannot apply and must not skip, or
	// its disk failed. Nothing more is applied until the state is opened again.
	ErrStopped = errors.New("state has stopped")
	// ErrDamaged: files of the state are missing, or it ends earlier than it did.
	ErrDamaged = errors.New("state is damaged")
)

// Options for Open. FS, Dir, Cluster, Member and Begin must be given; zero
// values of the others get the defaults.
type Options struct {
	FS      disk.FS
	Dir     string
	Cluster uuid.UUID
	Member  uint64
	Begin   Position // of a new state

	// Life is that of the group; 0 takes the life that the state has. A state of a
	// later life is refused. Generation is the newest of the host. From its next change
	// on the state keeps the highest of each.
	Life, Generation uint64

	Functions *Registry // default none
	// Knows makes the state one of an older release, which knows no higher level and none of
	// the steps that came with it; 0: LevelNewest. It is for tests of groups whose members run
	// different releases.
	Knows uint32

	CacheBytes    int64  // Pebble's block cache; default 16 MiB
	MemTableBytes uint64 // default 16 MiB; up to four of them
	OpenFiles     int    // default 64

	// OnFailure is called once if the disk fails, and the state has stopped then.
	// OnFull is called while the disk is full, and OnRoom when it no longer is:
	// meanwhile flushes wait, and Apply behind them. None of them may block.
	OnFailure func(error)
	OnFull    func(error)
	OnRoom    func()

	// History takes what changes for those who watch; nil: nobody can. It may outlive the
	// state, and be given to the next one.
	History *History
	// OnMark is given an image of the state at the index of each entry with a mark (package
	// doc), and must see to it that the image is closed. It must not block. Nil: no images.
	OnMark func(*Image)
}

func (o Options) withDefaults() Options {
	if o.Functions == nil {
		o.Functions = &Registry{}
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 16 << 20
	}
	if o.OpenFiles == 0 {
		o.OpenFiles = 64
	}
	return o
}

// State is an open state machine. One goroutine calls Apply; the other methods may be
// called at any time until Close.
type State struct {
	opt      Options
	fs       *pebblefs.FS
	db       *pebble.DB
	sessions *sessions // Apply's
	recent   *recent   // Apply's
	writes   writes    // Apply's
	only     uint64    // Apply's: outcomes of other origins are not kept; 0: all are
	leases   leases

	sessionCount atomic.Int64 // of sessions, for whoever looks

	mu      sync.Mutex
	meta    meta              // as committed
	gone    map[uint64]uint64 // members that were removed, and the entry that did it
	durable Position
	err     error
}

// Open opens or makes the state in a directory.
func Open(opt Options) (*State, error) { return OpenWithin(context.Background(), opt) }

// OpenWithin is Open that can be cancelled while it waits for room on the disk. The state
// does not depend on ctx once it is open.
func OpenWithin(ctx context.Context, opt Options) (*State, error) {
	opt = opt.withDefaults()
	s := &State{opt: opt, recent: new(recent)}
	s.fs = pebblefs.New(opt.FS, pebblefs.Options{OnFull: opt.OnFull, OnRoom: opt.OnRoom, OnFailure: s.diskFailed})
	stop := context.AfterFunc(ctx, s.fs.Abandon)
	err := s.open()
	if !stop() {
		err = ctx.Err() // what reported success after that has done nothing
	}
	if err != nil {
		if s.db != nil {
			err = errors.Join(err, s.fs.Close(s.db))
		}
		return nil, fmt.Errorf("arakoon state: open %s: %w", opt.Dir, err)
	}
	return s, nil
}

// diskFailed lets Pebble go on as if nothing were wrong, as it would end the process
// otherwise. What it reports from here on counts for nothing.
func (s *State) diskFailed(err error) {
	s.fs.Abandon()
	if s.opt.OnFailure != nil {
		s.opt.OnFailure(err)
	}
}

func (s *State) open() error {
	if err := s.opt.FS.MkdirAll(s.opt.Dir, 0o700); err != nil {
		return err
	}
	if err := s.opt.FS.SyncDir(path.Dir(s.opt.Dir)); err != nil {
		return err
	}
	po, done := s.opt.pebble(s.fs)
	defer done()
	if err := checkMarker(s.fs, s.opt.Dir); err != nil {
		return err
	}
	if err := dropBadOptions(s.fs, s.opt.Dir, po); err != nil {
		return err
	}
	db, err := pebblefs.Open(s.opt.Dir, po)
	if err != nil {
		return err
	}
	s.db = db
	v, found, err := get(db, metaKey)
	if err != nil {
		return err
	}
	s.meta = meta{cluster: s.opt.Cluster, member: s.opt.Member, at: s.opt.Begin, level: LevelFirst}
	if found {
		if s.meta, err = decodeMeta(v); err != nil {
			return err
		}
	}
	if err := s.opt.mayOpen(s.meta); err != nil {
		return err
	}
	if s.meta.cluster != s.opt.Cluster || s.meta.member != s.opt.Member {
		return fmt.Errorf("%w: it is member %d of cluster %v, not member %d of %v", ErrIdentity, s.meta.member, s.meta.cluster, s.opt.Member, s.opt.Cluster)
	}
	if was := s.meta.life; s.opt.Life != 0 && was > s.opt.Life {
		return fmt.Errorf("%w: it is of life %d, and is to be opened as of life %d, which is older", ErrIdentity, was, s.opt.Life)
	}
	s.meta.life, s.meta.generation = max(s.meta.life, s.opt.Life), max(s.meta.generation, s.opt.Generation)
	s.durable = s.meta.at
	if s.meta.zones, err = loadRequirement(db); err != nil {
		return err
	}
	if s.gone, err = loadGone(db); err != nil {
		return err
	}
	if s.sessions, err = loadSessions(db); err != nil {
		return err
	}
	s.sessionCount.Store(int64(s.sessions.order.Len()))
	if err := s.leases.load(db, s.meta.leases); err != nil {
		return err
	}
	s.opt.History.Reset(s.meta.at.Index)
	return nil
}

// pebble are the options of Pebble. done releases what they hold.
func (o Options) pebble(fs vfs.FS) (po *pebble.Options, done func()) {
	// Pebble takes its memtables out of the cache's size: with the active one
	// and one that is being flushed, CacheBytes must be left.
	cache := pebble.NewCache(o.CacheBytes + 2*int64(o.MemTableBytes))
	po = &pebble.Options{
		FS:                          fs,
		Cache:                       cache,
		DisableWAL:                  true,
		FormatMajorVersion:          pebblefs.Format,
		MemTableSize:                o.MemTableBytes,
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                o.OpenFiles,
		MaxManifestFileSize:         1 << 20,
		Logger:                      quiet{},
		// Damaged data fails the read that meets it, and nothing else.
		EventListener: &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}},
	}
	for i := range po.Levels {
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return po, cache.Unref
}

// quiet drops Pebble's messages. A fatal one does not occur: pebblefs withholds from
// Pebble the errors that lead to one.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("arakoon state: "+format, args...))
}

// Applied is how far the log is applied.
func (s *State) Applied() Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meta.at
}

// Durable is what the last flush made durable.
func (s *State) Durable() Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable
}

// Err is why the state has stopped, or nil.
func (s *State) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped()
}

// stopped is why the state has stopped, nil if it has not; mu is held.
func (s *State) stopped() error {
	if s.err == nil {
		if err := s.fs.Err(); err != nil {
			s.err = fmt.Errorf("%w: %s: %w", ErrStopped, s.opt.Dir, err)
		}
	}
	return s.err
}

func (s *State) stop(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped() == nil {
		s.err = fmt.Errorf("%w: %s: %w", ErrStopped, s.opt.Dir, err)
	}
	return s.err
}

// Flush makes all that is applied durable, and returns how far that is: the log may be
// truncated up to there. It waits while the disk is full.
func (s *State) Flush() (Position, error) {
	s.mu.Lock()
	at, err := s.meta.at, s.stopped()
	s.mu.Unlock()
	if err != nil {
		return Position{}, err
	}
	if err := s.fs.Flush(s.db); err != nil {
		return Position{}, s.stop(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.Index > s.durable.Index {
		s.durable = at
	}
	return s.durable, nil
}

// Checkpoint makes a directory, which must be absent, hold the state as of now
// or a little later, sharing files with this one. It opens like the state.
func (s *State) Checkpoint(dir string) error {
	if _, err := s.Flush(); err != nil {
		return err
	}
	err := s.db.Checkpoint(dir)
	if err == nil {
		err = s.Err()
	}
	if err != nil {
		return fmt.Errorf("arakoon state: checkpoint of %s in %s: %w", s.opt.Dir, dir, err)
	}
	return nil
}

// Abandon gives the state up, so that it can be closed while the disk is full. Calls that
// wait for room return as if they had succeeded, and nothing more is written.
func (s *State) Abandon() { s.fs.Abandon() }

// Close flushes what can be flushed, and closes the state. The log holds what was not
// flushed. No other method may be running.
func (s *State) Close() error {
	_, err := s.Flush()
	return s.close(err)
}

// Leave closes the state without a flush: its files stay as they are.
func (s *State) Leave() error { return s.close(nil) }

func (s *State) close(err error) error {
	if e := s.fs.Close(s.db); err == nil {
		err = e
	}
	return err
}

// Get returns a key's value as it is now.
func (s *State) Get(key []byte) (value []byte, found bool, err error) {
	if err := s.Err(); err != nil {
		return nil, false, err
	}
	return get(s.db, userKey(key))
}

// MultiGet returns the values of keys at one moment; nil for those absent. It returns an
// *Error with CodeTooLarge if the values have more than MultiGetMax bytes together.
func (s *State) MultiGet(keys [][]byte) ([][]byte, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	values := make([][]byte, len(keys))
	var err error
	switch len(keys) {
	case 0:
	case 1:
		values[0], _, err = get(s.db, userKey(keys[0]))
	default:
		err = lookUp(s.db, keys, values)
	}
	if err != nil {
		return nil, err
	}
	return values, nil
}

// Range calls fn with the keys in [first, last) as they are at one moment, descending if
// reverse is set, until fn returns false. A last of nil means to the end.
func (s *State) Range(first, last []byte, reverse bool, fn func(key, value []byte) bool) error {
	if err := s.Err(); err != nil {
		return err
	}
	return scan(s.db, first, last, reverse, fn)
}

// Visible is the index of the last entry whose effects can be seen. It is read from the store
// itself: what a call that has ended has seen is no newer, although Applied may lag behind
// it for a moment.
func (s *State) Visible() (uint64, error) {
	if err := s.Err(); err != nil {
		return 0, err
	}
	v, found, err := get(s.db, metaKey)
	if err != nil || !found {
		return s.Applied().Index, err // nothing was applied yet
	}
	m, err := decodeMeta(v)
	return m.at.Index, err
}

// Scan is Range whose slices are valid during the call of fn only.
func (s *State) Scan(first, last []byte, reverse bool, fn func(key, value []byte) bool) error {
	if err := s.Err(); err != nil {
		return err
	}
	return visit(s.db, first, last, reverse, fn)
}

// Has says whether a key is there now.
func (s *State) Has(key []byte) (bool, error) {
	if err := s.Err(); err != nil {
		return false, err
	}
	_, closer, err := s.db.Get(userKey(key))
	if err == pebble.ErrNotFound {
		return false, nil
	}
	if err != nil {
		return false, damaged(err)
	}
	return true, closer.Close()
}

// PrefixEnd is the first key behind all that have a prefix, nil if there is none.
func PrefixEnd(prefix []byte) []byte { return prefixEnd(prefix) }

func cloneConf(c *pb.ConfState) *pb.ConfState { return proto.Clone(c).(*pb.ConfState) }
