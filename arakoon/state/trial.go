package state

import (
	"errors"
	"sync"
)

// MayStop reports whether a sequence calls a function that may stop a member by
// what it finds in the database, so that Try has something to find out.
func (s *Sequence) MayStop(r *Registry) bool {
	for _, c := range s.calls {
		if r.functions[c.functionKey].Check != nil {
			return true
		}
	}
	return false
}

// trials are the room for the writes of Try.
var trials = sync.Pool{New: func() any { return &writes{at: map[string]int{}} }}

// Try runs a sequence over the database as it is, beside Apply, and lets nothing of
// it stay. An error says that applying it would stop this member, and every one like
// it, again at each start: it is not to be proposed. No error promises nothing:
// what is applied before it may change that.
func (s *State) Try(body []byte) error {
	s.mu.Lock()
	now, err := s.meta.time, s.stopped()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	w := trials.Get().(*writes)
	w.db = s.db
	_, err = s.run(w, body, 0, now)
	w.close()
	trials.Put(w)
	// Whatever else ends it, as a disk that does not give a block, is Apply's to meet.
	var stop *stopError
	if errors.As(err, &stop) {
		return err
	}
	return nil
}
