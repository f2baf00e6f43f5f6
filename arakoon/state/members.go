package state

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	pb "go.etcd.io/raft/v3/raftpb"
)

// A key "x" + id u64, big-endian, is a member that the group has removed: its id is never
// taken again. A wiped member that came back under it would have forgotten its votes and
// what it had acknowledged. The value, little-endian: version u16, flags u16 (none), index
// of the entry that removed it u64.
const goneVersion = 1

func goneKey(id uint64) []byte { return binary.BigEndian.AppendUint64([]byte("x"), id) }

func appendGone(index uint64) []byte {
	b := binary.LittleEndian.AppendUint16(nil, goneVersion)
	b = binary.LittleEndian.AppendUint16(b, 0)
	return binary.LittleEndian.AppendUint64(b, index)
}

func decodeGone(b []byte) (index uint64, err error) {
	r := &reader{b: b}
	v, flags := r.u16(), r.u16()
	if r.err == nil && (v > goneVersion || flags != 0) {
		return 0, fmt.Errorf("%w: removed member of format %d with flags %#x, this release reads up to %d; run a release that reads it", ErrNewer, v, flags, goneVersion)
	}
	if r.err == nil && v == 0 {
		r.fail("removed member of format 0")
	}
	index = r.u64()
	if r.err == nil && len(r.b) > 0 {
		return 0, fmt.Errorf("%w: removed member with %d bytes behind its fields; run a release that reads it", ErrNewer, len(r.b))
	}
	return index, r.end()
}

// loadGone reads the ids of all members that were removed.
func loadGone(db *pebble.DB) (map[uint64]uint64, error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte("x"), UpperBound: []byte("y")})
	if err != nil {
		return nil, err
	}
	gone := map[uint64]uint64{}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var v []byte
		if v, err = it.ValueAndErr(); err != nil {
			break
		}
		if len(it.Key()) != 9 {
			err = fmt.Errorf("%w: key %x is to be that of a removed member", ErrCorrupt, it.Key())
			break
		}
		gone[binary.BigEndian.Uint64(it.Key()[1:])], err = decodeGone(v)
	}
	if e := it.Close(); err == nil {
		err = e
	}
	if err != nil {
		return nil, damaged(err)
	}
	return gone, nil
}

// Gone reports whether the group has removed a member of this id, as far as the log is
// applied here.
func (s *State) Gone(id uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, gone := s.gone[id]
	return gone
}

// left are the members of a configuration that another one lacks.
func left(was, is *pb.ConfState) (ids []uint64) {
	lists := func(c *pb.ConfState) []uint64 {
		return slices.Concat(c.GetVoters(), c.GetLearners(), c.GetVotersOutgoing(), c.GetLearnersNext())
	}
	now := lists(is)
	for _, id := range lists(was) {
		if !slices.Contains(now, id) && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}
