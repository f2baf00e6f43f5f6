package raftlog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"openvstorage/internal/disk"
	"openvstorage/internal/wal"

	"github.com/google/uuid"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Errors that callers match with errors.Is.
var (
	// ErrDamaged: records that had been synced cannot be read back. The log does not
	// open.
	ErrDamaged = errors.New("raft log damaged")
	// ErrMissing: there is no log, and there must be one.
	ErrMissing = errors.New("raft log missing")
	// ErrIdentity: the log is another cluster's or member's.
	ErrIdentity = errors.New("raft log is another member's")
	// ErrFailed: records could be written neither to the current segment nor to a new
	// one. Nothing more is appended until the log is opened again (rule P6).
	ErrFailed = errors.New("raft log has failed and must be opened again")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("raft log closed")
)

// Options for Open. FS, Dir, Cluster and Member must be given; zero values of
// the others get the defaults.
type Options struct {
	FS      disk.FS
	Dir     string
	Cluster uuid.UUID
	Member  uint64
	// Begin is the marker that a new log begins with. A Begin without Conf says that
	// there must be a log: Open makes none, and reports ErrMissing.
	Begin Marker
	// Marks is the file that says how far the log reaches. It lies outside of Dir, in
	// a directory that exists; default Dir + ".marks".
	Marks string

	SegmentBytes int64 // default 64 MiB
	CacheBytes   int   // newest entries kept in memory; default 16 MiB

	// Life is that of the group; 0 takes the life that the log has. A log of a later
	// life is refused. Generation is the newest of the host. The log keeps the highest
	// of each.
	Life, Generation uint64
	// SameLife refuses a log of an older life than Life too, instead of raising it.
	SameLife bool
}

func (o Options) withDefaults() Options {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 64 << 20
	}
	o.SegmentBytes = min(max(roundUp(o.SegmentBytes), 4*blockSize), SegmentMax)
	if o.Marks == "" {
		o.Marks = o.Dir + ".marks"
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	return o
}

// Log is an open log. Its methods are safe for concurrent use; one append is made at a
// time.
type Log struct {
	opt Options

	w       turn     // held while appending and compacting
	current *segment // the newest
	pos     int64    // in current: where the next record goes
	seq     uint64   // of the last record
	durable uint64   // highest seq whose sync has returned
	buf     []byte
	broken  bool  // a write or a sync of current failed: nothing more is appended to it
	unnamed bool  // changes of names are not synced: the spare may still have its old name, and must not be written
	err     error // what made the log fail
	syncs   atomic.Uint64
	begun   atomic.Uint64 // segments

	life, generation uint64 // of the segments to come

	marks       disk.File
	marksBroken bool // a write or a sync of marks failed: the next segment makes another file
	markBuf     []byte

	stateDurable uint64 // as the marks say

	// restart is what the next segment begins with instead of what the log has; set
	// while Reset runs.
	restart *restart

	// unsure is a segment that may have its name, but was given up.
	unsure struct{ number, incarnation uint64 }

	spare    spare
	preparer sync.WaitGroup

	mu       sync.RWMutex // guards what raft reads; never held while writing
	index    index
	tail     tail
	hard     *pb.HardState
	segments map[uint64]*segment
}

var _ raft.Storage = (*Log)(nil)

// Round is what one message of raft asks to be stored. The log keeps the entries, which
// must not be changed afterwards.
type Round struct {
	Entries   []*pb.Entry
	HardState *pb.HardState // nil or empty: as it was
}

// recordMax is about how long a record of several entries gets.
const recordMax = 1 << 20

// EntryMax is the longest data of an entry in bytes.
const EntryMax = wal.BodyMax - entriesHead - entryHead

// split cuts entries into parts of one record each.
func split(entries []*pb.Entry) (parts [][]*pb.Entry) {
	for len(entries) > 0 {
		n, size := 1, entrySize(entries[0])
		for n < len(entries) && size+entrySize(entries[n]) <= recordMax {
			size += entrySize(entries[n])
			n++
		}
		parts = append(parts, entries[:n])
		entries = entries[n:]
	}
	return parts
}

func bodySize(entries []*pb.Entry) int {
	size := entriesHead
	for _, e := range entries {
		size += entrySize(e)
	}
	return size
}

// Append stores rounds in order, with one write and one sync. When it returns nil all of
// them are durable. After an error none of them may be taken for stored. If Err is nil
// after that error, and the cause passes (no room, no descriptor), a new segment could not
// be begun, and the rounds may be appended again.
func (l *Log) Append(rounds ...Round) error {
	l.w.Lock()
	defer l.w.Unlock()
	records := make([]record, 0, 2*len(rounds))
	for _, r := range rounds {
		for _, part := range split(r.Entries) {
			if bodySize(part) > wal.BodyMax {
				return fmt.Errorf("raftlog: append to %s: entry %d of %d bytes, the limit is %d", l.opt.Dir, part[0].GetIndex(), len(part[0].Data), EntryMax)
			}
			records = append(records, record{kind: kindEntries, entries: part})
		}
		if !raft.IsEmptyHardState(r.HardState) {
			records = append(records, record{kind: kindHardState, hard: r.HardState})
		}
	}
	return l.append(records)
}

// record is a record to be written.
type record struct {
	kind    uint16
	flags   uint16
	entries []*pb.Entry
	hard    *pb.HardState
	marker  *Marker
	body    []byte // of another kind
}

func (r record) size() int {
	switch r.kind {
	case kindEntries:
		return wal.Size(bodySize(r.entries))
	case kindHardState:
		return wal.Size(24)
	case kindMarker:
		return wal.Size(len(appendMarker(nil, *r.marker)))
	}
	return wal.Size(len(r.body))
}

func (r record) appendBody(dst []byte) []byte {
	switch r.kind {
	case kindEntries:
		return appendEntries(dst, r.entries)
	case kindHardState:
		return appendHardState(dst, r.hard)
	case kindMarker:
		return appendMarker(dst, *r.marker)
	}
	return append(dst, r.body...)
}

func (l *Log) append(records []record) error {
	if l.err != nil {
		return l.err
	}
	if len(records) == 0 {
		return nil
	}
	size := int64(0)
	for _, r := range records {
		size += int64(r.size())
	}
	if l.broken || roundUp(l.pos+size) > l.current.size {
		return l.roll(records)
	}
	start := l.pos
	places := l.encode(records, l.current, start)
	if err := l.write(l.current, start); err != nil {
		// P6: nothing more goes to this file, and what the sync was to make
		// durable counts as lost. The records are at hand: they are written once
		// more, elsewhere. Where the next segment begins this one ends, whatever
		// of the records it has.
		l.broken = true
		if again := l.roll(records); again != nil {
			return fmt.Errorf("%w (after %v)", again, err)
		}
		return nil
	}
	l.wrote(start, len(records))
	l.publish(records, places)
	l.leaveMark()
	l.markOutside()
	l.prepareSpare()
	return nil
}

// encode puts the records and the padding into l.buf.
func (l *Log) encode(records []record, s *segment, at int64) []place {
	places := make([]place, len(records))
	l.buf = l.buf[:0]
	var body []byte
	for i, r := range records {
		body = r.appendBody(body[:0])
		off := at + int64(len(l.buf))
		l.buf = wal.Append(l.buf, s.incarnation, wal.Record{Seq: l.seq + 1 + uint64(i), Durable: l.durable, Kind: r.kind, Flags: r.flags, Body: body})
		places[i] = place{s.number, off, wal.Size(len(body))}
	}
	end := at + int64(len(l.buf))
	l.buf = append(l.buf, make([]byte, roundUp(end)-end)...)
	return places
}

// write writes and syncs l.buf.
func (l *Log) write(s *segment, at int64) error {
	_, err := s.file.WriteAt(l.buf, at)
	if err == nil {
		l.syncs.Add(1)
		err = s.file.Datasync()
	}
	if err != nil {
		return fmt.Errorf("segment %s: %w", s.path, err)
	}
	return nil
}

// wrote notes that l.buf, with n records, is durable in the current segment. An unusually
// large buffer is not kept.
func (l *Log) wrote(at int64, n int) {
	l.pos = at + int64(len(l.buf))
	l.seq += uint64(n)
	l.durable = l.seq
	if cap(l.buf) > 2*recordMax {
		l.buf = nil
	}
}

func (l *Log) fail(err error) error {
	if l.err == nil {
		l.err = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return l.err
}

// keepHard copies a hard state, which stays the caller's, into that of the log, which nobody
// else has: InitialState gives copies. It comes with every write, so it allocates only once.
func keepHard(own, h *pb.HardState) *pb.HardState {
	if own == nil || own.Term == nil || own.Vote == nil || own.Commit == nil {
		own = &pb.HardState{Term: new(uint64), Vote: new(uint64), Commit: new(uint64)}
	}
	*own.Term, *own.Vote, *own.Commit = h.GetTerm(), h.GetVote(), h.GetCommit()
	return own
}

// publish shows raft what is durable now.
func (l *Log) publish(records []record, places []place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, r := range records {
		switch r.kind {
		case kindEntries:
			l.index.add(r.entries, places[i])
			l.tail.add(r.entries)
		case kindHardState:
			l.hard = keepHard(l.hard, r.hard)
		case kindMarker:
			l.index.mark(*r.marker)
			if r.marker.reset {
				l.tail.clear()
			}
			l.tail.behind(r.marker.Index)
		}
	}
}

// leaveMark writes, without a sync, that all before the mark is durable. A log without the
// mark is valid too: bad records at its end then count as never synced.
func (l *Log) leaveMark() {
	if l.pos+blockSize > l.current.size {
		return
	}
	block := wal.Append(nil, l.current.incarnation, wal.Record{Seq: l.seq + 1, Durable: l.durable, Kind: kindMark})
	n := int64(len(block))
	block = append(block, make([]byte, blockSize-n)...)
	if _, err := l.current.file.WriteAt(block, l.pos); err != nil {
		l.broken = true // the records are durable; the next go to another segment
		return
	}
	l.seq++
	l.pos += n
}

// Compact drops the entries up to an index. Their effects must be durable elsewhere; conf
// are the members at that index. Segments that hold no other entries are used again or
// removed.
func (l *Log) Compact(index uint64, conf *pb.ConfState) error {
	l.w.Lock()
	defer l.w.Unlock()
	l.mu.RLock()
	term, err := l.index.term(index)
	same := index == l.index.marker.Index
	l.mu.RUnlock()
	if same || errors.Is(err, raft.ErrCompacted) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("raftlog: compact %s behind %d: %w", l.opt.Dir, index, err)
	}
	m := Marker{Index: index, Term: term, Conf: proto.Clone(conf).(*pb.ConfState)}
	if err := l.append([]record{{kind: kindMarker, marker: &m}}); err != nil {
		return err
	}
	l.mu.Lock()
	gone := takeBefore(l.segments, l.index.oldest(l.current.number))
	l.mu.Unlock()
	return l.recycle(gone)
}

// takeBefore takes the segments before one out of a log's, oldest first.
func takeBefore(segments map[uint64]*segment, keep uint64) (gone []*segment) {
	for _, n := range slices.Sorted(maps.Keys(segments)) {
		if n < keep {
			gone = append(gone, segments[n])
			delete(segments, n)
		}
	}
	return gone
}

// Behind is how many bytes of segment files Compact(index) would free.
func (l *Log) Behind(index uint64) (bytes int64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	keep := ^uint64(0)
	for n := range l.segments {
		if keep == ^uint64(0) || n > keep {
			keep = n // the newest stays
		}
	}
	if len(l.index.parts) > 0 && index < l.index.last() {
		keep = min(keep, l.index.find(max(index+1, l.index.first())).segment)
	}
	for n, s := range l.segments {
		if n < keep {
			bytes += s.size
		}
	}
	return bytes
}

// Size is how many bytes the segment files of a log have.
func Size(l *Log) (bytes int64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.segments {
		bytes += s.size
	}
	return bytes
}

// Syncs is how many rounds were made durable.
func (l *Log) Syncs() uint64 { return l.syncs.Load() }

// Begun is how many segments this opening of the log has begun.
func (l *Log) Begun() uint64 { return l.begun.Load() }

// Err is what made the log fail, or nil.
func (l *Log) Err() error {
	l.w.Lock()
	defer l.w.Unlock()
	return l.err
}

// Close closes the files. All that was appended is durable already.
func (l *Log) Close() error {
	l.w.Lock()
	defer l.w.Unlock()
	if errors.Is(l.err, ErrClosed) {
		return nil
	}
	l.err = fmt.Errorf("%w: %s", ErrClosed, l.opt.Dir)
	l.preparer.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, s := range l.segments {
		errs = append(errs, s.file.Close())
	}
	if f := l.spare.take(); f != nil {
		errs = append(errs, f.Close())
	}
	return errors.Join(append(errs, l.marks.Close())...)
}
