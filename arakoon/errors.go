package arakoon

import (
	"errors"
	"fmt"

	"openvstorage/arakoon/state"
)

// Errors that callers match with errors.Is.
var (
	// ErrNotLeader: this member does not lead; nothing was done.
	ErrNotLeader = errors.New("arakoon: not the leader")
	// ErrUnknownOutcome: the wait ended before the answer. The write may happen
	// or may have happened; a session can ask again.
	ErrUnknownOutcome = errors.New("arakoon: outcome unknown")
	// ErrBusy: too much is under way; nothing was done. Try again later.
	ErrBusy = errors.New("arakoon: busy")
	// ErrFailed: the log or the state has failed, or met what it must not skip.
	// The node must be opened again.
	ErrFailed = errors.New("arakoon: node has failed and must be opened again")
	// ErrClosed: the node was closed; nothing was done.
	ErrClosed = errors.New("arakoon: node closed")
	// ErrMissing: the member was made before, and it or its log is not there.
	ErrMissing = errors.New("arakoon: member missing")
)

// ErrAssert says which key was not as a sequence asserted.
type ErrAssert struct {
	Key  []byte
	Step int
}

func (e *ErrAssert) Error() string { return fmt.Sprintf("arakoon: assertion failed: key %q", e.Key) }

// ErrNotFound says which key is absent.
type ErrNotFound struct {
	Key []byte
}

func (e *ErrNotFound) Error() string { return fmt.Sprintf("arakoon: key %q not found", e.Key) }

// translate gives results that are errors their types. Those of user functions
// and others stay *Error.
func translate(e *Error) error {
	switch {
	case e == nil:
		return nil
	case e.Code == state.CodeAssert:
		return &ErrAssert{Key: e.Key, Step: e.Step}
	case e.Code == state.CodeNotFound:
		return &ErrNotFound{Key: e.Key}
	}
	return e
}
