package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"
)

// The marks file lies outside of the log's directory and says how far the log
// must reach, so that a log that was cut, or put back from a copy, is not taken
// for one that ended there (O2, P8). Four blocks of 4096 bytes, each zeros or:
//
//	offset size field
//	 0     64   common header (kind 16, owner the cluster, number and incarnation
//	            those of a segment)
//	64      8   member id
//	72      8   seq
//	80      4   CRC-32C of bytes 64..79, seeded with the incarnation
//	84    4012  zero
//
// Blocks 0 and 1, those of even and of odd segments, are notes: the segment has
// its name, and its first record has this seq. A note is synced before anything
// in its segment is answered for. Block 2 is a mark: in this segment all up to
// seq is durable. It is written behind each sync and not synced itself, as the
// marks in the log are; a power cut may tear it, and then it says nothing. Block 3,
// of number 1 and incarnation 0, is a mark like it of the state beside the log: it
// was durable up to the entry with index seq.
const (
	marksBlocks = 4
	markBlock   = 2
	stateBlock  = 3
)

const marksVersion = 1

// note is a block of the marks file.
type note struct {
	number      uint64 // of the segment, 0: none
	incarnation uint64
	seq         uint64
}

func (o Options) appendNote(dst []byte, n note) []byte {
	start := len(dst)
	dst = format.AppendHeader(dst, format.Header{
		Kind: format.KindRaftMarks, Version: marksVersion, MinReader: marksVersion, Owner: o.Cluster, Number: n.number, Incarnation: n.incarnation,
	})
	at := len(dst)
	dst = binary.LittleEndian.AppendUint64(dst, o.Member)
	dst = binary.LittleEndian.AppendUint64(dst, n.seq)
	dst = binary.LittleEndian.AppendUint32(dst, format.SeededCRC(n.incarnation, dst[at:]))
	return append(dst, make([]byte, blockSize-(len(dst)-start))...)
}

// decodeNote reads a block. A block that is torn or empty is no note, and not an error. A
// note of a newer release or of another member is an error.
func (o Options) decodeNote(b []byte) (note, error) {
	h, err := format.DecodeRewritten(b, format.KindRaftMarks, marksVersion, 0)
	if errors.Is(err, format.ErrNewer) {
		return note{}, err
	}
	const end = format.HeaderSize + 16
	if err != nil || len(b) < blockSize || format.SeededCRC(h.Incarnation, b[format.HeaderSize:end]) != binary.LittleEndian.Uint32(b[end:]) {
		return note{}, nil
	}
	if member := binary.LittleEndian.Uint64(b[format.HeaderSize:]); h.Owner != o.Cluster || member != o.Member {
		return note{}, fmt.Errorf("%w: it is of member %d of cluster %v, not of member %d of %v", ErrIdentity, member, h.Owner, o.Member, o.Cluster)
	}
	return note{h.Number, h.Incarnation, binary.LittleEndian.Uint64(b[format.HeaderSize+8:])}, nil
}

// openMarks opens the marks file, or makes it, and returns its blocks. needed says that the
// file must exist, as the newest segment was begun beside one.
func (l *Log) openMarks(needed bool) (notes [marksBlocks]note, err error) {
	name := l.opt.Marks
	f, err := l.opt.FS.OpenFile(name, disk.Write, 0)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist) && needed:
		return notes, fmt.Errorf("%w: %s is missing, which says how far the log in %s reaches; restore it", ErrDamaged, name, l.opt.Dir)
	case errors.Is(err, fs.ErrNotExist):
		if f, err = makeMarks(l.opt.FS, name, 0, make([]byte, blockSize)); err != nil {
			return notes, err
		}
	default:
		return notes, err
	}
	l.marks = f
	buf := make([]byte, marksBlocks*blockSize)
	if n, err := f.ReadAt(buf, 0); err != nil && !errors.Is(err, io.EOF) {
		return notes, fmt.Errorf("read %s: %w", name, err)
	} else if n < len(buf) {
		return notes, fmt.Errorf("%w: %s has %d bytes, not %d; restore it", ErrDamaged, name, n, len(buf))
	}
	for i := range notes {
		if notes[i], err = l.opt.decodeNote(buf[i*blockSize : (i+1)*blockSize]); err != nil {
			return notes, fmt.Errorf("%s: %w", name, err)
		}
	}
	l.stateDurable = notes[stateBlock].seq
	return notes, nil
}

// makeMarks makes a marks file with one note. The file gets its name when it is whole, and
// before there is a segment that needs it.
func makeMarks(fsys disk.FS, name string, slot uint64, block []byte) (disk.File, error) {
	draft := name + ".new"
	f, err := fsys.OpenFile(draft, disk.Write|disk.Create|disk.Truncate, 0o600)
	if err != nil {
		return nil, err
	}
	if err = f.Prewrite(0, marksBlocks*blockSize); err == nil {
		_, err = f.WriteAt(block, int64(slot)*blockSize)
	}
	if err == nil {
		err = f.Datasync()
	}
	if err == nil {
		err = fsys.Rename(draft, name)
	}
	if err == nil {
		err = fsys.SyncDir(path.Dir(name))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// checkMarks compares the notes with what the log was found to hold: newest is
// its newest segment, and seq the last record that is known to be durable.
func (l *Log) checkMarks(notes [marksBlocks]note, newest *segment, last uint64) error {
	named := newest.number
	for _, n := range notes[:stateBlock] {
		named = max(named, n.number)
	}
	if named > newest.number {
		return fmt.Errorf("%w: %s ends with segment %s, and there were segments up to %s; restore it", ErrDamaged, l.opt.Dir, segmentName(newest.number), segmentName(named))
	}
	for i, n := range notes[:stateBlock] {
		switch {
		case n.number < newest.number:
		case n.incarnation != newest.incarnation:
			return fmt.Errorf("%w: %s is not the segment that was written here last; restore it", ErrDamaged, newest.path)
		case i == markBlock && n.seq > last:
			return fmt.Errorf("%w: %s ends at record %d, and all up to %d had been synced; restore it", ErrDamaged, newest.path, last, n.seq)
		}
	}
	return nil
}

// leaveNote notes durably that a segment has its name. After a failed write or sync
// another file takes the place of the marks file (rule P6).
func (l *Log) leaveNote(s *segment, first uint64) error {
	block := l.opt.appendNote(nil, note{s.number, s.incarnation, first})
	if !l.marksBroken {
		_, err := l.marks.WriteAt(block, int64(s.number%2)*blockSize)
		if err == nil {
			err = l.marks.Datasync()
		}
		if err == nil {
			return nil
		}
	}
	f, err := makeMarks(l.opt.FS, l.opt.Marks, s.number%2, block)
	if err != nil {
		l.marksBroken = true
		return err
	}
	_ = l.marks.Close() // nobody wants it any more
	l.marks, l.marksBroken, l.stateDurable = f, false, 0
	return nil
}

// StateDurable notes, without a sync, that the state beside the log is durable up to an
// entry. Index 1, where log and state begin, is not noted, as it says nothing. It may be
// called at any time until Close.
func (l *Log) StateDurable(index uint64) {
	l.w.Lock()
	defer l.w.Unlock()
	if l.marksBroken || index <= max(l.stateDurable, 1) {
		return
	}
	if _, err := l.marks.WriteAt(l.opt.appendNote(nil, note{1, 0, index}), stateBlock*blockSize); err != nil {
		l.marksBroken = true
		return
	}
	l.stateDurable = index
}

// StateWas is the newest entry up to which the state beside the log is known to have been
// durable. A state that ends before it was damaged, or is an older copy.
func (l *Log) StateWas() uint64 {
	l.w.Lock()
	defer l.w.Unlock()
	return l.stateDurable
}

// markOutside writes to the marks file, without a sync, that all of the log is durable. If
// that fails, the marks say less than they could until the next segment begins.
func (l *Log) markOutside() {
	if l.marksBroken {
		return
	}
	l.markBuf = l.opt.appendNote(l.markBuf[:0], note{l.current.number, l.current.incarnation, l.durable})
	if _, err := l.marks.WriteAt(l.markBuf, markBlock*blockSize); err != nil {
		l.marksBroken = true
	}
}
