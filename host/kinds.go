package host

import (
	"context"
	"errors"

	"openvstorage/alba/abm"
	albahere "openvstorage/alba/embedded"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/host/attach"
	"openvstorage/internal/control"
	"openvstorage/volumedriver"
)

// kinds are the kinds of error of all that is managed here, and what the management
// protocol makes of them. The first row that matches counts.
var kinds = []struct{ of, is error }{
	{volumedriver.ErrUnknownOutcome, control.ErrUnknownOutcome}, // whatever the cause is
	{volumedriver.ErrNotFound, control.ErrNotFound},
	{volumedriver.ErrExists, control.ErrExists},
	{volumedriver.ErrHasChildren, control.ErrHasChildren},
	{volumedriver.ErrInvalid, control.ErrInvalid},
	{volumedriver.ErrHalted, control.ErrHalted},
	{volumedriver.ErrElsewhere, control.ErrElsewhere},
	{volumedriver.ErrBusy, control.ErrBusy},
	{context.Canceled, context.Canceled}, // of no other kind below

	{attach.ErrNotFound, control.ErrNotFound},
	{attach.ErrInvalid, control.ErrInvalid},
	{attach.ErrBusy, control.ErrBusy},

	{albahere.ErrNoOSD, control.ErrNotFound},
	{abm.ErrNotFound, control.ErrNotFound},
	{abm.ErrNamespaceNotFound, control.ErrNoNamespace},
	{abm.ErrExists, control.ErrExists},
	{abm.ErrConflict, control.ErrExists},
	{albahere.ErrReplaced, control.ErrReplaced},
	{abm.ErrInUse, control.ErrBusy},
	{preset.ErrPreset, control.ErrInvalid},
	{policy.ErrPolicy, control.ErrInvalid},
}

// kindError is an error that matches another kind, too.
type kindError struct {
	error
	is error
}

func (e *kindError) Unwrap() []error { return []error{e.error, e.is} }

// Kind returns an error that says the same and matches the kind of the management
// protocol for it, if there is one.
func Kind(err error) error {
	for _, row := range kinds {
		if errors.Is(err, row.of) {
			return &kindError{err, row.is}
		}
	}
	return err
}
