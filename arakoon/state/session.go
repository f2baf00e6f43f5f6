package state

import (
	"cmp"
	"container/list"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/uuid"
)

// What the value of a session says of its last request. On disk.
const (
	lastOpened = 0 // none yet
	lastDone   = 1
	lastFailed = 2
	lastLost   = 3 // done; the result was too large to be kept
)

// session is what memory keeps of a client's session. Its value in Pebble, little-endian:
// request u64, index u64, position u32, kind u8, and then the results; or, of a failure,
// code u32, step u32, key and message.
type session struct {
	id       uuid.UUID
	request  uint64
	index    uint64 // of the entry that holds the last request
	position uint32 // of the command in the entry
}

func appendSession(dst []byte, s session, kind byte, o Outcome) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint64(dst, s.request)
	dst = le.AppendUint64(dst, s.index)
	dst = le.AppendUint32(dst, s.position)
	dst = append(dst, kind)
	switch kind {
	case lastDone:
		dst = appendResults(dst, o.Results)
	case lastFailed:
		dst = le.AppendUint32(dst, o.Err.Code)
		dst = le.AppendUint32(dst, uint32(o.Err.Step))
		dst = appendBytes(appendBytes(dst, o.Err.Key), []byte(o.Err.Message))
	}
	return dst
}

func decodeSession(b []byte) (s session, kind byte, o Outcome, err error) {
	r := &reader{b: b}
	s.request, s.index, s.position, kind = r.u64(), r.u64(), r.u32(), r.u8()
	o.Index = s.index
	switch kind {
	case lastDone:
		if r.err == nil {
			o.Results, r.err = decodeResults(r.b)
			r.b = nil
		}
	case lastFailed:
		o.Err = &Error{Code: r.u32(), Step: int(r.u32()), Key: r.bytes(), Message: string(r.bytes())}
	case lastOpened, lastLost:
	default:
		if r.err == nil {
			return s, kind, o, fmt.Errorf("%w: session of kind %d, this release knows up to %d; run a release that knows it", ErrNewer, kind, lastLost)
		}
	}
	return s, kind, o, r.end()
}

// sessions are all sessions in the order of their last use, oldest first. The order is
// that of the log, so every member expires the same ones.
type sessions struct {
	byID  map[uuid.UUID]*list.Element
	order *list.List // of session
}

func sessionKey(id uuid.UUID) []byte { return append([]byte("s"), id[:]...) }

// loadSessions reads the sessions, and brings them into the order of their last use.
func loadSessions(db *pebble.DB) (*sessions, error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte("s"), UpperBound: []byte("t")})
	if err != nil {
		return nil, err
	}
	var all []session
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var v []byte
		if v, err = it.ValueAndErr(); err != nil {
			break
		}
		var s session
		if s, _, _, err = decodeSession(v); err == nil {
			copy(s.id[:], it.Key()[1:])
			all = append(all, s)
		}
	}
	if e := it.Close(); err == nil {
		err = e
	}
	if err != nil {
		return nil, damaged(err)
	}
	slices.SortFunc(all, func(a, b session) int {
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(a.position, b.position))
	})
	s := &sessions{byID: map[uuid.UUID]*list.Element{}, order: list.New()}
	for _, one := range all {
		s.use(one)
	}
	return s, nil
}

// use puts a session last.
func (s *sessions) use(one session) {
	if e, ok := s.byID[one.id]; ok {
		s.order.Remove(e)
	}
	s.byID[one.id] = s.order.PushBack(one)
}

// expire takes out the session used longest ago if there are too many.
func (s *sessions) expire() (uuid.UUID, bool) {
	if s.order.Len() <= SessionsMax {
		return uuid.Nil, false
	}
	one := s.order.Remove(s.order.Front()).(session)
	delete(s.byID, one.id)
	return one.id, true
}
