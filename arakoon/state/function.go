package state

import (
	"errors"
	"fmt"
	"time"
)

// Codes of Error. Those from CodeUser on are user functions' own.
const (
	CodeAssert         = 1 // Key is not as asserted
	CodeNotFound       = 2 // Key is absent
	CodeTooLarge       = 3
	CodeBadCommand     = 4  // its bytes are not steps
	CodeSessionExpired = 5  // the session was never opened, or newer ones took its place
	CodeStale          = 6  // a newer request of the session was applied
	CodeResultLost     = 7  // the request was applied, but its result was too large to be kept
	CodeFunction       = 8  // a function returned an error without a code
	CodeLeaseHeld      = 9  // Key is the name of a lease that another owner holds
	CodeLeaseLost      = 10 // Key is the name of a lease that is not held under this fence
	CodeTooManyLeases  = 11
	CodeLevel          = 12 // the group may not come to this level so
	CodeUser           = 1 << 16
)

// Error is a command's result if a step of it failed. It is the same on every member, and
// the command has had no effect.
type Error struct {
	Code    uint32
	Step    int // which step of the sequence failed, from 0
	Key     []byte
	Message string
}

func (e *Error) Error() string {
	if len(e.Key) > 0 {
		return fmt.Sprintf("%s: key %q (step %d, code %d)", e.Message, e.Key, e.Step, e.Code)
	}
	return fmt.Sprintf("%s (step %d, code %d)", e.Message, e.Step, e.Code)
}

// Is makes errors of one code equal to errors.Is.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Tx is the database as a user function sees it: with the function's own writes, and
// those of the steps before it. Both sides may keep the slices that they are given. A
// function never sees a failure of the disk: it stops the member.
type Tx interface {
	// Get returns a key's value, which must not be changed.
	Get(key []byte) (value []byte, found bool)
	Set(key, value []byte)
	// Delete says whether the key was there.
	Delete(key []byte) (found bool)
	// Range calls fn for the keys in [first, last), ascending. It ends when fn
	// returns false, and after limit keys if limit is above 0. A last of nil means to
	// the end. A Range does not see what fn writes.
	Range(first, last []byte, limit int, fn func(key, value []byte) bool)
	// Reverse is Range from the high end.
	Reverse(first, last []byte, limit int, fn func(key, value []byte) bool)
	// Time is the proposer's, never before that of a command applied earlier.
	Time() time.Time
}

// Function is a user function. Run must depend on the transaction and the argument alone:
// no clock, no randomness, no order of a map. It must not change its argument. If it
// returns an *Error, that is the command's result. An error made by Stop stops the member.
// Any other error becomes an *Error with CodeFunction and its text. A version that a log
// mentions must stay registered.
type Function struct {
	Name    string
	Version uint32
	Run     func(tx Tx, arg []byte) ([]byte, error)
	// Check may be nil. It refuses an argument on which Run would stop the member, and
	// is asked before a call is proposed. It sees no state.
	Check func(arg []byte) error
	// Level is that of the group from which on a call may be proposed: the first level
	// at which every member knows the function. 0 is any level.
	Level uint32
}

// Stop makes the error of a function that cannot read its argument, or something in the
// database, because a newer release wrote it. If it went on, members of different
// releases would come to have different states. The member stops, with nothing of the
// entry applied, and err says what to do.
func Stop(err error) error { return &stopError{err} }

type stopError struct{ error }

func (e *stopError) Unwrap() error { return e.error }

// ErrUnknownFunction is matched by the error of a member that met a call of a function,
// or of a version, that it does not have. The member has stopped, and must be started
// with a release that has the function.
var ErrUnknownFunction = errors.New("user function is not registered")

// UnknownFunctionError says which function it is.
type UnknownFunctionError struct {
	Name    string
	Version uint32
}

func (e *UnknownFunctionError) Error() string {
	return fmt.Sprintf("user function %s, version %d, is not registered; run a release that has it", e.Name, e.Version)
}

// Is makes it match ErrUnknownFunction.
func (e *UnknownFunctionError) Is(target error) bool { return target == ErrUnknownFunction }

type functionKey struct {
	name    string
	version uint32
}

// Registry is the functions that a member has. It does not change.
type Registry struct {
	functions map[functionKey]Function
}

// NewRegistry makes a registry; a name and version may be given once.
func NewRegistry(functions ...Function) (*Registry, error) {
	r := &Registry{functions: map[functionKey]Function{}}
	for _, f := range functions {
		k := functionKey{f.Name, f.Version}
		if _, ok := r.functions[k]; ok || f.Name == "" || f.Run == nil {
			return nil, fmt.Errorf("state: user function %q, version %d: registered twice, or without a name or code", f.Name, f.Version)
		}
		r.functions[k] = f
	}
	return r, nil
}

// check refuses a call that would stop this member: of a function that it does not have,
// or with an argument that the function cannot read.
func (r *Registry) check(k functionKey, arg []byte) error {
	f, ok := r.functions[k]
	if !ok {
		return &UnknownFunctionError{k.name, k.version}
	}
	if f.Check == nil {
		return nil
	}
	return f.Check(arg)
}

// Has says whether a version of a function is registered.
func (r *Registry) Has(name string, version uint32) bool {
	_, ok := r.functions[functionKey{name, version}]
	return ok
}
