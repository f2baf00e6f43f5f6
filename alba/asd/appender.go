package asd

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"

	"openvstorage/internal/bell"
	"openvstorage/internal/disk"
	"openvstorage/internal/wal"

	"golang.org/x/sys/unix"
)

// appender is the end of the ASD's log: the segment that is written to, and the seq that
// comes next. It has no lock: the writer alone uses it, before that runs whoever opens
// the ASD, and when it has ended whoever closes it.
type appender struct {
	opt      *Options
	dir      *directory
	health   *health
	contents *contents
	spares   *spares
	reserve  *reserve
	stats    *counters
	work     *bell.Bell // rung when there may be something to compact

	current    *segment // nil: the next batch begins one
	lastNumber uint32   // of a segment, ever
	nextSeq    uint64
	durable    uint64 // highest seq whose sync has returned

	header   []byte // a block, aligned, for headers
	mark     []byte // a block, aligned, for marks
	markBufs [2][]byte
}

// resume sets the seq of the newest batch that counts.
func (l *appender) resume(seq uint64) { l.durable, l.nextSeq = seq, seq+1 }

// used keeps new segments from having a number that one has, or had.
func (l *appender) used(number uint32) { l.lastNumber = max(l.lastNumber, number) }

// path returns the name that is written to, of the directory if there is no segment.
func (l *appender) path() string {
	if l.current == nil {
		return l.dir.path
	}
	return l.current.path
}

// allocated returns how many bytes behind its end the current segment's file has, if as
// much as need still goes into it. A recycled segment has a file longer than its batches.
func (l *appender) allocated(need int64) int64 {
	if s := l.current; s != nil && s.end+need <= l.opt.SegmentBytes {
		return s.size - s.end
	}
	return 0
}

// append writes the batch behind the last one, in a new segment if it does not
// fit or if writing failed (rule P6).
func (l *appender) append(b *batch, useReserve bool) error {
	if s := l.current; s != nil && (useReserve || s.end > blockSize && s.end+b.length() > l.opt.SegmentBytes) {
		l.seal()
	}
	for try := 0; ; try++ {
		err := l.tryAppend(b, useReserve)
		if err == nil {
			return nil
		}
		l.seal()
		if errors.Is(err, unix.EROFS) {
			return l.health.fail(err) // no other segment would do better
		}
		if isNoRoom(err) || try > 0 {
			return fmt.Errorf("write: %w", err)
		}
		l.dir.log.Warn("asd: a write failed; going on in another segment", "asd", l.dir.id, "err", err)
	}
}

// tryAppend is append in the current segment, or in a new one if there is none.
func (l *appender) tryAppend(b *batch, useReserve bool) error {
	if l.current == nil {
		s, err := l.begin(b.length(), useReserve)
		if err != nil {
			return err
		}
		l.current = s
		l.lastNumber = s.number
	}
	s := l.current
	b.seq = l.nextSeq
	for i := range b.entries {
		if e := &b.entries[i]; e.Delete && e.Since == 0 {
			e.Since = uint64(s.number)
		}
	}
	b.layOut(s, s.end, l.durable)
	if err := b.write(s.file, s.end); err != nil {
		// The file may have grown all the same, and its room counts.
		if n, err := s.file.Size(); err == nil {
			l.contents.grew(s, 0, n)
		}
		return err
	}
	b.at = s.end
	l.nextSeq++
	l.contents.grew(s, b.size, 0)
	return nil
}

// sync makes all that was appended to the current segment durable. If it
// fails, nothing is believed any more (rule P6).
func (l *appender) sync() error {
	s := l.current
	l.stats.syncs.Add(1)
	if err := s.file.Datasync(); err != nil {
		return l.health.fail(err)
	}
	if s.temp != "" {
		if err := l.name(s); err != nil {
			return l.health.fail(err)
		}
	}
	return nil
}

// publish makes a batch of the current segment visible, which is durable.
func (l *appender) publish(b *batch) {
	l.durable = b.seq
	l.stats.count(b)
	if l.contents.publish(l.current, b) {
		l.work.Ring()
	}
}

// leaveMark writes what is durable behind the last batch (rule O2). It is not
// synced; the next batch takes its place and says as much.
func (l *appender) leaveMark() {
	s := l.current
	if s.end+blockSize > l.opt.SegmentBytes {
		return // the next segment will say so
	}
	clear(l.mark)
	wal.AppendHead(l.mark[:0], s.incarnation, wal.Record{Seq: l.nextSeq, Durable: l.durable, Kind: kindMark, Flags: wal.FlagSkippable})
	l.markBufs = [2][]byte{l.mark[:wal.HeadSize], l.mark[wal.HeadSize:]} // two: one would be written directly
	n, err := s.file.WritevAt(l.markBufs[:], s.end)
	l.stats.headBytes.Add(blockSize)
	l.contents.grew(s, 0, s.end+int64(n))
	if err != nil {
		l.seal() // nothing is appended behind a failed write
	}
}

// begin returns a new segment for a first batch of so many bytes. It has no name yet.
func (l *appender) begin(bytes int64, useReserve bool) (*segment, error) {
	if l.lastNumber == 1<<32-1 {
		return nil, errors.New("all segment numbers are used up; move the values to another ASD")
	}
	s := &segment{number: l.lastNumber + 1, incarnation: rand.Uint64(), end: blockSize, done: blockSize}
	s.path = l.dir.join(segmentName(s.number))
	flag := disk.Write | disk.Direct
	if useReserve {
		s.temp = reserveName
	} else if s.temp = l.spares.take(bytes); s.temp == "" {
		s.temp = newName
		flag |= disk.Create | disk.Truncate
	}
	s.temp = l.dir.join(s.temp)
	f, err := l.dir.openFile(s.temp, flag)
	if err != nil {
		return nil, err
	}
	s.file = f
	s.handle.Store(&handle{segment: s, file: f, own: true})
	if s.size, err = f.Size(); err == nil {
		header := appendHeader(l.header[:0], headerOf{l.dir.id, uint64(s.number), s.incarnation})
		_, err = f.WritevAt([][]byte{header[:64], header[64:]}, 0)
		s.size = max(s.size, blockSize)
	}
	if err != nil {
		l.abandon(s)
		return nil, err
	}
	l.stats.headBytes.Add(blockSize)
	return s, nil
}

// name gives a segment its name, durably.
func (l *appender) name(s *segment) error {
	if err := l.dir.fs.Rename(s.temp, s.path); err != nil {
		return err
	}
	if err := l.dir.sync(); err != nil {
		return err
	}
	if path.Base(s.temp) == reserveName {
		l.reserve.spent()
	}
	s.temp = ""
	return nil
}

// seal ends the current segment: nothing more is appended to it. Whoever reads it
// from now on opens it anew: the writer's file may take two descriptors.
func (l *appender) seal() {
	s := l.current
	l.current = nil
	switch {
	case s == nil:
	case s.temp != "":
		l.abandon(s) // nothing in it was ever acknowledged
	default:
		s.handle.Load().doom(l.dir.files)
	}
}

// giveUp seals the current segment if it has no name yet: nobody else closes its file.
func (l *appender) giveUp() {
	if s := l.current; s != nil && s.temp != "" {
		l.seal()
	}
}

// abandon closes and removes a segment that has no name yet.
func (l *appender) abandon(s *segment) {
	l.dir.giveUp(s)
	if err := l.dir.fs.Remove(s.temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.dir.log.Warn("asd: cannot remove a file", "file", s.temp, "err", err)
	}
	if path.Base(s.temp) == reserveName {
		l.reserve.spent()
	}
}
