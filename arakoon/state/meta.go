package state

import (
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Position is how far a log is applied, and the members there.
type Position struct {
	Index uint64
	Term  uint64
	Conf  *pb.ConfState
}

// Versions of the value of key "m". The newest is written from level 2 on: until a group is
// raised, the release before can open its state.
const (
	metaVersion  = 3
	metaVersion2 = 2
)

// meta is the value of key "m", little-endian: version u16, incompatible features
// u16 (none yet), cluster, member u64, index u64, term u64, newest time i64, auto
// leave u32, then voters, learners, outgoing voters and next learners, each its
// number u32 and ids u64; version 2: life of the group u64, newest generation of
// the host u64; version 3: level of the group u32, at least 2, and number of leases u32.
// Each batch writes it anew, which would lose fields of a newer release: whatever is not
// known in it is refused.
type meta struct {
	cluster uuid.UUID
	member  uint64
	at      Position
	time    int64

	life       uint64 // raised by each recovery, from zero
	generation uint64 // that the member was told of

	level  uint32 // of the group
	leases uint32 // that are held

	zones Requirement // has a key of its own, and is not part of the value
	left  []removed   // members removed by entries that are being applied; not part of the value
}

// version is the one that the meta is written in.
func (m meta) version() uint16 {
	if m.level > LevelFirst {
		return metaVersion
	}
	return metaVersion2
}

// removed is a member that the group has removed, and the entry that did it.
type removed struct{ id, index uint64 }

var metaKey = []byte("m")

func appendMeta(dst []byte, m meta) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint16(dst, m.version())
	dst = le.AppendUint16(dst, 0)
	dst = append(dst, m.cluster[:]...)
	dst = le.AppendUint64(dst, m.member)
	dst = le.AppendUint64(dst, m.at.Index)
	dst = le.AppendUint64(dst, m.at.Term)
	dst = le.AppendUint64(dst, uint64(m.time))
	leave := uint32(0)
	if m.at.Conf.GetAutoLeave() {
		leave = 1
	}
	dst = le.AppendUint32(dst, leave)
	c := m.at.Conf
	for _, list := range [][]uint64{c.GetVoters(), c.GetLearners(), c.GetVotersOutgoing(), c.GetLearnersNext()} {
		dst = le.AppendUint32(dst, uint32(len(list)))
		for _, id := range list {
			dst = le.AppendUint64(dst, id)
		}
	}
	dst = le.AppendUint64(le.AppendUint64(dst, m.life), m.generation)
	if m.version() < metaVersion {
		return dst
	}
	return le.AppendUint32(le.AppendUint32(dst, m.level), m.leases)
}

func decodeMeta(b []byte) (m meta, err error) {
	r := &reader{b: b}
	v, features := r.u16(), r.u16()
	if v > metaVersion || features != 0 {
		return m, fmt.Errorf("%w: state of format %d with features %#x, this release reads up to %d; run a release that reads it", ErrNewer, v, features, metaVersion)
	}
	if v == 0 {
		r.fail("state of format 0")
	}
	copy(m.cluster[:], r.take(16))
	m.member = r.u64()
	m.at = Position{Index: r.u64(), Term: r.u64(), Conf: &pb.ConfState{}}
	m.time = int64(r.u64())
	switch flags := r.u32(); flags {
	case 0:
	case 1:
		m.at.Conf.AutoLeave = new(true)
	default:
		return m, fmt.Errorf("%w: state with flags %#x; run a release that reads it", ErrNewer, flags)
	}
	c := m.at.Conf
	for _, list := range []*[]uint64{&c.Voters, &c.Learners, &c.VotersOutgoing, &c.LearnersNext} {
		for n := r.u32(); n > 0 && r.err == nil; n-- {
			*list = append(*list, r.u64())
		}
	}
	if v > 1 {
		m.life, m.generation = r.u64(), r.u64()
	}
	m.level = LevelFirst
	if v > metaVersion2 {
		m.level, m.leases = r.u32(), r.u32()
		if r.err == nil && m.level <= LevelFirst {
			r.fail("state of format %d and level %d", v, m.level)
		}
	}
	if r.err == nil && m.level > LevelNewest {
		return m, newerLevel("state of ", m.level, LevelNewest)
	}
	if r.err == nil && len(r.b) > 0 {
		return m, fmt.Errorf("%w: state with %d bytes behind its fields; run a release that reads it", ErrNewer, len(r.b))
	}
	return m, r.end()
}
