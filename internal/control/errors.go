package control

import (
	"context"
	"errors"
	"net/http"

	"openvstorage/alba/abm"
	"openvstorage/alba/embedded"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/volumedriver"
)

// kinds is the one table by which an error crosses the socket: the name on the
// wire, the HTTP status, and what errors.Is finds on both sides. Names on the
// wire never change. An error of no kind is "failed".
var kinds = []struct {
	name   string
	status int
	err    error
}{
	{"unknown-outcome", http.StatusGatewayTimeout, volumedriver.ErrUnknownOutcome}, // whatever the cause is
	{"not-found", http.StatusNotFound, volumedriver.ErrNotFound},
	{"exists", http.StatusConflict, volumedriver.ErrExists},
	{"has-children", http.StatusConflict, volumedriver.ErrHasChildren},
	{"invalid", http.StatusBadRequest, volumedriver.ErrInvalid},
	{"halted", http.StatusLocked, volumedriver.ErrHalted},
	{"busy", http.StatusServiceUnavailable, volumedriver.ErrBusy},
	{"canceled", 499, context.Canceled},

	// Those of ALBA. A client sees the kinds above: the first of a name counts.
	{"not-found", http.StatusNotFound, embedded.ErrNoOSD},
	{"not-found", http.StatusNotFound, abm.ErrNotFound},
	{"not-found", http.StatusNotFound, abm.ErrNamespaceNotFound},
	{"exists", http.StatusConflict, abm.ErrExists},
	{"exists", http.StatusConflict, abm.ErrConflict},
	{"exists", http.StatusConflict, embedded.ErrReplaced},
	{"busy", http.StatusServiceUnavailable, abm.ErrInUse},
	{"invalid", http.StatusBadRequest, preset.ErrPreset},
	{"invalid", http.StatusBadRequest, policy.ErrPolicy},
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

// RemoteError is an error that the server answered. errors.Is matches the
// kind that it had there.
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
