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
	// ErrUnknownOutcome: the wait ended before the answer. The write has happened,
	// or may still happen, or never will; a session can ask again.
	ErrUnknownOutcome = errors.New("arakoon: outcome unknown")
	// ErrBusy: too much is under way; nothing was done. Try again later.
	ErrBusy = errors.New("arakoon: busy")
	// ErrFailed: the log or the state has failed, or an entry was met that cannot be
	// applied and must not be skipped. The node must be opened again.
	ErrFailed = errors.New("arakoon: node has failed and must be opened again")
	// ErrClosed: the node was closed; nothing was done.
	ErrClosed = errors.New("arakoon: node closed")
	// ErrMissing: the member was made before, and the member or its log is missing.
	ErrMissing = errors.New("arakoon: member missing")
)

// ErrAssert is the error of a sequence that asserted something of a key that was not so.
type ErrAssert struct {
	Key  []byte
	Step int
}

func (e *ErrAssert) Error() string { return fmt.Sprintf("arakoon: assertion failed: key %q", e.Key) }

// ErrNotFound is the error for a key that is absent.
type ErrNotFound struct {
	Key []byte
}

func (e *ErrNotFound) Error() string { return fmt.Sprintf("arakoon: key %q not found", e.Key) }

// translate gives a failed assertion and an absent key types of their own. All other
// failures stay *Error, those of user functions among them.
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
