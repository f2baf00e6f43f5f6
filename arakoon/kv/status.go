package kv

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/arakoon"
	"openvstorage/arakoon/state"
	"openvstorage/internal/wire"
)

// Statuses: wire.StatusService and a code. Codes up to 0xff with the names of the original
// have the original's numbers. Numbers never change.
const (
	StatusNotMaster       = wire.StatusService + 0x04 // NOT_MASTER: this member does not lead; nothing was done
	StatusNotFound        = wire.StatusService + 0x05 // NOT_FOUND: the key is absent
	StatusAssert          = wire.StatusService + 0x07 // ASSERTION_FAILED: the key is not as asserted; nothing was done
	StatusGoingDown       = wire.StatusService + 0x10 // GOING_DOWN: the member is being closed; nothing was done
	StatusNotSupported    = wire.StatusService + 0x20 // NOT_SUPPORTED
	StatusNoLongerMaster  = wire.StatusService + 0x21 // NO_LONGER_MASTER: the outcome is unknown
	StatusBadInput        = wire.StatusService + 0x26 // BAD_INPUT: nothing was done, and never will be
	StatusInconsistent    = wire.StatusService + 0x80 // INCONSISTENT_READ: the member has not come to that revision in time
	StatusUserFunction    = wire.StatusService + 0x81 // USERFUNCTION_FAILURE: a function said no; nothing was done
	StatusUnknown         = wire.StatusService + 0xff // UNKNOWN: something else, such as a read error
	StatusBusy            = wire.StatusService + 0x100
	StatusFailed          = wire.StatusService + 0x101 // the member must be opened again; nothing was done
	StatusSession         = wire.StatusService + 0x102 // the session says no: see the code
	StatusUnknownFunction = wire.StatusService + 0x103 // the member has no such function; nothing was done
	StatusStep            = wire.StatusService + 0x104 // a step failed with a code that has no status of its own
	StatusDeadline        = wire.StatusService + 0x105 // a read was not settled in time
	StatusTransfer        = wire.StatusService + 0x106 // the lead was not given away
	StatusCompacted       = wire.StatusService + 0x107 // the events of that revision are not kept any more
	StatusLevel           = wire.StatusService + 0x108 // the group's level is too low for the sequence; nothing was done
	StatusZones           = wire.StatusService + 0x10a // too few zones are there; nothing was done
	StatusLife            = wire.StatusService + 0x109 // the group has another life than when the connection was made; nothing was done
)

// statusNames are what people call the statuses.
var statusNames = map[uint16]string{
	StatusNotMaster: "NOT_MASTER", StatusNotFound: "NOT_FOUND", StatusAssert: "ASSERTION_FAILED", StatusGoingDown: "GOING_DOWN",
	StatusNotSupported: "NOT_SUPPORTED", StatusNoLongerMaster: "NO_LONGER_MASTER", StatusBadInput: "BAD_INPUT",
	StatusInconsistent: "INCONSISTENT_READ", StatusUserFunction: "USERFUNCTION_FAILURE", StatusUnknown: "UNKNOWN",
	StatusBusy: "BUSY", StatusFailed: "FAILED", StatusSession: "SESSION", StatusUnknownFunction: "UNKNOWN_FUNCTION",
	StatusStep: "STEP_FAILED", StatusDeadline: "DEADLINE", StatusTransfer: "NOT_TRANSFERRED", StatusCompacted: "COMPACTED", StatusLevel: "LEVEL", StatusLife: "LIFE", StatusZones: "ZONES",
}

// StatusName is the name of a status, "" if this release knows none.
func StatusName(status uint16) string { return statusNames[status] }

// Errors that a member has told and that package arakoon has no name for.
var (
	// ErrBadInput: the request makes no sense to the member, or would stop it. Nothing was
	// done, and sending it again is of no use.
	ErrBadInput = errors.New("bad input")
	// ErrInconsistent: the member has not come to the revision that the read must see.
	ErrInconsistent = errors.New("inconsistent read")
	// ErrNotSupported: the member cannot do this.
	ErrNotSupported = errors.New("not supported")
	// ErrDeadline: the member could not make sure in time that the read is consistent.
	ErrDeadline = errors.New("not settled in time")
	// ErrOther: something went wrong at the member, as the words say.
	ErrOther = errors.New("request failed")
)

// Failure is what a header says of a request that failed.
type Failure struct {
	Status uint16 // with the header on the wire, not in it
	Number uint64
	Code   uint32
	Step   uint32
	Key    []byte
	Words  string
}

// failureOf says what is told of an error. Any error of a write that has no status of its
// own came before it was proposed.
func failureOf(err error, write bool) Failure {
	f := Failure{Words: err.Error()}
	var (
		absent  *arakoon.ErrNotFound
		assert  *arakoon.ErrAssert
		step    *arakoon.Error
		unknown *state.UnknownFunctionError
		other   *arakoon.NotLeaderError
		gone    *arakoon.ErrCompacted
		level   *arakoon.LevelError
	)
	switch {
	// First: it is matched along with the reason why the outcome is not known.
	case errors.Is(err, arakoon.ErrUnknownOutcome):
		f.Status = StatusNoLongerMaster
	case errors.As(err, &other):
		f.Status, f.Number, f.Words = StatusNotMaster, other.Leader, ""
	case errors.As(err, &gone):
		f.Status, f.Number, f.Words = StatusCompacted, gone.First, ""
	case errors.As(err, &level):
		f.Status, f.Code, f.Step, f.Words = StatusLevel, level.Need, level.Has, ""
	case errors.Is(err, arakoon.ErrNotLeader):
		f.Status = StatusNotMaster
	case errors.As(err, &absent):
		f.Status, f.Key, f.Words = StatusNotFound, absent.Key, ""
	case errors.As(err, &assert):
		f.Status, f.Key, f.Step, f.Words = StatusAssert, assert.Key, uint32(assert.Step), ""
	case errors.As(err, &step):
		f.Status, f.Code, f.Step, f.Key, f.Words = statusOfCode(step.Code), step.Code, uint32(step.Step), step.Key, step.Message
	case errors.As(err, &unknown):
		f.Status, f.Key, f.Step = StatusUnknownFunction, []byte(unknown.Name), unknown.Version
	default:
		f.Status = statusOf(err, write)
	}
	return f
}

// statusOfCode is the status of a step that failed.
func statusOfCode(code uint32) uint16 {
	switch {
	case code == state.CodeTooLarge || code == state.CodeBadCommand:
		return StatusBadInput
	case code == state.CodeSessionExpired || code == state.CodeStale || code == state.CodeResultLost:
		return StatusSession
	case code == state.CodeFunction || code >= state.CodeUser:
		return StatusUserFunction
	}
	return StatusStep
}

// statusOf is the status of an error that carries nothing but words.
func statusOf(err error, write bool) uint16 {
	for _, of := range []struct {
		err    error
		status uint16
	}{
		{arakoon.ErrZones, StatusZones}, {arakoon.ErrBusy, StatusBusy}, {arakoon.ErrClosed, StatusGoingDown}, {arakoon.ErrFailed, StatusFailed}, {wire.ErrLife, StatusLife},
		{arakoon.ErrTransfer, StatusTransfer}, {arakoon.ErrNotCaughtUp, StatusTransfer}, {ErrInconsistent, StatusInconsistent}, {ErrBadInput, StatusBadInput}, {ErrNotSupported, StatusNotSupported},
		{context.DeadlineExceeded, StatusDeadline}, {context.Canceled, StatusDeadline},
		{state.ErrCorrupt, StatusBadInput}, {state.ErrNewer, StatusBadInput},
	} {
		if errors.Is(err, of.err) {
			return of.status
		}
	}
	if write {
		return StatusBadInput
	}
	return StatusUnknown
}

// Err is the inverse: the error that the caller of a member in its own process would have
// had, or one of this package's.
func (f *Failure) Err() error {
	switch f.Status {
	case StatusNotFound:
		return &arakoon.ErrNotFound{Key: f.Key}
	case StatusAssert:
		return &arakoon.ErrAssert{Key: f.Key, Step: int(f.Step)}
	case StatusNotMaster:
		return &arakoon.NotLeaderError{Leader: f.Number}
	case StatusCompacted:
		return &arakoon.ErrCompacted{First: f.Number}
	case StatusLevel:
		return &arakoon.LevelError{Need: f.Code, Has: f.Step}
	case StatusUserFunction, StatusSession, StatusStep:
		return f.step()
	case StatusBadInput:
		if f.Code != 0 {
			return f.step()
		}
		return &told{ErrBadInput, f.Words}
	case StatusUnknownFunction:
		return &state.UnknownFunctionError{Name: string(f.Key), Version: f.Step}
	}
	for status, err := range plainStatuses {
		if f.Status == status {
			return &told{err, f.Words}
		}
	}
	return fmt.Errorf("%w: status %d, which this release does not know: %s", ErrOther, f.Status, f.Words)
}

func (f *Failure) step() error {
	return &arakoon.Error{Code: f.Code, Step: int(f.Step), Key: f.Key, Message: f.Words}
}

// plainStatuses are those whose errors say no more than words.
var plainStatuses = map[uint16]error{
	StatusNoLongerMaster: arakoon.ErrUnknownOutcome, StatusBusy: arakoon.ErrBusy, StatusGoingDown: arakoon.ErrClosed,
	StatusFailed: arakoon.ErrFailed, StatusInconsistent: ErrInconsistent, StatusNotSupported: ErrNotSupported,
	StatusTransfer: arakoon.ErrTransfer, StatusDeadline: ErrDeadline, StatusUnknown: ErrOther, StatusLife: wire.ErrLife, StatusZones: arakoon.ErrZones,
}

// told is an error with the words of the member that gave it.
type told struct {
	is    error
	words string
}

func (e *told) Error() string { return e.words }
func (e *told) Unwrap() error { return e.is }
