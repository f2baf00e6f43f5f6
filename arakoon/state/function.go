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
	CodeBadCommand     = 4 // its steps are none
	CodeSessionExpired = 5 // the session was never opened, or put out by newer ones
	CodeStale          = 6 // a newer request of the session was applied
	CodeResultLost     = 7 // the request was applied, but its result was too large to be kept
	CodeFunction       = 8 // a function returned an error without a code
	CodeUser           = 1 << 16
)

// Error is a result like any other: it is the same on every member, and the
// command has had no effect.
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

// Tx is the database as a user function sees it: with its own writes, and
// those of the steps before it. Slices given and taken may be kept. Failures of
// the disk do not show: they stop the member.
type Tx interface {
	// Get returns a key's value; it is not to be changed.
	Get(key []byte) (value []byte, found bool)
	Set(key, value []byte)
	// Delete says whether the key was there.
	Delete(key []byte) (found bool)
	// Range calls fn for the keys in [first, last), ascending, last nil for all,
	// at most limit of them if it is above 0, until fn returns false. What fn
	// writes is not seen by this Range.
	Range(first, last []byte, limit int, fn func(key, value []byte) bool)
	// Reverse is Range from the high end.
	Reverse(first, last []byte, limit int, fn func(key, value []byte) bool)
	// Time is the proposer's, never before that of a command applied earlier.
	Time() time.Time
}

// Function is a user function. Run must depend on nothing but the transaction
// and its argument, which it must not change: no clock, no randomness, no order
// of a map. An *Error that
// it returns is the command's result; any other error becomes one with
// CodeFunction and its text, and one of Stop stops the member. A version that a
// log mentions must stay registered.
type Function struct {
	Name    string
	Version uint32
	Run     func(tx Tx, arg []byte) ([]byte, error)
	// Check, if there is one, refuses an argument on which Run would stop the
	// member. It sees no state. Whoever proposes a call asks it first.
	Check func(arg []byte) error
}

// Stop is for a function that meets what its release cannot read, in its argument
// or in the database: members of different releases would go on differently. The
// member stops, with nothing of the entry applied, and err says what to do.
func Stop(err error) error { return &stopError{err} }

type stopError struct{ error }

func (e *stopError) Unwrap() error { return e.error }

// ErrUnknownFunction is matched by the error of a member that met a call of a
// function or version that it does not have. It has stopped: start it with a
// release that has it.
var ErrUnknownFunction = errors.New("user function is not registered")

// UnknownFunctionError says which.
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

// check refuses a call on which this member would stop: of a function that it does
// not have, or with an argument that it cannot read.
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
