package proxy

import (
	"context"
	"errors"

	"openvstorage/backend"
	"openvstorage/internal/wire"
)

// ErrUnreachable: no proxy took the call, so it has not begun. The objects may be well.
var ErrUnreachable = errors.New("no proxy is reached")

// kind is an error as it travels. Numbers never change.
type kind uint16

const (
	kindOther             kind = 256
	kindNotFound          kind = 257
	kindExists            kind = 258
	kindConflict          kind = 259
	kindNamespaceNotFound kind = 260
	kindNamespaceExists   kind = 261
	kindCorrupt           kind = 262
	kindNoSpace           kind = 263
	kindName              kind = 264
	kindClosed            kind = 265
	kindKey               kind = 266
	kindUnavailable       kind = 267
	kindFailed            kind = 268
	kindDeadline          kind = 269
	kindBytes             kind = 270
	kindNotHeld           kind = 271
	kindNoRoom            kind = 272
)

// errNotHeld and errNoRoom are of this protocol alone.
var (
	errNotHeld = errors.New("nothing of that number is held")
	errNoRoom  = errors.New("the proxy has no memory for it now")
)

// sentinels are in the order in which they are looked for. An error may match several: the first
// is what it is.
var sentinels = []struct {
	kind kind
	err  error
}{
	{kindNamespaceNotFound, backend.ErrNamespaceNotFound}, {kindNamespaceExists, backend.ErrNamespaceExists},
	{kindNotFound, backend.ErrNotFound}, {kindExists, backend.ErrExists}, {kindConflict, backend.ErrConflict},
	{kindName, backend.ErrName}, {kindKey, backend.ErrKey}, {kindFailed, backend.ErrFailed}, {kindClosed, backend.ErrClosed},
	{kindCorrupt, backend.ErrCorrupt}, {kindNoSpace, backend.ErrNoSpace}, {kindUnavailable, backend.ErrUnavailable},
	{kindNotHeld, errNotHeld}, {kindNoRoom, errNoRoom}, {kindBytes, errBytes},
	{kindDeadline, context.DeadlineExceeded}, {kindDeadline, context.Canceled},
}

func kindOf(err error) kind {
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return s.kind
		}
	}
	return kindOther
}

// wordsMax is how many bytes of an error's words travel.
const wordsMax = 1024

// told is an error that a proxy told.
type told struct {
	kind  kind
	words string
}

func (e *told) Error() string { return e.words }

// Is reports whether target is what the error is. That a request's time has passed at the proxy
// is neither of the errors of a context: that of the caller may go on.
func (e *told) Is(target error) bool {
	if e.kind == kindDeadline {
		return false
	}
	for _, s := range sentinels {
		if s.kind == e.kind {
			return s.err == target
		}
	}
	return false
}

func words(err error) []byte {
	w := err.Error()
	return []byte(w[:min(len(w), wordsMax)])
}

// failed is the answer of a request that failed.
func failed(err error) wire.Answer {
	return wire.Answer{Status: uint16(kindOf(err)), Header: words(err)}
}

// outcome is what became of an attempt.
type outcome int

const (
	done     outcome = iota // the proxy has answered: that is it, success or not
	notBegun                // nothing was changed by it, and nothing will be; another proxy may do it
	unknown                 // it may have been done, or may be yet
)

// outcomeOf tells it from the attempt's error.
func outcomeOf(err error) outcome {
	var t *told
	switch {
	case err == nil:
		return done
	case errors.As(err, &t):
		switch t.kind {
		case kindClosed, kindFailed, kindNoRoom, kindNotHeld:
			return notBegun
		case kindDeadline:
			return unknown
		}
		return done
	case errors.Is(err, wire.ErrNotSent):
		return notBegun
	case errors.Is(err, wire.ErrUnknownOp), errors.Is(err, errBytes):
		return done
	}
	return unknown
}

// class says what may be done after an attempt whose outcome is unknown.
type class int

const (
	reads   class = iota // it changes nothing: again
	repeats              // a repeat changes nothing that the first did not: again
	once                 // a repeat could not tell what the first did: never again
)

// doubted is the error of a change of which an earlier attempt has an unknown outcome. It says
// only of what holds whatever became of that attempt that it is so.
type doubted struct{ err, before error }

func (e *doubted) Error() string {
	return e.err.Error() + "; an earlier attempt may have been done: " + e.before.Error()
}

// Is matches what cannot have come of the earlier attempt.
func (e *doubted) Is(target error) bool {
	switch target {
	case backend.ErrExists, backend.ErrNamespaceNotFound, backend.ErrNoSpace, backend.ErrUnavailable, context.Canceled, context.DeadlineExceeded:
		return errors.Is(e.err, target)
	}
	return false
}
