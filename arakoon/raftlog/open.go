package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"

	"openvstorage/internal/format"
	"openvstorage/internal/wal"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Open opens the log in a directory, or makes it there. Records that a power cut may have
// left half written are cut off. Bad records that had been synced are refused with
// ErrDamaged. The caller locks the directory: one process at a time may have it open.
func Open(opt Options) (*Log, error) {
	opt = opt.withDefaults()
	l := &Log{opt: opt, w: newTurn(), spare: spare{mu: newTurn()}, segments: map[uint64]*segment{}, tail: tail{limit: opt.CacheBytes}, life: opt.Life, generation: opt.Generation}
	if err := l.open(); err != nil {
		for _, s := range l.segments {
			err = errors.Join(err, s.file.Close())
		}
		if l.marks != nil {
			err = errors.Join(err, l.marks.Close())
		}
		l.preparer.Wait()
		return nil, fmt.Errorf("raftlog: open %s: %w", opt.Dir, err)
	}
	return l, nil
}

func (l *Log) open() error {
	numbers, err := listSegments(l.opt.FS, l.opt.Dir)
	if err != nil {
		return err
	}
	if len(numbers) == 0 {
		return l.create()
	}
	rest, last, err := l.recover(numbers)
	if err != nil {
		return err
	}
	if err := l.comeTo(l.current); err != nil {
		return err
	}
	notes, err := l.openMarks(l.current.version > 1)
	if err != nil {
		return err
	}
	if err := l.checkMarks(notes, l.current, last); err != nil {
		return err
	}
	if err := l.roll(rest); err != nil {
		return err
	}
	if x := &l.index; len(x.parts) > 0 && x.parts[0].first > x.first() {
		return fmt.Errorf("%w: %s: entries %d to %d are missing; restore the directory", ErrDamaged, l.opt.Dir, x.first(), x.parts[0].first-1)
	}
	return nil
}

// comeTo takes life and generation over from the newest segment, unless Options has newer
// ones. The next segment will have them.
func (l *Log) comeTo(newest *segment) error {
	if life := l.opt.Life; life != 0 && newest.life > life {
		return fmt.Errorf("%w: %s is of life %d, and is to be opened as of life %d, which is older", ErrIdentity, newest.path, newest.life, life)
	}
	if life := l.opt.Life; l.opt.SameLife && newest.life < life {
		return fmt.Errorf("%w: %s is of life %d, and a recovery has made life %d of its group, without this member: it is of no use any more; have another member take its place",
			ErrIdentity, newest.path, newest.life, life)
	}
	l.life, l.generation = max(l.life, newest.life), max(l.generation, newest.generation)
	return nil
}

func (l *Log) create() error {
	if l.opt.Begin.Conf == nil {
		return fmt.Errorf("%w: %s holds no segment; restore it", ErrMissing, l.opt.Dir)
	}
	notes, err := l.openMarks(false)
	if err != nil {
		return err
	}
	for _, n := range notes[:stateBlock] {
		if n.number > 0 {
			return fmt.Errorf("%w: %s holds no segment, and by %s there were %d; restore it", ErrMissing, l.opt.Dir, l.opt.Marks, n.number)
		}
	}
	if err := l.opt.FS.MkdirAll(l.opt.Dir, 0o700); err != nil {
		return err
	}
	if err := l.opt.FS.SyncDir(path.Dir(l.opt.Dir)); err != nil {
		return err
	}
	l.index.marker = l.opt.Begin
	l.index.marker.Conf = proto.Clone(l.opt.Begin.Conf).(*pb.ConfState)
	return l.roll(nil)
}

// recover reads all segments. It returns the records above the highest durable mark, which
// are to be written again, as nobody knows whether the medium has them; and the seq of the
// last record.
func (l *Log) recover(numbers []uint64) (again []record, last uint64, err error) {
	var buf, next []byte
	s, buf, err := l.opt.readSegment(numbers[0], nil)
	if err != nil {
		return nil, 0, err
	}
	for i := range numbers {
		l.segments[s.number] = s
		var following *segment
		var limit *wal.Head
		if i+1 < len(numbers) {
			if following, next, err = l.opt.readSegment(numbers[i+1], next); err != nil {
				return nil, 0, err
			}
			l.segments[following.number] = following
			if limit, err = firstHead(following, next); err != nil {
				return nil, 0, err
			}
		}
		if again, last, err = l.take(s, buf, limit); err != nil {
			return nil, 0, err
		}
		l.current = s
		s, buf, next = following, next, buf
	}
	return again, last, nil
}

// firstHead is the head of a segment's first record. It must be good: it was synced before
// the segment had its name.
func firstHead(s *segment, b []byte) (*wal.Head, error) {
	if len(b) < blockSize+wal.HeadSize {
		return nil, fmt.Errorf("%w: %s: %d bytes", ErrDamaged, s.path, len(b))
	}
	h, ok, err := wal.DecodeHead(b[blockSize:], s.incarnation)
	if errors.Is(err, format.ErrNewer) {
		return nil, newer(s.path, blockSize, err)
	}
	if err != nil || !ok {
		return nil, damage(s, blockSize, errors.Join(errors.New("no first record"), err))
	}
	return &h, nil
}

func damage(s *segment, off int64, err error) error {
	if err == nil {
		err = errors.New("records that had been synced are missing")
	}
	return fmt.Errorf("%w: %s, offset %d: %w", ErrDamaged, s.path, off, err)
}

// newer adds where the bytes are that this release cannot read.
func newer(name string, off int64, err error) error {
	return fmt.Errorf("%s, offset %d: %w; open it with the release that wrote it", name, off, err)
}

// take adds the records of a segment to the log, and returns the seq of the last one. They
// end before next, the head that the next segment begins with. If there is no next
// segment, it also returns the records that the medium may not have.
func (l *Log) take(s *segment, b []byte, next *wal.Head) (again []record, last uint64, err error) {
	limit := uint64(0)
	if next != nil {
		limit = next.Seq
	}
	records, end, why := scan(b, s.incarnation, 0, limit)
	if errors.Is(why, format.ErrNewer) {
		return nil, 0, newer(s.path, end, why)
	}
	if len(records) == 0 {
		return nil, 0, damage(s, end, why)
	}
	last = records[len(records)-1].Seq
	durable, err := lastOfFirstRound(s, records[0])
	if err != nil {
		return nil, 0, err
	}
	if next != nil {
		durable = next.Durable
	} else {
		for _, r := range records {
			durable = max(durable, r.Durable)
		}
		later, err := laterMark(b, s.incarnation, end)
		if err != nil {
			return nil, 0, newer(s.path, end, err)
		}
		durable = max(durable, later)
	}
	if durable > last {
		return nil, 0, damage(s, end, why)
	}
	for i, r := range records {
		if r.Seq > durable {
			break // in an older segment: the next one has it again, or it was lost unacknowledged
		}
		rec, err := decode(s, records[i])
		if err != nil {
			return nil, 0, err
		}
		l.seq, l.durable = r.Seq, r.Seq
		l.publish([]record{rec}, []place{{s.number, r.off, wal.Size(len(r.Body))}})
		if next == nil && i+1 < len(records) && records[i+1].Seq > durable {
			if again, err = decodeAll(s, records[i+1:]); err != nil {
				return nil, 0, err
			}
		}
	}
	return again, last, nil
}

// lastOfFirstRound is the seq of the last record of a segment's first round.
func lastOfFirstRound(s *segment, r found) (uint64, error) {
	if r.Kind != kindMark || len(r.Body) != 4 {
		return 0, damage(s, r.off, errors.New("a segment does not begin with this"))
	}
	return r.Seq + uint64(binary.LittleEndian.Uint32(r.Body)) - 1, nil
}

func decodeAll(s *segment, list []found) (records []record, err error) {
	for _, r := range list {
		rec, err := decode(s, r)
		if err != nil {
			return nil, err
		}
		if rec.kind != kindMark {
			records = append(records, rec)
		}
	}
	return records, nil
}

func decode(s *segment, r found) (rec record, err error) {
	rec.kind, rec.flags = r.Kind, r.Flags
	switch r.Kind {
	case kindEntries:
		rec.entries, err = decodeEntries(r.Body)
	case kindHardState:
		rec.hard, err = decodeHardState(r.Body)
	case kindMarker:
		var m Marker
		m, err = decodeMarker(r.Body)
		rec.marker = &m
	case kindMark:
		if n := len(r.Body); n != 0 && n != 4 {
			err = fmt.Errorf("%w: a mark of %d bytes", format.ErrNewer, n)
		}
	default:
		if r.Flags&wal.FlagSkippable == 0 {
			return rec, newer(s.path, r.off, fmt.Errorf("%w: record of kind %d", format.ErrNewer, r.Kind))
		}
		rec.body = append([]byte(nil), r.Body...)
	}
	if errors.Is(err, format.ErrNewer) {
		err = newer(s.path, r.off, err)
	} else if err != nil {
		err = damage(s, r.off, err)
	}
	return rec, err
}
