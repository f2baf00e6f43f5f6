package arakoon

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"path"
	"slices"
	"sync"
	"time"

	"openvstorage/arakoon/raftlog"
	"openvstorage/arakoon/state"
	"openvstorage/internal/disk"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Bounds of the snapshots that a member has made. Times are counted, not read off a clock.
const (
	snapshotsMost = 2                // at once
	unreadMost    = 30 * time.Second // then one that nobody reads is dropped
	followMost    = 5 * time.Minute  // then the log is not held any more for a member that does not move
	makeAgain     = 5 * time.Second  // after one could not be made
	lookEvery     = time.Second      // while there is anything to look at
)

// source makes snapshots for members that need entries which the log has dropped, and holds
// the log behind them until these members have caught up. Several members share one. The
// stepper asks for them, a transport reads them, and a goroutine that runs only while there
// are any drops them.
type source struct {
	fs     disk.FS
	dir    string // checkpoints are made in it
	states *current
	log    *raftlog.Log
	end    *shutdown
	logger *slog.Logger
	work   *queue[any] // for the stepper: snapshotLook, snapshotFailed
	freed  func()      // called when the log may be held for less
	may    func() bool // whether the state may be flushed (Options.HoldCompaction)
	pace   *pace

	mu       sync.Mutex
	made     []*made         // the newest last
	making   bool            // one is being made
	from     *state.Position // the log is held from here meanwhile; nil: it is not
	failed   time.Time       // when one could not be made
	conf     *pb.ConfState   // the members that a snapshot must know of
	changing bool            // they are about to change
	watching bool            // the goroutine runs
	behind   map[uint64]*follower
}

// newSource makes the source of a node whose state is at a position.
func newSource(n *Node, at state.Position) *source {
	return &source{
		fs: n.opt.FS, dir: n.opt.Dir, states: &n.state, log: n.log, end: n.end, logger: n.opt.Logger, work: n.work,
		freed: n.compactor.wake.Ring, may: n.compactor.may, pace: newPace(n), conf: at.Conf, behind: map[uint64]*follower{},
	}
}

// made is a snapshot.
type made struct {
	id    SnapshotID
	dir   string
	at    state.Position
	files []SnapshotFile
	data  []byte // as raft's message has it

	// These are guarded by source.mu.
	read  time.Time // last, or sent
	open  int
	sent  map[uint64]bool // to these members last
	gone  bool            // dropped
	letGo bool            // the log is not held for it any more
}

// follower is a member that got a snapshot and has not caught up.
type follower struct {
	at    state.Position // the log is held from here
	match uint64         // how far its log is
	goal  uint64         // how far this member's was when it was last looked at
	moved time.Time      // when it last got on
}

// snapshotLook has the stepper tell the source how far the members are.
type snapshotLook struct{}

// snapshotFailed has the stepper tell raft that members did not fetch their snapshot.
type snapshotFailed []uint64

// snapshot returns a snapshot, for raft, which asks again later while there is none. It is
// called by the stepper.
func (s *source) snapshot() (*pb.Snapshot, error) {
	first := s.log.Marker().Index
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changing {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	for _, m := range slices.Backward(s.made) {
		if s.fits(m, first) {
			return &pb.Snapshot{Data: m.data, Metadata: &pb.SnapshotMetadata{
				ConfState: cloneConf(m.at.Conf), Index: new(m.at.Index), Term: new(m.at.Term),
			}}, nil
		}
	}
	if !s.making && s.may() && (s.failed.IsZero() || time.Since(s.failed) > makeAgain) && s.room() {
		at := s.states.Applied()
		s.making, s.from = true, &at
		s.end.run(s.make)
	}
	return nil, raft.ErrSnapshotTemporarilyUnavailable
}

// fits reports whether a member can go on from a snapshot: the log leads on from it, and it
// has the members that there are. One that does not know of the receiver is refused there.
func (s *source) fits(m *made, first uint64) bool {
	return m.at.Index >= first && sameConf(m.at.Conf, s.conf)
}

// room reports whether one more snapshot may be made. One that is of no more use to others,
// and that nobody reads, goes for it; that one's members get the new one.
func (s *source) room() bool {
	if len(s.made) < snapshotsMost {
		return true
	}
	for _, m := range s.made {
		if m.open == 0 && time.Since(m.read) > makeAgain {
			s.drop(m)
			return true
		}
	}
	return false
}

// changes says that the members are about to change, and settles with the new ones. raft may
// ask for a snapshot in between, for somebody whom no earlier one knows.
func (s *source) changes(change func() *pb.ConfState) *pb.ConfState {
	s.setChanging(true, nil)
	conf := change()
	s.setChanging(false, conf)
	return conf
}

func (s *source) setChanging(changing bool, conf *pb.ConfState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changing = changing
	if conf != nil {
		s.conf = cloneConf(conf)
	}
}

// make makes a snapshot.
func (s *source) make() {
	m := &made{sent: map[uint64]bool{}}
	_, _ = rand.Read(m.id[:]) // never fails
	m.dir = path.Join(s.dir, checkpointPrefix+m.id.String())
	err := s.build(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.making, s.from, s.failed = false, nil, time.Time{}
	switch {
	case err != nil:
		s.failed = time.Now()
		s.remove(m)
		if s.end.err() == nil {
			s.logger.Error("arakoon node cannot make a snapshot", slog.Any("error", err))
		}
	case !sameConf(m.at.Conf, s.conf):
		s.remove(m) // the members have changed, and raft asks again
	default:
		m.read = time.Now()
		s.made = append(s.made, m)
		s.logger.Info("arakoon node made a snapshot", slog.String("id", m.id.String()), slog.Uint64("index", m.at.Index), slog.Int("files", len(m.files)))
		s.watch()
	}
	s.freed()
}

// build makes the checkpoint, and finds out what is in it.
func (s *source) build(m *made) error {
	if err := s.states.Checkpoint(m.dir); err != nil {
		return err
	}
	names, err := s.fs.ReadDir(m.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		f := SnapshotFile{Name: name}
		if f.Size, f.CRC, err = sumFile(s.fs, path.Join(m.dir, name), func(int) error { return s.end.err() }); err != nil {
			return err
		}
		m.files = append(m.files, f)
	}
	if len(m.files) > snapshotFilesMax {
		return fmt.Errorf("checkpoint %s has %d files, a snapshot has %d at most", m.dir, len(m.files), snapshotFilesMax)
	}
	if m.at, err = state.Peek(state.Options{FS: s.fs, Dir: m.dir}); err != nil {
		return err
	}
	if m.at.Index == 0 {
		return fmt.Errorf("checkpoint %s holds no state", m.dir)
	}
	m.data = appendSnapshotList(nil, m.id, m.files)
	return nil
}

// sumFile returns a file's size and CRC-32C. It calls passed with how many bytes it has read
// since the last call, and ends with the error of that.
func sumFile(fsys disk.FS, name string, passed func(n int) error) (size int64, sum uint32, err error) {
	f, err := fsys.OpenFile(name, 0, 0)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	if size, err = f.Size(); err != nil {
		return 0, 0, err
	}
	b := make([]byte, min(size, 1<<20))
	for off := int64(0); off < size; off += int64(len(b)) {
		b = b[:min(int64(len(b)), size-off)]
		if n, err := f.ReadAt(b, off); n < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, 0, fmt.Errorf("read %s: %w", name, err)
		}
		sum = crc32.Update(sum, castagnoli, b)
		if err := passed(len(b)); err != nil {
			return 0, 0, err
		}
	}
	return size, sum, nil
}

func (s *source) open(id SnapshotID) (*Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.made {
		if m.id == id {
			m.open, m.read = m.open+1, time.Now()
			return &Snapshot{source: s, made: m}, nil
		}
	}
	return nil, fmt.Errorf("%w: %v", ErrNoSnapshot, id)
}

func (s *source) close(m *made) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.open--
}

// touch notes that a snapshot is read, unless it was dropped.
func (s *source) touch(m *made) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.gone {
		return fmt.Errorf("%w: %v was dropped", ErrNoSnapshot, m.id)
	}
	m.read = time.Now()
	return nil
}

// drop drops a snapshot. raft is told of the members that may still wait for it: it looks
// how far each is, and makes another one if that must be.
func (s *source) drop(m *made) {
	m.gone = true
	s.made = slices.DeleteFunc(s.made, func(o *made) bool { return o == m })
	if len(m.sent) > 0 {
		var ids snapshotFailed
		for id := range m.sent {
			ids = append(ids, id)
		}
		s.work.put(ids)
	}
	s.remove(m)
}

// remove removes a checkpoint's files, in the background. What stays there is removed when
// the member is opened again.
func (s *source) remove(m *made) {
	release, err := s.end.hold()
	if err != nil {
		return
	}
	s.end.run(func() {
		if err := s.fs.RemoveAll(m.dir); err != nil {
			s.logger.Warn("arakoon node cannot remove a snapshot", slog.Any("error", err))
		}
	})
	release()
}

func cloneConf(c *pb.ConfState) *pb.ConfState { return proto.Clone(c).(*pb.ConfState) }

// sameConf reports whether two configurations have the same members in the same roles.
func sameConf(a, b *pb.ConfState) bool {
	return slices.Equal(a.GetVoters(), b.GetVoters()) && slices.Equal(a.GetLearners(), b.GetLearners()) &&
		slices.Equal(a.GetVotersOutgoing(), b.GetVotersOutgoing()) && slices.Equal(a.GetLearnersNext(), b.GetLearnersNext()) &&
		a.GetAutoLeave() == b.GetAutoLeave()
}
