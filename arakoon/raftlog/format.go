package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"openvstorage/internal/format"

	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Version is the newest format of a segment that this release reads and the
// one it writes.
const Version = 3

// blockSize is what rounds are aligned to; the header takes one.
const blockSize = 4096

// Kinds of record. Numbers are on disk.
const (
	kindEntries   = 1
	kindHardState = 2
	kindMarker    = 3
	kindMark      = 4
)

// ErrCorrupt is matched by the error for bytes that are no body of a record.
var ErrCorrupt = errors.New("raft log record corrupt")

// headerOf is a segment's header.
type headerOf struct {
	Cluster     uuid.UUID
	Member      uint64
	Number      uint64
	Incarnation uint64
	Length      int64 // of the file, in bytes; 0: version 1 does not say
	Life        uint64
	Generation  uint64
	version     uint16 // as it was read
}

func appendHeader(dst []byte, h headerOf) []byte {
	start := len(dst)
	dst = format.AppendHeader(dst, format.Header{
		Kind: format.KindRaftLog, Version: Version, MinReader: Version,
		Owner: h.Cluster, Number: h.Number, Incarnation: h.Incarnation,
	})
	at := len(dst)
	dst = binary.LittleEndian.AppendUint64(dst, h.Member)
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	dst = binary.LittleEndian.AppendUint32(dst, format.SeededCRC(h.Incarnation, dst[at:]))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.Length))
	dst = binary.LittleEndian.AppendUint32(dst, format.SeededCRC(h.Incarnation, dst[at:]))
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	dst = binary.LittleEndian.AppendUint64(dst, h.Life)
	dst = binary.LittleEndian.AppendUint64(dst, h.Generation)
	dst = binary.LittleEndian.AppendUint32(dst, format.SeededCRC(h.Incarnation, dst[at:]))
	return append(dst, make([]byte, blockSize-(len(dst)-start))...)
}

func decodeHeader(b []byte) (headerOf, error) {
	f, err := format.DecodeHeader(b, format.KindRaftLog, Version, 0)
	if err != nil {
		return headerOf{}, err
	}
	if len(b) < blockSize {
		return headerOf{}, fmt.Errorf("%w: %d bytes are less than a header", ErrCorrupt, len(b))
	}
	rest := b[format.HeaderSize:]
	if got, want := format.SeededCRC(f.Incarnation, rest[:12]), binary.LittleEndian.Uint32(rest[12:]); got != want {
		return headerOf{}, fmt.Errorf("%w: CRC of the member is %08x, not %08x", ErrCorrupt, got, want)
	}
	h := headerOf{Cluster: f.Owner, Member: binary.LittleEndian.Uint64(rest), Number: f.Number, Incarnation: f.Incarnation, version: min(f.Version, Version)}
	if binary.LittleEndian.Uint32(rest[8:]) != 0 {
		return headerOf{}, fmt.Errorf("%w: bytes behind the member that are zero today", format.ErrNewer)
	}
	if f.Version < 2 {
		return h, nil
	}
	if got, want := format.SeededCRC(f.Incarnation, rest[:24]), binary.LittleEndian.Uint32(rest[24:]); got != want {
		return headerOf{}, fmt.Errorf("%w: CRC of the length is %08x, not %08x", ErrCorrupt, got, want)
	}
	h.Length = int64(binary.LittleEndian.Uint64(rest[16:]))
	if h.Length < 2*blockSize || h.Length > SegmentMax || h.Length%blockSize != 0 {
		return headerOf{}, fmt.Errorf("%w: a length of %d bytes", ErrCorrupt, h.Length)
	}
	if f.Version < 3 {
		return h, nil
	}
	if got, want := format.SeededCRC(f.Incarnation, rest[:48]), binary.LittleEndian.Uint32(rest[48:]); got != want {
		return headerOf{}, fmt.Errorf("%w: CRC of life and generation is %08x, not %08x", ErrCorrupt, got, want)
	}
	if !zeros(rest[28:32]) {
		return headerOf{}, fmt.Errorf("%w: bytes of the header that are zero today", format.ErrNewer)
	}
	h.Life, h.Generation = binary.LittleEndian.Uint64(rest[32:]), binary.LittleEndian.Uint64(rest[40:])
	return h, nil
}

const (
	entriesHead = 16
	entryHead   = 16
)

// entrySize is the room that an entry takes in a record.
func entrySize(e *pb.Entry) int { return entryHead + len(e.GetData()) }

// appendEntries appends the body for entries whose indexes follow each other.
func appendEntries(dst []byte, entries []*pb.Entry) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint64(dst, entries[0].GetIndex())
	dst = le.AppendUint32(dst, uint32(len(entries)))
	dst = le.AppendUint32(dst, 0)
	for _, e := range entries {
		dst = le.AppendUint64(dst, e.GetTerm())
		dst = le.AppendUint32(dst, uint32(len(e.GetData())))
		dst = le.AppendUint16(dst, uint16(e.GetType()))
		dst = le.AppendUint16(dst, 0)
		dst = append(dst, e.GetData()...)
	}
	return dst
}

// decodeEntries decodes such a body. The entries' data is copied: b may be
// used again.
func decodeEntries(b []byte) ([]*pb.Entry, error) {
	le := binary.LittleEndian
	if len(b) < entriesHead {
		return nil, fmt.Errorf("%w: entries of %d bytes", ErrCorrupt, len(b))
	}
	first, n := le.Uint64(b), le.Uint32(b[8:])
	if flags := le.Uint32(b[12:]); flags != 0 {
		return nil, fmt.Errorf("%w: flags %#x of the entries from %d", format.ErrNewer, flags, first)
	}
	if first == 0 || n == 0 || first+uint64(n) < first || uint64(n)*entryHead > uint64(len(b)-entriesHead) {
		return nil, fmt.Errorf("%w: %d entries from %d in %d bytes", ErrCorrupt, n, first, len(b))
	}
	b = append([]byte(nil), b[entriesHead:]...)
	entries := make([]*pb.Entry, 0, n)
	for i := range uint64(n) {
		if len(b) < entryHead {
			return nil, fmt.Errorf("%w: entry %d: %d bytes are left", ErrCorrupt, first+i, len(b))
		}
		term, size, kind := le.Uint64(b), le.Uint32(b[8:]), pb.EntryType(le.Uint16(b[12:]))
		if flags := le.Uint16(b[14:]); flags != 0 || kind > pb.EntryConfChangeV2 {
			return nil, fmt.Errorf("%w: entry %d: type %d, flags %#x", format.ErrNewer, first+i, kind, flags)
		}
		if uint64(size) > uint64(len(b)-entryHead) {
			return nil, fmt.Errorf("%w: entry %d: type %d, %d of %d bytes", ErrCorrupt, first+i, kind, size, len(b))
		}
		e := &pb.Entry{Term: new(term), Index: new(first + i), Type: kind.Enum()}
		if size > 0 {
			e.Data = b[entryHead : entryHead+size : entryHead+size]
		}
		entries = append(entries, e)
		b = b[entryHead+size:]
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%w: %d bytes behind the entries", format.ErrNewer, len(b))
	}
	return entries, nil
}

func appendHardState(dst []byte, s *pb.HardState) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, s.GetTerm())
	dst = binary.LittleEndian.AppendUint64(dst, s.GetVote())
	return binary.LittleEndian.AppendUint64(dst, s.GetCommit())
}

func decodeHardState(b []byte) (*pb.HardState, error) {
	if len(b) > 24 {
		return nil, fmt.Errorf("%w: hard state of %d bytes, this release knows 24", format.ErrNewer, len(b))
	}
	if len(b) != 24 {
		return nil, fmt.Errorf("%w: hard state of %d bytes", ErrCorrupt, len(b))
	}
	le := binary.LittleEndian
	return &pb.HardState{Term: new(le.Uint64(b)), Vote: new(le.Uint64(b[8:])), Commit: new(le.Uint64(b[16:]))}, nil
}

// Marker says up to which entry the log was truncated, as the state holds the effects, and
// what the log must still know of that entry.
type Marker struct {
	Index uint64
	Term  uint64
	Conf  *pb.ConfState

	// reset says that the log begins anew here: no entry of an earlier record counts,
	// also none behind Index. It is in the one record that Reset writes.
	reset bool
}

// Flags of a marker's record.
const (
	markerLeaves = 1 // the members leave a joint configuration by themselves
	markerResets = 2
)

func appendMarker(dst []byte, m Marker) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint64(dst, m.Index)
	dst = le.AppendUint64(dst, m.Term)
	flags := uint32(0)
	if m.Conf.GetAutoLeave() {
		flags |= markerLeaves
	}
	if m.reset {
		flags |= markerResets
	}
	dst = le.AppendUint32(dst, flags)
	for _, list := range [][]uint64{m.Conf.GetVoters(), m.Conf.GetLearners(), m.Conf.GetVotersOutgoing(), m.Conf.GetLearnersNext()} {
		dst = le.AppendUint32(dst, uint32(len(list)))
		for _, id := range list {
			dst = le.AppendUint64(dst, id)
		}
	}
	return dst
}

func decodeMarker(b []byte) (Marker, error) {
	le := binary.LittleEndian
	if len(b) >= 20 && le.Uint32(b[16:])&^(markerLeaves|markerResets) != 0 {
		return Marker{}, fmt.Errorf("%w: flags %#x of a snapshot marker", format.ErrNewer, le.Uint32(b[16:]))
	}
	if len(b) < 20 {
		return Marker{}, fmt.Errorf("%w: snapshot marker of %d bytes", ErrCorrupt, len(b))
	}
	flags := le.Uint32(b[16:])
	m := Marker{Index: le.Uint64(b), Term: le.Uint64(b[8:]), Conf: &pb.ConfState{}, reset: flags&markerResets != 0}
	if flags&markerLeaves != 0 {
		m.Conf.AutoLeave = new(true)
	}
	b = b[20:]
	for _, list := range []*[]uint64{&m.Conf.Voters, &m.Conf.Learners, &m.Conf.VotersOutgoing, &m.Conf.LearnersNext} {
		if len(b) < 4 || uint64(le.Uint32(b))*8 > uint64(len(b)-4) {
			return Marker{}, fmt.Errorf("%w: members of the snapshot marker at %d", ErrCorrupt, m.Index)
		}
		n := le.Uint32(b)
		b = b[4:]
		for range n {
			*list = append(*list, le.Uint64(b))
			b = b[8:]
		}
	}
	if len(b) != 0 {
		return Marker{}, fmt.Errorf("%w: %d bytes behind the snapshot marker at %d", format.ErrNewer, len(b), m.Index)
	}
	return m, nil
}
