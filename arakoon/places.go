package arakoon

import (
	"encoding/binary"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"
)

// places are the zones that members are in, by their own word. It is the stepper's.
//
// A host that is started in another zone takes its members along. What others know of its zone
// lags behind that: a leader that went by it could count what the member acknowledges now for
// the zone that the member was in before, and answer what one zone alone holds. So each
// acknowledgement says in which zone the process is that gives it, and counts for that zone.
// Of a member that does not say there is no zone. An acknowledgement that was given before the
// member moved, and comes late, says nothing of where the member is now: a process that
// another one has followed is not listened to any more.
//
// What was held by enough zones before a member moved stays answered, and is where the member
// is now. If its zone is missing afterwards, writes wait.
type places struct {
	self   uint64
	own    string
	of     map[uint64]*placed
	roster func(member uint64) string // by the roster, for those that have not said: for words alone
}

// placed is where a member is.
type placed struct {
	start uint64   // of its process
	past  []uint64 // starts before, the newest last
	zone  string
}

// pastStarts is how many starts of a member are remembered: messages do not live longer than
// a few of them.
const pastStarts = 16

// A stamp is the context of an acknowledgement between members, little-endian: version u8,
// start of the process u64, zone.
const (
	stampVersion = 1
	stampHead    = 9
	stampMax     = stampHead + 255
)

// appendStamp appends a stamp.
func appendStamp(dst []byte, start uint64, zone string) []byte {
	return append(binary.LittleEndian.AppendUint64(append(dst, stampVersion), start), zone...)
}

func decodeStamp(b []byte) (start uint64, zone string, ok bool) {
	if len(b) < stampHead || len(b) > stampMax || b[0] != stampVersion {
		return 0, "", false // another release's may say what it likes: it counts for no zone
	}
	return binary.LittleEndian.Uint64(b[1:]), string(b[stampHead:]), true
}

// note takes what a member says, by the stamp of its acknowledgement.
func (p *places) note(member uint64, stamp []byte) {
	start, zone, ok := decodeStamp(stamp)
	if !ok {
		return
	}
	at := p.of[member]
	switch {
	case at == nil:
		p.of[member] = &placed{start: start, zone: zone}
	case at.start != start && !slices.Contains(at.past, start):
		at.past = append(at.past, at.start)
		at.past = at.past[max(0, len(at.past)-pastStarts):]
		at.start, at.zone = start, zone
	}
}

// forget forgets all but some members.
func (p *places) forget(but []uint64) {
	for id := range p.of {
		if !slices.Contains(but, id) {
			delete(p.of, id)
		}
	}
}

// said is the zone of a member by its own word, "" if there is none.
func (p *places) said(member uint64) string {
	if member == p.self {
		return p.own
	}
	if at := p.of[member]; at != nil {
		return at.zone
	}
	return ""
}

// zone is the zone of a member as far as anybody knows.
func (p *places) zone(member uint64) string {
	if _, told := p.of[member]; told || member == p.self || p.roster == nil {
		return p.said(member)
	}
	return p.roster(member)
}

// stamped puts a member's stamp on what it acknowledges to others.
func (o outbox) stamped(m *pb.Message) {
	if o.stamp != nil && m.GetType() == pb.MsgAppResp {
		m.Context = o.stamp
	}
}
