package volumedriver

import (
	"errors"
	"fmt"
	"io"

	"openvstorage/backend"
	"openvstorage/volumedriver/registry"
)

// Kinds of error, matched with errors.Is. What a method returns wraps one of
// them with the object and what to do. Package host says what kind
// of error each is to those who manage vDisks.
var (
	// ErrNotFound: there is no vDisk or snapshot of that name.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken.
	ErrExists = errors.New("exists already")
	// ErrHasChildren: clones hang off it; they have to go first.
	ErrHasChildren = errors.New("has clones")
	// ErrInvalid: the request can never succeed, whatever the state: a bad
	// name, a size that is no multiple of a cluster, a shrink.
	ErrInvalid = errors.New("invalid request")
	// ErrHalted: the vDisk is halted (rule P3): only verified reads go on.
	ErrHalted = errors.New("halted")
	// ErrUnknownOutcome: whether it was done is not known yet. What it was done to
	// is closed until it is, and is listed with the reason.
	ErrUnknownOutcome = errors.New("the outcome is not known yet")
	// ErrBusy: it is in use by somebody, or a limit is reached; a later
	// attempt may succeed.
	ErrBusy = errors.New("busy")
)

// kinded is an error whose text says all, and whose kind is known besides.
type kinded struct{ err, kind error }

func (k kinded) Error() string   { return k.err.Error() }
func (k kinded) Unwrap() []error { return []error{k.kind, k.err} }

// invalidf is an error of kind ErrInvalid. "Invalid request" would add nothing to a
// text that says what is wrong.
func invalidf(format string, args ...any) error {
	return kinded{err: fmt.Errorf(format, args...), kind: ErrInvalid}
}

// errUnanswered: the backend has not told what is in it. That is no damage: the
// vDisk is opened when it does.
var errUnanswered = errors.New("the backend has not answered")

// unanswered marks an error of reading the backend that says nothing of what is
// in it.
func unanswered(err error) error {
	if backend.Unknown(err) && !errors.Is(err, backend.ErrCorrupt) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", errUnanswered, err)
	}
	return err
}

// errParentClosed: a clone cannot be opened before its parent.
var errParentClosed = errors.New("its parent is not open")

// earlier is why something else failed that an operation has waited for. What
// became of that one says nothing of this: it does not match ErrUnknownOutcome.
type earlier struct{ err error }

func (e earlier) Error() string { return e.err.Error() }

func (e earlier) Is(target error) bool {
	return target != ErrUnknownOutcome && target != registry.ErrUnknownOutcome && errors.Is(e.err, target)
}

func (e earlier) As(target any) bool { return errors.As(e.err, target) }

// registryKinds are the kinds of the registry's errors.
var registryKinds = []struct{ err, kind error }{
	{registry.ErrNameTaken, ErrExists},
	{registry.ErrNotFound, ErrNotFound},
	{registry.ErrName, ErrInvalid},
	{registry.ErrMany, ErrInvalid},
	{registry.ErrFull, ErrBusy},
}

// registryError gives an error of the registry its kind.
func registryError(err error) error {
	for _, k := range registryKinds {
		if errors.Is(err, k.err) {
			return kinded{err: err, kind: k.kind}
		}
	}
	return err
}
