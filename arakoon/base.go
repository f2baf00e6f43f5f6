package arakoon

import (
	"encoding/binary"
	"fmt"

	"openvstorage/internal/format"

	pb "go.etcd.io/raft/v3/raftpb"
)

// baseVersion is that of the context of a change of the members.
const baseVersion = 1

// appendBase appends the context of a change of the members: the members before it, so
// that a member that begins with none can apply it. Little-endian: version u16, flags u16
// (none), then voters and learners, each its number u32 and ids u64. A change is proposed
// only at rest, so there are no outgoing voters.
func appendBase(dst []byte, c *pb.ConfState) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint16(dst, baseVersion)
	dst = le.AppendUint16(dst, 0)
	for _, list := range [][]uint64{c.GetVoters(), c.GetLearners()} {
		dst = le.AppendUint32(dst, uint32(len(list)))
		for _, id := range list {
			dst = le.AppendUint64(dst, id)
		}
	}
	return dst
}

// decodeBase decodes such a context.
func decodeBase(b []byte) (*pb.ConfState, error) {
	le := binary.LittleEndian
	if len(b) < 4 {
		return nil, fmt.Errorf("members before a change: %d bytes are no such record", len(b))
	}
	if v, flags := le.Uint16(b), le.Uint16(b[2:]); v > baseVersion || flags != 0 {
		return nil, fmt.Errorf("%w: members before a change in format %d with flags %#x, this release reads up to %d", format.ErrNewer, v, flags, baseVersion)
	} else if v == 0 {
		return nil, fmt.Errorf("members before a change in format 0")
	}
	b = b[4:]
	c := &pb.ConfState{}
	for _, list := range []*[]uint64{&c.Voters, &c.Learners} {
		if len(b) < 4 || uint64(le.Uint32(b))*8 > uint64(len(b)-4) {
			return nil, fmt.Errorf("members before a change: the record ends too early")
		}
		n := le.Uint32(b)
		b = b[4:]
		for range n {
			*list = append(*list, le.Uint64(b))
			b = b[8:]
		}
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes behind the members before a change", format.ErrNewer, len(b))
	}
	return c, nil
}
