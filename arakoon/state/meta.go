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

// meta is the value of key "m", little-endian: version u16, zero u16, cluster,
// member u64, index u64, term u64, newest time i64, auto leave u32, then voters,
// learners, outgoing voters and next learners, each its number u32 and ids u64.
type meta struct {
	cluster uuid.UUID
	member  uint64
	at      Position
	time    int64
}

var metaKey = []byte("m")

func appendMeta(dst []byte, m meta) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint16(dst, version)
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
	return dst
}

func decodeMeta(b []byte) (m meta, err error) {
	r := &reader{b: b}
	if v := r.u16(); r.err == nil && v != version {
		return m, fmt.Errorf("%w: state format %d, this release reads up to %d", ErrNewer, v, version)
	}
	if r.u16() != 0 {
		r.fail("its reserved bytes are not zero")
	}
	copy(m.cluster[:], r.take(16))
	m.member = r.u64()
	m.at = Position{Index: r.u64(), Term: r.u64(), Conf: &pb.ConfState{}}
	m.time = int64(r.u64())
	switch r.u32() {
	case 0:
	case 1:
		m.at.Conf.AutoLeave = new(true)
	default:
		r.fail("bad flag")
	}
	c := m.at.Conf
	for _, list := range []*[]uint64{&c.Voters, &c.Learners, &c.VotersOutgoing, &c.LearnersNext} {
		for n := r.u32(); n > 0 && r.err == nil; n-- {
			*list = append(*list, r.u64())
		}
	}
	return m, r.end()
}
