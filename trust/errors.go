package trust

import (
	"errors"
	"fmt"
)

// Errors that callers match with errors.Is. The text of what is returned says on which
// certificate, host or token, and what to do.
var (
	// ErrRefused is matched by a RefusedError: the table does not allow a call.
	ErrRefused = errors.New("refused")
	// ErrCertificate is matched by whatever is wrong with a peer's certificate. The
	// errors below it say what.
	ErrCertificate = errors.New("certificate refused")

	ErrNoCertificate = fmt.Errorf("%w: none was shown", ErrCertificate)
	ErrOtherCluster  = fmt.Errorf("%w: it is of another cluster", ErrCertificate)
	ErrOtherCA       = fmt.Errorf("%w: another authority signed it", ErrCertificate)
	ErrExpired       = fmt.Errorf("%w: it has expired", ErrCertificate)
	ErrNotYet        = fmt.Errorf("%w: it is not valid yet", ErrCertificate)
	ErrRevoked       = fmt.Errorf("%w: it was revoked", ErrCertificate)
	ErrUnrecorded    = fmt.Errorf("%w: the cluster has no record of it", ErrCertificate)
	ErrRemoved       = fmt.Errorf("%w: its host was removed", ErrCertificate)
	ErrWrongPeer     = fmt.Errorf("%w: it is not that of the expected peer", ErrCertificate)

	// ErrToken: a join token is damaged, unknown, used or expired. Whoever guesses
	// learns no more than that it is not known.
	ErrToken = errors.New("join token refused")
	// ErrSealed: the authority's key is not open in this process.
	ErrSealed = errors.New("the authority's key is sealed here")
	// ErrPassphrase: a passphrase does not open the authority's key, or is too short.
	ErrPassphrase = errors.New("wrong passphrase")
	// ErrNotFounded: the store has no authority yet.
	ErrNotFounded = errors.New("the cluster has no authority yet")
	// ErrFull: a limit on records is reached.
	ErrFull = errors.New("too many")
	// ErrContended: others changed the records each time that this change was tried. It
	// was not made, and can be tried again.
	ErrContended = errors.New("others kept changing the records")
	// ErrTooEarly: a certificate is too young to be renewed.
	ErrTooEarly = errors.New("too early to renew")
	// ErrInvalid: a request or an option says something that cannot be.
	ErrInvalid = errors.New("invalid")
	// ErrAbsent: nothing is recorded under that name.
	ErrAbsent = errors.New("not recorded")
)

// RefusedError says which call of which peer was refused, and why. It matches
// ErrRefused.
type RefusedError struct {
	Peer   string // as Peer.String() has it
	Call   string
	Object string // empty if the call has none
	Why    string
	Err    error // what was wrong with the certificate, nil if it was not that
}

// Error implements error.
func (e *RefusedError) Error() string {
	on := ""
	if e.Object != "" {
		on = " on " + e.Object
	}
	return fmt.Sprintf("%s of %s%s: refused: %s", e.Call, e.Peer, on, e.Why)
}

// Is makes every RefusedError match ErrRefused.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// Unwrap returns what was wrong with the peer's certificate.
func (e *RefusedError) Unwrap() error { return e.Err }

func invalid(text string, args ...any) error {
	return fmt.Errorf("trust: %w: "+text, append([]any{ErrInvalid}, args...)...)
}
