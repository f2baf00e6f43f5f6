package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Kinds of error, matched with errors.Is on both sides of the socket. A Host's
// errors wrap one of them, with the object and what to do, or are failures.
var (
	// ErrNotFound: what is named is not there.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken, or it was done before.
	ErrExists = errors.New("exists already")
	// ErrHasChildren: there are clones of it, which have to be deleted first.
	ErrHasChildren = errors.New("has clones")
	// ErrInvalid: the request can never succeed, whatever the state.
	ErrInvalid = errors.New("invalid request")
	// ErrHalted: the vDisk is halted (rule P3).
	ErrHalted = errors.New("halted")
	// ErrElsewhere: another host has the vDisk, and is the one to ask.
	ErrElsewhere = errors.New("on another host")
	// ErrUnknownOutcome: it is not known yet whether it was done.
	ErrUnknownOutcome = errors.New("the outcome is not known yet")
	// ErrBusy: somebody uses it, or a limit is reached; a later attempt may succeed.
	ErrBusy = errors.New("busy")

	// ErrNoNamespace is ErrNotFound of a namespace, and ErrReplaced is ErrExists of the
	// replacement of a disk: the server gives other advice for them. A client sees the
	// wider kinds.
	ErrNoNamespace = fmt.Errorf("namespace: %w", ErrNotFound)
	ErrReplaced    = fmt.Errorf("replacement: %w", ErrExists)
)

// kinds is the table by which errors cross the socket: the name on the wire, the HTTP
// status, and what errors.Is matches on both sides. Names on the wire never change. An
// error that matches no row is "failed".
var kinds = []struct {
	name   string
	status int
	err    error
}{
	{"unknown-outcome", http.StatusGatewayTimeout, ErrUnknownOutcome}, // whatever the cause is
	{"not-found", http.StatusNotFound, ErrNotFound},
	{"exists", http.StatusConflict, ErrExists},
	{"has-children", http.StatusConflict, ErrHasChildren},
	{"invalid", http.StatusBadRequest, ErrInvalid},
	{"halted", http.StatusLocked, ErrHalted},
	{"elsewhere", http.StatusMisdirectedRequest, ErrElsewhere},
	{"busy", http.StatusServiceUnavailable, ErrBusy},
	{"canceled", 499, context.Canceled},
}

const failed = "failed"

// wireError is an error on the wire.
type wireError struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

// toWire returns err as it is sent, and the HTTP status beside it.
func toWire(err error) (wireError, int) {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return wireError{Kind: k.name, Message: err.Error()}, k.status
		}
	}
	return wireError{Kind: failed, Message: err.Error()}, http.StatusInternalServerError
}

// Kind returns the name of an error's kind, "not-running" if nobody was asked, and
// "failed" if it has none.
func Kind(err error) string {
	if errors.Is(err, ErrNotRunning) {
		return "not-running"
	}
	wire, _ := toWire(err)
	return wire.Kind
}

// RemoteError is an error that the server answered. It matches the kind that it had
// there.
type RemoteError struct {
	Message string
	kind    error // nil: of no kind
}

func (e *RemoteError) Error() string { return e.Message }
func (e *RemoteError) Unwrap() error { return e.kind }

func fromWire(w wireError) error {
	for _, k := range kinds {
		if k.name == w.Kind {
			return &RemoteError{Message: w.Message, kind: k.err}
		}
	}
	// "failed", or a kind of a later release.
	return &RemoteError{Message: w.Message}
}
