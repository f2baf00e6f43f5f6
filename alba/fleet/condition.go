package fleet

import "time"

// ErrNotAnswering is matched, beside ErrMissing, by the error of calls on a disk that is
// attached and does not answer: a request has been under way for longer than a disk takes
// that is well. Nothing more is asked of the disk until that request has come back; then
// the disk is there again by itself.
var ErrNotAnswering error = notAnswering{}

type notAnswering struct{}

func (notAnswering) Error() string { return "disk does not answer" }

// Is reports whether target is ErrMissing.
func (notAnswering) Is(target error) bool { return target == ErrMissing }

// State is how a disk does, as its users see it.
type State int

// The states, the worst last.
const (
	Well    State = iota
	Slow          // far slower than the others: it is read from and written to last
	Failing       // its writes fail, or it does not answer
)

func (s State) String() string { return [...]string{"ok", "slow", "failing"}[s] }

// Condition is the state of a disk, why, and since when. If the disk is well, Reason and
// Since are zero.
type Condition struct {
	State  State
	Reason string
	Since  time.Time
}
