package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"

	"openvstorage/internal/disk"

	"go.etcd.io/raft/v3"
)

// roll begins a new segment with records. If that fails before the file has its name,
// nothing has changed. A failure that may pass is then left to the caller to try again.
// After any other the file is replaced by another one, once. If that does not help, or the
// name may be there, the log has failed.
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

// rollOnce begins a new segment. named says of an error that the segment may have its
// name: a restart then goes on with that one, and nothing may be tried beside it.
func (l *Log) rollOnce(records []record) (named bool, err error) {
	number, incarnation := uint64(1), rand.Uint64()
	if l.current != nil {
		number = l.current.number + 1
	}
	again := l.unsure.number == number
	if again { // it may be noted, and the file of that name must be the one that is
		incarnation = l.unsure.incarnation
	}
	named, err = l.writeSegment(number, incarnation, l.firstRound(records))
	if err != nil && !named && again && disk.CauseOf(err).Passes() {
		// The next attempt has the same incarnation: nothing that this one has
		// written may be taken for the next one's.
		if e := l.opt.FS.Remove(path.Join(l.opt.Dir, spareName)); e != nil && !errors.Is(e, fs.ErrNotExist) {
			named, err = true, errors.Join(err, e)
		}
	}
	return named, err
}

// firstRound is what a segment begins with: what a restart must know if it finds only
// this one (how many records the round has, the marker, the hard state), then records.
func (l *Log) firstRound(records []record) []record {
	marker, hard := l.index.marker, l.hard
	if r := l.restart; r != nil {
		marker, hard = r.marker, r.hard
	}
	known := []record{{kind: kindMark}, {kind: kindMarker, marker: &marker}}
	if !raft.IsEmptyHardState(hard) {
		known = append(known, record{kind: kindHardState, hard: hard})
	}
	records = append(known, records...)
	records[0].body = binary.LittleEndian.AppendUint32(nil, uint32(len(records)))
	return records
}

// writeSegment writes a new segment and goes on in it. All is synced before the file
// has its name, so that whatever has a name is whole. named is as in rollOnce.
func (l *Log) writeSegment(number, incarnation uint64, records []record) (named bool, err error) {
	size := int64(blockSize)
	for _, r := range records {
		size += int64(r.size())
	}
	least := roundUp(size) + blockSize
	if least > SegmentMax {
		return false, fmt.Errorf("%s: a segment of %d bytes is wanted, the limit is %d", l.opt.Dir, least, SegmentMax)
	}
	f, size, err := l.takeFile(least)
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
	if named, err := l.settleName(s); err != nil {
		// The name may be there: a restart ends the current segment where this one
		// begins, so nothing more may go to the current one.
		l.broken = true
		return named, errors.Join(err, f.Close())
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

// settleName makes a segment's name durable, in the directory and then in the marks
// file: nothing in the segment may be answered for before both know of it.
func (l *Log) settleName(s *segment) (named bool, err error) {
	if err := l.opt.FS.SyncDir(l.opt.Dir); err != nil {
		// If the sync has not begun, the next segment takes this one's name.
		return disk.SyncBegun(err) && !l.againLater(s, err), err
	}
	if err := l.leaveNote(s, l.seq+1); err != nil {
		return !l.againLater(s, err), fmt.Errorf("%s: %w", l.opt.Marks, err)
	}
	return true, nil
}

// againLater reports whether a segment that may have its name is to be begun again, as
// there was no room to make the name durable. Another whole file will take that name,
// under the same incarnation, before anything in it is answered for. Whichever of the two
// a restart finds, the current segment ends in the same place.
func (l *Log) againLater(s *segment, err error) bool {
	if disk.CauseOf(err) != disk.Full {
		return false
	}
	l.unsure.number, l.unsure.incarnation = s.number, s.incarnation
	return true
}

// fewBytes is how much longer than necessary a segment is made if there is no room for a
// whole one: a segment for each append would cost a sync of the directory each time.
const fewBytes = 64 << 10

// takeFile returns the file for a segment, and its length: SegmentBytes, or on a full disk
// as much as there is, but at least least.
func (l *Log) takeFile(least int64) (f disk.File, size int64, err error) {
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

// fill writes header and records into a file and syncs it. It has no name as a segment
// yet.
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
