package state

import (
	"errors"
	"sync"
)

// MayStop reports whether a sequence calls a function that may stop a member because of
// what it finds in the database. Only then is Try worth its time.
func (s *Sequence) MayStop(r *Registry) bool {
	for _, c := range s.calls {
		if r.functions[c.functionKey].Check != nil {
			return true
		}
	}
	return false
}

// trials is memory for the writes of Try.
var trials = sync.Pool{New: func() any { return &writes{at: map[string]int{}} }}

// Try runs a sequence on the database as it is, and keeps nothing of what it writes. It
// may run beside Apply. An error says that applying the sequence would stop this member,
// and every member of its release, again at each start: it must not be proposed. Without
// an error it may still stop them, if what is applied before it changes the database.
func (s *State) Try(body []byte) error {
	_, err := s.try(body)
	// Other errors say nothing of the sequence: a block cannot be read, for example.
	// Apply will meet them.
	var stop *stopError
	if errors.As(err, &stop) {
		return err
	}
	return nil
}

func (s *State) try(body []byte) (Outcome, error) {
	s.mu.Lock()
	next, err := s.meta, s.stopped()
	s.mu.Unlock()
	if err != nil {
		return Outcome{}, Stop(err)
	}
	w := trials.Get().(*writes)
	w.db = s.db
	out, err := s.run(w, body, next.at.Index+1, &next)
	w.close()
	trials.Put(w)
	return out, err
}
