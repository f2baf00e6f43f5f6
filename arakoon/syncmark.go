package arakoon

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"openvstorage/arakoon/state"

	pb "go.etcd.io/raft/v3/raftpb"
)

// syncedKey holds the members that are in sync, and intendedKey those that a mark may name:
// version u16, zeros u16, number u32, ids u64.
var (
	syncedKey   = []byte("host/synced")
	intendedKey = []byte("host/synced-intended")
)

const syncedVersion = 1

func appendSynced(dst []byte, ids []uint64) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(le.AppendUint32(dst, syncedVersion), uint32(len(ids)))
	for _, id := range ids {
		dst = le.AppendUint64(dst, id)
	}
	return dst
}

func decodeSynced(b []byte) (ids []uint64, err error) {
	le := binary.LittleEndian
	if b == nil {
		return nil, nil
	}
	if len(b) < 8 || le.Uint32(b) != syncedVersion || uint64(len(b)-8) != 8*uint64(le.Uint32(b[4:])) {
		return nil, fmt.Errorf("key %q: %d bytes are no members in sync that this release reads", syncedKey, len(b))
	}
	for b = b[8:]; len(b) > 0; b = b[8:] {
		ids = append(ids, le.Uint64(b))
	}
	return ids, nil
}

// markOf is the body of a mark's command, and intentionOf that of an intention's.
func markOf(ids []uint64) []byte      { return settingOf(syncedKey, ids) }
func intentionOf(ids []uint64) []byte { return settingOf(intendedKey, ids) }

func settingOf(key []byte, ids []uint64) []byte {
	body, err := new(Sequence).Set(key, appendSynced(nil, ids)).Encode()
	if err != nil {
		panic(fmt.Sprintf("members in sync: %v", err)) // they are few
	}
	return body
}

// marksOf returns what the marks in an entry say, the last one; found is false if it has none.
func marksOf(e *pb.Entry) (ids []uint64, found bool, err error) {
	if e.GetType() != pb.EntryNormal || len(e.GetData()) == 0 {
		return nil, false, nil
	}
	b, err := state.DecodeBatch(e.GetData())
	if err != nil {
		return nil, false, err
	}
	none := len(markOf(nil))
	for _, c := range b.Commands {
		n := len(c.Body) - none
		if n < 0 || n%8 != 0 || n/8 > LearnersMax {
			continue
		}
		had, err := decodeSynced(c.Body[len(c.Body)-8-n:])
		if err == nil && bytes.Equal(c.Body, markOf(had)) {
			ids, found = had, true
		}
	}
	return ids, found, nil
}

// inSync says whether a survivor is in sync as of the end of its log.
func (n stopped) inSync(s Survivor) (bool, error) {
	ids, err := n.markedIn()
	if err != nil {
		return false, err
	}
	err = n.tail(func(e *pb.Entry) error {
		had, found, err := marksOf(e)
		if found {
			ids = had
		}
		return err
	})
	return slices.Contains(ids, s.Member) && len(s.Members.Voters) == 1 && len(s.Members.Outgoing) == 0 && slices.Contains(s.Members.Learners, s.Member), err
}

// markedIn is what the state's mark names.
func (n *Node) markedIn() ([]uint64, error) {
	marked, _, err := n.marks()
	return marked, err
}

// marks are the members that the state's mark names, and those that one may name.
func (n *Node) marks() (marked, intended []uint64, err error) {
	v := n.state.use()
	defer n.state.leave(v)
	for _, k := range []struct {
		key []byte
		ids *[]uint64
	}{{syncedKey, &marked}, {intendedKey, &intended}} {
		b, found, err := v.Get(k.key)
		if err == nil && found {
			*k.ids, err = decodeSynced(b)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return marked, intended, nil
}
