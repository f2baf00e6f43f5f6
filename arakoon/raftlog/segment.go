package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"
	"openvstorage/internal/wal"

	"go.etcd.io/raft/v3"
)

// segment is an open segment file.
type segment struct {
	file        disk.File
	path        string
	number      uint64
	incarnation uint64
	size        int64
	version     uint16 // of its format

	life, generation uint64 // as its header says
}

const (
	suffix    = ".raft"
	spareName = "spare"

	// SegmentMax is how long a segment file gets at most: as SegmentBytes says, or
	// as long as one append takes.
	SegmentMax = 256 << 20
)

func segmentName(number uint64) string { return fmt.Sprintf("%016x%s", number, suffix) }

func parseName(name string) (number uint64, ok bool) {
	hex, ok := strings.CutSuffix(name, suffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	number, err := strconv.ParseUint(hex, 16, 64)
	return number, err == nil && segmentName(number) == name
}

func roundUp(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

// spare is a file that waits to become a segment.
type spare struct {
	mu    sync.Mutex // held while the file is prepared
	file  disk.File
	lacks bool // it could not be made the last time
	tried time.Time
}

func (s *spare) take() disk.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.file
	s.file = nil
	return f
}

// prepareSpare begins to write the next segment's file, so that no append waits for
// it. It is also the log's reserve on a full disk, so it is made as early as may be.
func (l *Log) prepareSpare() {
	if l.unnamed || !l.spare.mu.TryLock() {
		return
	}
	if l.spare.file != nil {
		l.spare.mu.Unlock()
		return
	}
	if l.spare.lacks && l.pos < l.current.size/2 && time.Since(l.spare.tried) < spareAgain {
		l.spare.mu.Unlock()
		return
	}
	l.spare.tried = time.Now()
	l.preparer.Go(func() {
		defer l.spare.mu.Unlock()
		// Without a spare the segment's file is made when it is needed.
		f, err := l.openSpare()
		if err == nil {
			if err = grow(f, l.opt.SegmentBytes); err != nil {
				_ = f.Close() // it is opened again
			} else {
				l.spare.file = f
			}
		}
		l.spare.lacks = err != nil
	})
}

// spareAgain is how long no spare is tried for when one could not be made and is
// not needed soon.
const spareAgain = time.Second

// openSpare opens or makes the spare file. One that is longer than any segment has
// nothing that anybody wants, and is cut.
func (l *Log) openSpare() (disk.File, error) {
	f, err := l.opt.FS.OpenFile(path.Join(l.opt.Dir, spareName), disk.Write|disk.Create, 0o600)
	if err != nil {
		return nil, err
	}
	have, err := f.Size()
	if err == nil && have > SegmentMax {
		err = f.Truncate(l.opt.SegmentBytes)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// grow writes a file up to a size. If there is no room for that, it stays as long
// as it was.
func grow(f disk.File, size int64) error {
	have, err := f.Size()
	if err != nil || have >= size {
		return err
	}
	if err = f.Allocate(have, size-have); err == nil {
		err = f.Prewrite(have, size-have)
	}
	if disk.CauseOf(err) == disk.Full {
		err = errors.Join(err, f.Truncate(have))
	}
	return err
}

// roll begins a new segment. If that fails before the file has its name, nothing
// has changed: what passes is left to be tried again, and in place of a file that
// cannot be written another one is tried, once.
func (l *Log) roll(records []record) error {
	named, err := l.rollOnce(records)
	if err != nil && !named && !disk.CauseOf(err).Passes() {
		if e := l.opt.FS.Remove(path.Join(l.opt.Dir, spareName)); e == nil || errors.Is(e, fs.ErrNotExist) {
			named, err = l.rollOnce(records)
		}
	}
	switch {
	case err == nil:
		return nil
	case !named && disk.CauseOf(err).Passes():
		return fmt.Errorf("raftlog: begin a segment in %s: %w", l.opt.Dir, err)
	}
	return l.fail(err)
}

// rollOnce begins a new segment: what the log must know by itself, then records,
// all synced before the file has its name.
func (l *Log) rollOnce(records []record) (named bool, err error) {
	number, incarnation := uint64(1), rand.Uint64()
	if l.current != nil {
		number = l.current.number + 1
	}
	again := l.unsure.number == number
	if again { // it may be noted, and the file of that name must be the one that is
		incarnation = l.unsure.incarnation
	}
	defer func() {
		// Nothing that a failed attempt has written may be taken for a later one's.
		if err != nil && !named && again && disk.CauseOf(err).Passes() {
			if e := l.opt.FS.Remove(path.Join(l.opt.Dir, spareName)); e != nil && !errors.Is(e, fs.ErrNotExist) {
				named, err = true, errors.Join(err, e)
			}
		}
	}()
	marker := l.index.marker
	known := []record{{kind: kindMark}, {kind: kindMarker, marker: &marker}}
	if !raft.IsEmptyHardState(l.hard) {
		known = append(known, record{kind: kindHardState, hard: l.hard})
	}
	records = append(known, records...)
	records[0].body = binary.LittleEndian.AppendUint32(nil, uint32(len(records)))
	size := int64(blockSize)
	for _, r := range records {
		size += int64(r.size())
	}
	least := roundUp(size) + blockSize
	if least > SegmentMax {
		return false, fmt.Errorf("%s: a segment of %d bytes is wanted, the limit is %d", l.opt.Dir, least, SegmentMax)
	}
	f, size, err := l.begin(least)
	if err != nil {
		return false, err
	}
	s, places, err := l.fill(f, number, incarnation, size, records)
	if err == nil {
		err = l.opt.FS.Rename(path.Join(l.opt.Dir, spareName), s.path)
	}
	if err != nil {
		return false, errors.Join(err, f.Close())
	}
	if err := l.opt.FS.SyncDir(l.opt.Dir); err != nil {
		// The name may be there: a restart ends the current segment where this one
		// begins, so nothing more may go to the current one. If the sync has not
		// begun, the next segment takes this one's name.
		l.broken = true
		return disk.SyncBegun(err) && !l.againLater(s, err), errors.Join(err, f.Close())
	}
	if err := l.leaveNote(s, l.seq+1); err != nil {
		l.broken = true
		return !l.againLater(s, err), errors.Join(fmt.Errorf("%s: %w", l.opt.Marks, err), f.Close())
	}
	l.current, l.broken, l.unnamed = s, false, false
	l.begun.Add(1)
	l.wrote(blockSize, len(records))
	l.mu.Lock()
	l.segments[number] = s
	l.mu.Unlock()
	l.publish(records, places)
	l.leaveMark()
	l.markOutside()
	return true, nil
}

// againLater reports whether a segment that has its name is to be begun again, for
// want of room: another file, whole, will take that name, durably, before anything in
// it is answered for. Whichever of them a restart finds ends the current segment in
// the same place.
func (l *Log) againLater(s *segment, err error) bool {
	if disk.CauseOf(err) != disk.Full {
		return false
	}
	l.unsure.number, l.unsure.incarnation = s.number, s.incarnation
	return true
}

// fewBytes is what a segment has beyond what it must have where there is no room
// for a whole one.
const fewBytes = 64 << 10

// begin returns the file for a segment, and how long that is: as SegmentBytes says,
// or on a full disk what there is, but no less than least.
func (l *Log) begin(least int64) (f disk.File, size int64, err error) {
	if l.unnamed {
		if err := l.opt.FS.SyncDir(l.opt.Dir); err != nil {
			return nil, 0, err
		}
		l.unnamed = false
	}
	if f = l.spare.take(); f == nil {
		if f, err = l.openSpare(); err != nil {
			return nil, 0, err
		}
	}
	for _, want := range []int64{l.opt.SegmentBytes, least + fewBytes, least} {
		size = max(want, least)
		if err = grow(f, size); disk.CauseOf(err) != disk.Full {
			break
		}
		if have, e := f.Size(); e == nil && have >= least+fewBytes {
			size, err = have/blockSize*blockSize, nil // a part of a spare
			break
		}
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, size, nil
}

// fill makes a file a segment that has no name yet.
func (l *Log) fill(f disk.File, number, incarnation uint64, size int64, records []record) (*segment, []place, error) {
	s := &segment{file: f, path: path.Join(l.opt.Dir, segmentName(number)), number: number, incarnation: incarnation, size: size, version: Version, life: l.life, generation: l.generation}
	places := l.encode(records, s, blockSize)
	header := appendHeader(nil, headerOf{
		Cluster: l.opt.Cluster, Member: l.opt.Member, Number: s.number, Incarnation: s.incarnation, Length: s.size, Life: l.life, Generation: l.generation,
	})
	if _, err := f.WriteAt(header, 0); err != nil {
		return nil, nil, err
	}
	return s, places, l.write(s, blockSize)
}

// recycle keeps one of the segments, given oldest first, as the spare and
// removes the others. The names change in that order, so that whatever a power
// cut keeps has no gap: where one cannot be changed, it and those behind it are
// left to the next time. What the spare was is written over only when its old
// name is durably gone.
func (l *Log) recycle(gone []*segment) error {
	if len(gone) == 0 {
		return nil
	}
	l.spare.mu.Lock()
	defer l.spare.mu.Unlock()
	var kept disk.File
	for i, s := range gone {
		if l.spare.file == nil && kept == nil && s.size == l.opt.SegmentBytes {
			if l.opt.FS.Rename(s.path, path.Join(l.opt.Dir, spareName)) != nil {
				l.keep(gone[i:])
				break
			}
			kept = s.file
			continue
		}
		if l.opt.FS.Remove(s.path) != nil {
			l.keep(gone[i:])
			break
		}
		_ = s.file.Close() // nobody wants it any more
	}
	err := l.opt.FS.SyncDir(l.opt.Dir)
	if err == nil {
		if kept != nil {
			l.spare.file = kept
		}
		return nil
	}
	free := kept == nil
	if kept != nil {
		_ = kept.Close()
		if disk.CauseOf(err) == disk.Full {
			e := l.opt.FS.Remove(path.Join(l.opt.Dir, spareName))
			free = e == nil || errors.Is(e, fs.ErrNotExist)
		}
	}
	if disk.CauseOf(err) == disk.Full && free {
		// Old names may be there again after a power cut, and what they lead to is
		// never written over.
		return nil
	}
	if disk.SyncBegun(err) {
		return l.fail(err)
	}
	l.unnamed = true
	return nil
}

// keep takes segments back that were to go.
func (l *Log) keep(list []*segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range list {
		l.segments[s.number] = s
	}
}

// list returns the numbers of the segments in a directory, which follow each
// other.
func list(fsys disk.FS, dir string) (numbers []uint64, err error) {
	names, err := fsys.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, name := range names { // sorted, and so are the numbers
		n, ok := parseName(name)
		if !ok {
			continue
		}
		if k := len(numbers); k > 0 && numbers[k-1]+1 != n {
			return nil, fmt.Errorf("%w: %s: segment %s is missing; restore the directory", ErrDamaged, dir, segmentName(numbers[k-1]+1))
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// readSegment opens a segment and reads it whole into buf.
func (o Options) readSegment(number uint64, buf []byte) (*segment, []byte, error) {
	name := path.Join(o.Dir, segmentName(number))
	f, err := o.FS.OpenFile(name, disk.Write, 0)
	if err != nil {
		return nil, buf, err
	}
	h, buf, err := readFile(f, name, buf)
	switch {
	case err != nil:
	case h.Cluster != o.Cluster || h.Member != o.Member:
		err = fmt.Errorf("%w: %s: it is member %d of cluster %v, not member %d of %v", ErrIdentity, name, h.Member, h.Cluster, o.Member, o.Cluster)
	case h.Number != number:
		err = fmt.Errorf("%w: %s: its header says segment %d", ErrDamaged, name, h.Number)
	case h.Length == 0 && int64(len(buf)) < o.SegmentBytes:
		// Version 1 does not say how long it was made; it was never made shorter.
		err = fmt.Errorf("%w: %s has %d bytes, and was made with %d at least; restore it", ErrDamaged, name, len(buf), o.SegmentBytes)
	}
	if err != nil {
		return nil, buf, errors.Join(err, f.Close())
	}
	s := &segment{file: f, path: name, number: number, incarnation: h.Incarnation, size: int64(len(buf)) / blockSize * blockSize, version: h.version, life: h.Life, generation: h.Generation}
	return s, buf, nil
}

// readFile reads a segment file into buf: as much as was written to it, whatever
// its length may have become.
func readFile(f disk.File, name string, buf []byte) (headerOf, []byte, error) {
	head := make([]byte, blockSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return headerOf{}, buf, fmt.Errorf("read %s: %w", name, err)
	}
	h, err := decodeHeader(head[:n])
	if errors.Is(err, format.ErrNewer) {
		return h, buf, newer(name, 0, err)
	}
	if err != nil {
		return h, buf, fmt.Errorf("%w: %s: header: %w", ErrDamaged, name, err)
	}
	size, err := f.Size()
	switch {
	case err != nil:
		return h, buf, fmt.Errorf("%s: %w", name, err)
	case size < h.Length:
		return h, buf, fmt.Errorf("%w: %s has %d bytes, and was made with %d; restore it", ErrDamaged, name, size, h.Length)
	case h.Length > 0:
		size = h.Length
	case size > SegmentMax:
		return h, buf, fmt.Errorf("%w: %s: %d bytes, a segment has %d at most; restore the file", ErrDamaged, name, size, SegmentMax)
	}
	if int64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if n, err := f.ReadAt(buf, 0); int64(n) < size {
		return h, buf, fmt.Errorf("read %s: %d bytes of %d: %w", name, n, size, err)
	}
	return h, buf, nil
}

// found is a record in a segment's bytes.
type found struct {
	off int64
	wal.Record
}

// scan reads the records of a segment, of which the first is to be seq (0: any)
// and none reaches limit (0: none does). why is what ended it, nil for zeros;
// end is where.
func scan(b []byte, incarnation, seq, limit uint64) (records []found, end int64, why error) {
	end = blockSize
	for end+wal.HeadSize <= int64(len(b)) {
		// Zeros up to the end of the block are padding: no record with a body
		// begins with them, and those without are the first of a block.
		if next := roundUp(end); next > end && zeros(b[end:min(next, end+wal.HeadSize)]) {
			end = next
			continue
		}
		h, ok, err := wal.DecodeHead(b[end:], incarnation)
		if err != nil || !ok {
			return records, end, err
		}
		if limit != 0 && h.Seq >= limit {
			return records, end, nil
		}
		if seq != 0 && h.Seq != seq {
			return records, end, fmt.Errorf("%w: seq %d, not %d", wal.ErrCorrupt, h.Seq, seq)
		}
		if end+int64(h.Size()) > int64(len(b)) {
			return records, end, fmt.Errorf("%w: record %d: %d bytes, %d are left", wal.ErrCorrupt, h.Seq, h.Size(), int64(len(b))-end)
		}
		body := b[end+wal.HeadSize : end+int64(wal.HeadSize+h.Length)]
		if err := h.Check(body, incarnation); err != nil {
			return records, end, err
		}
		records = append(records, found{end, wal.Record{Seq: h.Seq, Durable: h.Durable, Kind: h.Kind, Flags: h.Flags, Body: body}})
		seq = h.Seq + 1
		end += int64(h.Size())
	}
	return records, end, nil
}

// laterMark is the highest durable mark of the rounds that begin behind the
// place where the records ended. The error is that there is one which this release
// does not know.
func laterMark(b []byte, incarnation uint64, from int64) (durable uint64, err error) {
	for at := from / blockSize * blockSize; at+wal.HeadSize <= int64(len(b)); at += blockSize {
		if at < blockSize {
			continue
		}
		h, ok, err := wal.DecodeHead(b[at:], incarnation)
		if errors.Is(err, format.ErrNewer) {
			return durable, err
		}
		if err == nil && ok {
			durable = max(durable, h.Durable)
		}
	}
	return durable, nil
}

func zeros(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
