package fleet

import "time"

// ErrNotAnswering is matched, beside ErrMissing, by the error of calls on a disk
// that is attached and does not answer: a request has been under way for longer
// than any disk takes that is well. Nothing more is asked of it until what it was
// asked has come back; then it is there again, by itself.
var ErrNotAnswering error = notAnswering{}

type notAnswering struct{}

func (notAnswering) Error() string { return "disk does not answer" }

// Is reports whether target is ErrMissing.
func (notAnswering) Is(target error) bool { return target == ErrMissing }

// State is how a disk does, as far as those who use it can tell.
type State int

// The states, the worst last.
const (
	Well    State = iota
	Slow          // far slower than the others: it is read from and written to last
	Failing       // its writes fail, or it does not answer
)

func (s State) String() string { return [...]string{"ok", "slow", "failing"}[s] }

// Condition is a state, why, and since when. Of a disk that is well the last two
// are their zero values.
type Condition struct {
	State  State
	Reason string
	Since  time.Time
}
