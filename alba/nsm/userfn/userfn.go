package userfn

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/alba/nsm/record"
	"openvstorage/internal/format"
)

// Tx is the replicated state as one call of a function sees it, the call's own writes
// included. Keys are in bytewise order. An error of the store stops the replica below this
// interface, and never reaches a function. Slices that a method returns are valid until the
// next call on the Tx. Slices passed to a method may be reused after it has returned.
type Tx interface {
	Get(key []byte) (value []byte, ok bool)
	Set(key, value []byte)
	// Delete of an absent key does nothing.
	Delete(key []byte)
	// Range calls fn for up to limit keys from first, inclusive, to last,
	// exclusive (nil: to the end), until fn returns false. fn must not use
	// the Tx.
	Range(first, last []byte, limit int, fn func(key, value []byte) bool)
	// Reverse is Range from the end of the interval to its start.
	Reverse(first, last []byte, limit int, fn func(key, value []byte) bool)
	// Time is the proposer's clock in nanoseconds since 1970, the same on
	// every replica.
	Time() int64
}

// Function is a user function. If Run returns an error, none of its writes take effect, and
// the error is the result of the call, the same on every replica. An error that matches
// *StopError is not a result: the replica stops.
type Function struct {
	Name    string
	Version uint32
	Run     func(tx Tx, arg []byte) ([]byte, error)
	// Check, if not nil, returns why Run would stop replicas that are given arg. Whoever
	// is to propose a call asks Check first, and refuses the call then.
	Check func(arg []byte) error
	// Level is that of the group from which on a call may be proposed, 0 if any (package
	// arakoon/state). Argument is the newest version of the argument's record: with a new one a
	// function needs a new version too, of a new level, as older members would stop.
	Level    uint32
	Argument uint8
}

// Caller runs a user function on the cluster and returns its result once it
// is durable. A function's own error comes back as *Error; any other error
// leaves open whether the call took effect.
type Caller interface {
	Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error)
}

// Consistency says what a read must have seen.
type Consistency uint8

const (
	// Consistent reads see every write that was acknowledged before them.
	Consistent Consistency = iota
	// Local reads see what the nearest replica has applied.
	Local
)

// Pair is a key with its value.
type Pair struct{ Key, Value []byte }

// Reader reads the replicated keys. One call sees one state.
type Reader interface {
	// MultiGet returns a value for each key, nil for one that is absent.
	MultiGet(ctx context.Context, keys [][]byte, c Consistency) ([][]byte, error)
	// Range returns up to limit pairs from first, inclusive, to last,
	// exclusive (nil: to the end), in order.
	Range(ctx context.Context, first, last []byte, limit int, c Consistency) ([]Pair, error)
}

// Code tells the errors of functions apart. Codes are in results and never change.
type Code uint32

// Codes.
const (
	CodeInvalid           Code = 1  // the argument contradicts itself or exceeds a bound
	CodeCorrupt           Code = 2  // a stored record does not decode
	CodeNewer             Code = 3  // a newer release wrote the argument or a stored record
	CodeNotFound          Code = 4  // no such object, OSD, preset, host
	CodeExists            Code = 5  // it exists, and is another
	CodeConflict          Code = 6  // it has another version, revision or state
	CodeNamespaceNotFound Code = 7  // no such namespace, or it is being removed
	CodeNamespaceExists   Code = 8  // the name is taken
	CodeEpoch             Code = 9  // the gc epoch is not open: upload again under a newer one
	CodeIDUsed            Code = 10 // the object id was used before: upload again under a new one
	CodeOSD               Code = 11 // an OSD takes no new fragments: fetch the list of OSDs again
	CodeSpread            Code = 12 // fragments are too few or too close together
	CodeGap               Code = 13 // a message before these was not delivered
	CodeInUse             Code = 14 // something refers to it still
	CodeNoHost            Code = 15 // there is no NSM host that takes namespaces
	CodeLease             Code = 16 // another holds the lease
	CodeFull              Code = 17 // a bound on how many there may be is reached
	CodeMoving            Code = 18 // the namespace is between two hosts: try again soon
	CodeMoved             Code = 19 // the namespace is on another host: ask the ABM where
	CodeAssert            Code = 20 // an assertion of a sequence does not hold
)

// Error is the error of a user function: a code to match with errors.Is and a
// message that says what failed, on what, and what to do.
type Error struct {
	Code    Code
	Message string
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Is reports whether target is an *Error of the same code. An error of CodeNewer is also
// format.ErrNewer.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code || target == format.ErrNewer && e.Code == CodeNewer
}

// Errorf makes an Error.
func Errorf(code Code, msg string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(msg, args...)}
}

// StopError is the error of a function that met a record, stored or in its argument, that
// its release cannot read. Another release may read the record: if this one went on,
// replicas would differ. So the replica stops with nothing done, until it runs a release
// that reads the record or its data is restored.
type StopError struct{ Err *Error }

// Error says which record, and what to do.
func (e *StopError) Error() string {
	if e.Err.Code == CodeNewer {
		return e.Err.Message + "; run a release that reads it"
	}
	return e.Err.Message + "; restore this member's data, or run a release that reads it"
}

// Unwrap returns the error that says what it met.
func (e *StopError) Unwrap() error { return e.Err }

// Stop makes a StopError of an error of package record; what names the bytes.
func Stop(what string, err error) error { return &StopError{FromRecord(CodeCorrupt, what, err)} }

// FromRecord makes an Error of an error of package record; what names the bytes. code is
// the code for bytes that are not a whole record: bytes of a caller are invalid, stored
// bytes are corrupt.
func FromRecord(code Code, what string, err error) *Error {
	if errors.Is(err, record.ErrNewer) {
		code = CodeNewer
	}
	return Errorf(code, "%s: %v", what, err)
}

// encodable is a pointer to T that is a record.
type encodable[T any] interface {
	*T
	record.Record
}

// Define makes a Function of a Go function over records. Arguments and results have the
// versions of their types. version is raised when what the function does to the keys
// changes.
func Define[A, R any, PA encodable[A], PR encodable[R]](name string, version uint32, run func(tx Tx, arg PA) (PR, error)) Function {
	what := fmt.Sprintf("%s, version %d: argument", name, version)
	return Function{Name: name, Version: version, Argument: record.Newest(PA(new(A))), Run: func(tx Tx, raw []byte) ([]byte, error) {
		var arg A
		if err := record.Decode(raw, record.Newest(PA(&arg)), PA(&arg)); err != nil {
			return nil, Stop("argument", err)
		}
		result, err := run(tx, &arg)
		if err != nil {
			return nil, err
		}
		b, err := record.Encode(record.Needs(result), result)
		if err != nil {
			return nil, FromRecord(CodeInvalid, name+": result", err)
		}
		return b, nil
	}, Check: func(raw []byte) error {
		var arg A
		if err := record.Decode(raw, record.Newest(PA(&arg)), PA(&arg)); err != nil {
			return FromRecord(CodeInvalid, what, err)
		}
		return nil
	}}
}

// LevelHosts is the level of the functions of ALBA over many hosts: state.LevelHosts.
const LevelHosts = 4

// From has functions be proposed from a level of the group on, and not before. It changes
// and returns list.
func From(level uint32, list ...Function) []Function {
	for i := range list {
		list[i].Level = level
	}
	return list
}

// Invoke calls a function made with Define and fills result.
func Invoke(ctx context.Context, c Caller, name string, version uint32, arg, result record.Record) error {
	raw, err := record.Encode(record.Needs(arg), arg)
	if err != nil {
		return FromRecord(CodeInvalid, name+": argument", err)
	}
	raw, err = c.Call(ctx, name, version, raw)
	if err != nil {
		return err
	}
	if err := record.Decode(raw, record.Newest(result), result); err != nil {
		return fmt.Errorf("%s: result: %w", name, err)
	}
	return nil
}

// Empty is a result without fields.
type Empty struct{}

// Fields implements record.Record.
func (*Empty) Fields(*record.Codec) {}

// Load fills v from the stored record of key and reports whether there is
// one. The error is a *StopError.
func Load(tx Tx, key []byte, v record.Record) (bool, error) {
	raw, ok := tx.Get(key)
	if !ok {
		return false, nil
	}
	err := Read(key, raw, v)
	return err == nil, err
}

// Read fills v from the stored record that a function has found under key. The
// error is a *StopError.
func Read(key, raw []byte, v record.Record) error {
	if err := record.Decode(raw, record.Newest(v), v); err != nil {
		return Stop(fmt.Sprintf("key %q", key), err)
	}
	return nil
}

// Store sets key to v.
func Store(tx Tx, key []byte, v record.Record) error {
	err := record.With(record.Needs(v), v, func(raw []byte) { tx.Set(key, raw) })
	if err != nil {
		return FromRecord(CodeInvalid, fmt.Sprintf("key %q", key), err)
	}
	return nil
}

// After returns the key that follows key immediately.
func After(key []byte) []byte { return append(append([]byte(nil), key...), 0) }

// PrefixEnd returns the first key behind all keys that begin with prefix, nil if there is
// none.
func PrefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] != 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}
