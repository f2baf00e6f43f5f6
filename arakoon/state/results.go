package state

import (
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
)

const (
	// ResultsMax is how many bytes the results of one command may have, encoded, in a group of
	// LevelBounded or above.
	ResultsMax = 32 << 20
	// ResultHead is what a result takes in bytes but for its value, encoded.
	ResultHead = 1 + 8 + 4
	// LevelBounded is the level from which on results have a bound.
	LevelBounded = 2
)

// answers counts the result of a step. Steps of a few bytes can each return a value of
// ValueMax, so without a bound a command's results could take all memory, on each member. A
// group below LevelBounded goes on without one, as all its members must come to the same.
func (t *tx) answers(r Result) *Error {
	t.results += ResultHead + len(r.Value)
	if t.results <= ResultsMax || t.level < LevelBounded && !t.under.trial() {
		return nil
	}
	return &Error{Code: CodeTooLarge, Message: fmt.Sprintf("the results up to this step have more than %d bytes; ask for fewer values at once", ResultsMax)}
}

// returnsValue reports whether the result of a kind of step has a value of the database.
func returnsValue(op byte) bool { return op == opTestAndSet || op == opReplace }

// MayAnswerMuch reports whether the results of a sequence may have more than ResultsMax bytes,
// as far as its steps tell: what functions return is not known. Only then is TryResults worth
// its time.
func (s *Sequence) MayAnswerMuch() bool {
	return s.steps*ResultHead+s.values*ValueMax > ResultsMax
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

// ApplyOf is Apply for a member that answers the commands of one origin alone: outcomes of
// others are empty. Thousands of commands can be applied at a time, each with results of
// ResultsMax, and on most members nobody waits for them.
func (s *State) ApplyOf(origin uint64, entries []*pb.Entry, change ConfChange) ([]Applied, error) {
	s.only = origin
	return s.Apply(entries, change)
}
