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

// MayAnswerMuch reports whether the results of a sequence may have more than ResultsMax bytes,
// as far as its steps tell: what functions return is not known. Only then is TryResults worth
// its time.
func (s *Sequence) MayAnswerMuch() bool {
	return s.steps*ResultHead+s.values*ValueMax > ResultsMax
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

// TryResults is Try for what the sequence returns: the error is an *Error with CodeTooLarge if
// that would be more than a group of LevelBounded lets through.
func (s *State) TryResults(body []byte) error {
	out, err := s.try(body)
	if err == nil && out.Err != nil && out.Err.Code == CodeTooLarge {
		return out.Err
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
