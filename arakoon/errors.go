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
	// ErrFull: what was asked waits for room on the disk of a member that it cannot do without.
	// It goes on by itself when there is some. It comes along with the error that says what is
	// known of the outcome.
	ErrFull = errors.New("arakoon: disk is full")
	// ErrBusy: too much is under way; nothing was done. Try again later.
	ErrBusy = errors.New("arakoon: busy")
	// ErrFailed: the log or the state has failed, or an entry was met that cannot be
	// applied and must not be skipped. The node must be opened again.
	ErrFailed = errors.New("arakoon: node has failed and must be opened again")
	// ErrClosed: the node was closed; nothing was done.
	ErrClosed = errors.New("arakoon: node closed")
	// ErrChanging: another change of the members runs; nothing was done.
	ErrChanging = errors.New("arakoon: a change of the members is under way")
	// ErrUsed: the group has had a member of that id, which is never taken again.
	ErrUsed = errors.New("arakoon: id was used before")
	// ErrMembers: a group cannot have these members; nothing was done.
	ErrMembers = errors.New("arakoon: members refused")
	// ErrNotCaughtUp: matched by *NotCaughtUpError.
	ErrNotCaughtUp = errors.New("arakoon: member has not caught up")
	// ErrTransfer: the lead was not given away; this member leads as before.
	ErrTransfer = errors.New("arakoon: lead not given away")
	// ErrLost: the member's log has lost what the member had acknowledged: its files
	// were wiped, or an old copy is in their place.
	ErrLost = errors.New("arakoon: member's log was lost")
	// ErrMissing: the member was made before, and the member or its log is missing.
	ErrMissing = errors.New("arakoon: member missing")
)

// NotLeaderError says that this member does not lead, and who does. Nothing was done.
type NotLeaderError struct {
	Leader uint64 // 0: nobody is known to lead
}

func (e *NotLeaderError) Error() string {
	if e.Leader == 0 {
		return ErrNotLeader.Error() + ", and none is known"
	}
	return fmt.Sprintf("%v, member %d is", ErrNotLeader, e.Leader)
}

func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// NotCaughtUpError says how far behind a member is that was to become a voter or to lead.
type NotCaughtUpError struct {
	Member uint64
	Match  uint64 // up to this entry it holds the log
	Commit uint64 // up to this entry the log is committed
	Active bool   // it is heard from
}

func (e *NotCaughtUpError) Error() string {
	if !e.Active {
		return fmt.Sprintf("%v: member %d is not heard from", ErrNotCaughtUp, e.Member)
	}
	behind := e.Commit - min(e.Match, e.Commit)
	return fmt.Sprintf("%v: member %d holds entries up to %d of %d, %d are missing and at most %d may be", ErrNotCaughtUp, e.Member, e.Match, e.Commit, behind, caughtUpLag)
}

func (e *NotCaughtUpError) Is(target error) bool { return target == ErrNotCaughtUp }

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
