package wire

import (
	"errors"
	"fmt"
)

// What became of a request whose call failed. Every error of Conn.Call matches one of the
// two, but for those that a peer's handler gave after it ran (ErrUnknownOp).
var (
	// ErrNotSent: the peer did not begin with the request and never will. It did not leave
	// whole, or the peer refused it unread. Sending it again is safe.
	ErrNotSent = errors.New("request was not sent")
	// ErrOutcomeUnknown: the request left whole and its answer did not come. The peer may
	// have done it, or do it yet.
	ErrOutcomeUnknown = errors.New("outcome unknown")
)

// Why a connection was refused or ended, or a call failed.
var (
	ErrVersion   = errors.New("no version of the wire in common")
	ErrCluster   = errors.New("another cluster")
	ErrLife      = errors.New("another life of the group")
	ErrLevel     = errors.New("feature level not supported")
	ErrService   = errors.New("unknown service")
	ErrGroup     = errors.New("unknown group")
	ErrDenied    = errors.New("denied")
	ErrBusy      = errors.New("too busy")
	ErrClosing   = errors.New("closing")
	ErrProtocol  = errors.New("protocol violated")
	ErrChecksum  = errors.New("checksum does not match")
	ErrTooLarge  = errors.New("too large")
	ErrUnknownOp = errors.New("unknown operation")
	ErrCancelled = errors.New("cancelled")
	ErrDead      = errors.New("peer is silent")
	ErrClosed    = errors.New("connection is closed")
)

// Code is a reason as it is on the wire: in a refusal, a goodbye, and in answers below
// StatusService. Numbers never change.
type Code uint16

// Codes. CodeOK is that of an answer only.
const (
	CodeOK        Code = 0
	CodeVersion   Code = 1
	CodeCluster   Code = 2
	CodeLife      Code = 3
	CodeLevel     Code = 4
	CodeService   Code = 5
	CodeGroup     Code = 6
	CodeDenied    Code = 7
	CodeBusy      Code = 8
	CodeClosing   Code = 9
	CodeProtocol  Code = 10
	CodeChecksum  Code = 11
	CodeTooLarge  Code = 12
	CodeUnknownOp Code = 13
	CodeCancelled Code = 14
	CodeDead      Code = 15
	CodeClosed    Code = 16
	CodeAnswer    Code = 17 // the request was done, and its answer is too large
)

// StatusService is the lowest status that is a service's own. Conn.Call returns those with
// the reply; lower ones, which have names here, become errors.
const StatusService = 256

var codes = [...]error{
	CodeVersion: ErrVersion, CodeCluster: ErrCluster, CodeLife: ErrLife, CodeLevel: ErrLevel, CodeService: ErrService,
	CodeGroup: ErrGroup, CodeDenied: ErrDenied, CodeBusy: ErrBusy, CodeClosing: ErrClosing, CodeProtocol: ErrProtocol,
	CodeChecksum: ErrChecksum, CodeTooLarge: ErrTooLarge, CodeUnknownOp: ErrUnknownOp, CodeCancelled: ErrCancelled,
	CodeDead: ErrDead, CodeClosed: ErrClosed, CodeAnswer: fmt.Errorf("the answer is %w", ErrTooLarge),
}

// err is the named error of a code.
func (c Code) err() error {
	if int(c) < len(codes) && codes[c] != nil {
		return codes[c]
	}
	return fmt.Errorf("%w: a reason that this release does not know, %d", ErrProtocol, uint16(c))
}

// codeOf is the code of the first named error that err matches.
func codeOf(err error) Code {
	for c, named := range codes {
		if named != nil && errors.Is(err, named) {
			return Code(c)
		}
	}
	return CodeClosed
}

// told is an error that the peer gave: its code, and its words.
type told struct {
	by   string
	code Code
	text string
}

func (e *told) Error() string {
	if e.text == "" {
		return fmt.Sprintf("%s: %v", e.by, e.code.err())
	}
	return fmt.Sprintf("%s: %s", e.by, e.text)
}

func (e *told) Unwrap() error { return e.code.err() }

// outcome is the error of a call: why it failed, and what became of the request.
type outcome struct {
	op   uint16
	peer string
	sent error // ErrNotSent or ErrOutcomeUnknown
	why  error
}

func (e *outcome) Error() string {
	return fmt.Sprintf("operation %d at %s: %v: %v", e.op, e.peer, e.sent, e.why)
}

func (e *outcome) Unwrap() []error { return []error{e.sent, e.why} }
