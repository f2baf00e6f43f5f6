package volumedriver

import (
	"errors"
	"fmt"
	"io"

	"openvstorage/backend"
	"openvstorage/volumedriver/registry"
)

// Kinds of error, matched with errors.Is. The error of a method wraps one of them, names
// the object and says what to do. Package host translates them for callers outside of
// this process.
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
	// ErrUnknownOutcome: whether it was done is not known yet. Until it is known, the
	// object is closed, and listed with the reason.
	ErrUnknownOutcome = errors.New("the outcome is not known yet")
	// ErrElsewhere: another host has the vDisk, and is the one to ask. The error says which.
	ErrElsewhere = errors.New("on another host")
	// ErrBusy: it is in use by somebody, or a limit is reached; a later
	// attempt may succeed.
	ErrBusy = errors.New("busy")
)

// kinded is an error with a kind that its text does not mention.
type kinded struct{ err, kind error }

func (k kinded) Error() string   { return k.err.Error() }
func (k kinded) Unwrap() []error { return []error{k.kind, k.err} }

// invalidf is an error of kind ErrInvalid. "Invalid request" would add nothing to a
// text that says what is wrong.
func invalidf(format string, args ...any) error {
	return kinded{err: fmt.Errorf(format, args...), kind: ErrInvalid}
}

// errUnanswered: the backend did not answer a read. That is no damage: the vDisk is
// opened when the backend answers.
var errUnanswered = errors.New("the backend has not answered")

// unanswered marks the error of a read of the backend with errUnanswered, if it says
// nothing about what the backend holds.
func unanswered(err error) error {
	if backend.Unknown(err) && !errors.Is(err, backend.ErrCorrupt) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", errUnanswered, err)
	}
	return err
}

// errParentClosed: a clone cannot be opened before its parent.
var errParentClosed = errors.New("its parent is not open")

// parentClosed is errParentClosed with the parent's name and why it is not open. What is
// not known of the parent's opening is no part of the clone's: nothing else matches.
func parentClosed(p *Volume) error {
	cause := p.Err()
	if u := p.closedBy(); u != nil {
		cause = errors.New(u.why())
	}
	if cause == nil {
		return fmt.Errorf("vDisk %q: %w", p.Name(), errParentClosed)
	}
	return fmt.Errorf("%w: vDisk %q: %v", errParentClosed, p.Name(), cause)
}

// earlier is the error of an earlier operation that another one has waited for. It does
// not match ErrUnknownOutcome: the later operation has not begun, and that is known.
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
	{registry.ErrNotOwner, ErrElsewhere},
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
