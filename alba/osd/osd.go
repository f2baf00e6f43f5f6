// Package osd is the contract of an OSD: a store of fragments on one disk, as
// the rest of ALBA sees it. Package asd is our own implementation, in this
// process; a client over a socket implements the same interface. Package osdtest
// has the conformance suite that every implementation must pass, an OSD in
// memory, and a decorator that makes an OSD slow or has it fail.
//
// An OSD keeps values under keys, in bytewise order, and knows nothing of what
// they are. A value is written whole and read by ranges. Whoever writes it also
// makes a checksum of each 4 KiB (rule P2). The OSD stores the checksums, verifies
// the value with them, and returns them with what it reads. So a reader can verify
// the value again, under a seed that the reader knows from elsewhere.
package osd

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// Bounds.
const (
	KeyMax     = 255      // bytes of a key, which has at least one
	ValueMax   = 64 << 20 // bytes of a value
	UpdatesMax = 1024     // updates, and asserts, of one Apply
	ApplyMax   = 96 << 20 // bytes of values of one Apply
	RangeMax   = 10000    // keys that Stat takes and that Range gives
)

// Errors that callers match with errors.Is. Any other error is transient: an
// Apply may or may not have taken effect, and may be repeated.
var (
	ErrNotFound = errors.New("no such key on the OSD")
	ErrAssert   = errors.New("assert failed")               // an *AssertError
	ErrCorrupt  = errors.New("value on the OSD is corrupt") // its checksum does not hold
	// ErrUnreadable: the medium does not give the value, or the log that may say
	// where the value is. The value counts as there: it may be readable later.
	ErrUnreadable = errors.New("the OSD's disk does not give what is on it")
	ErrFull       = errors.New("OSD is full")             // deletes are served still
	ErrReadOnly   = errors.New("OSD takes no writes")     // its disk failed a write or a sync
	ErrInvalid    = errors.New("not a request to an OSD") // it exceeds a bound
	ErrClosed     = errors.New("OSD is closed")
	// ErrUnreachable: the OSD was not asked, as there is no way to it now. Its disk may be
	// well, and an Apply has not taken effect.
	ErrUnreachable = errors.New("OSD is not reached")
	// ErrCut: the way to the OSD was lost while it was asked. Its disk may be well, and an
	// Apply may or may not have taken effect.
	ErrCut = errors.New("connection to the OSD was lost")
	// ErrBusy: the OSD takes no request more now. An Apply has not taken effect.
	ErrBusy = errors.New("OSD is busy")
)

// An AssertError says which assert did not hold.
type AssertError struct{ Key []byte }

func (e *AssertError) Error() string { return fmt.Sprintf("assert on key %x failed", e.Key) }

// Is reports whether target is ErrAssert.
func (e *AssertError) Is(target error) bool { return target == ErrAssert }

// AssertKind says what an Assert demands of its key.
type AssertKind uint8

// Kinds of assert. Numbers travel.
const (
	Exists AssertKind = 1
	Absent AssertKind = 2
	Equals AssertKind = 3 // the value is Assert.Value, which has at most BlockSize bytes
	// NotNewer: there is no value, or its gc epoch is at most Assert.Epoch. It keeps
	// a collection from deleting what a repair has written since (rule O7).
	NotNewer AssertKind = 4
)

// Assert is a condition on a key, as it is before the updates beside it.
type Assert struct {
	Kind  AssertKind
	Key   []byte
	Value []byte
	Epoch uint64
}

// Update puts a value under a key, in place of one that is there, or deletes
// the key. Deleting an absent key does nothing.
type Update struct {
	Key    []byte
	Delete bool
	Value  Value
}

// Value is a value and its checksums.
type Value struct {
	Data []byte
	// CRCs has BlockCRC(Seed, i, block i) for each BlockSize of Data. An
	// Apply with one that does not hold is refused with ErrCorrupt, and
	// changes nothing.
	CRCs []uint32
	Seed uint64
	// Epoch is the writer's gc epoch. It means nothing to the OSD.
	Epoch uint64
}

// Info is what Stat and Range return about a value. A key that is not found may be
// there all the same: an OSD that could not read its whole log does not know. Its
// Usage.ReadOnly is ErrUnreadable then, and so is the error of a Read of the key. So a
// missing key is no reason to delete anything anywhere.
type Info struct {
	Key   []byte
	Found bool // always true from Range
	Size  uint32
	Epoch uint64
}

// Bad is a value that Verify could not read back.
type Bad struct {
	Key []byte
	Err error // ErrCorrupt with file and offset, or the disk's own error
}

// Usage is how full an OSD is, in bytes of its disk. Overhead counts as used, and so
// does dead space that is not collected yet.
type Usage struct {
	Used     uint64
	Capacity uint64
	// Room is how much puts may take before the disk is full. OSDs of one machine
	// with the same Shared, unless it is 0, are on one file system: they share its
	// room.
	Room   uint64
	Shared uint64
	Keys   uint64
	// Absent is how many of the keys have values that are known to be lost. Stat does
	// not find those keys.
	Absent   uint64
	Full     bool // it refuses puts
	ReadOnly error
	// Trouble is the error that opening the OSD anew would meet, nil if none is known.
	// Reads and writes go on all the same.
	Trouble error
}

// OSD is one disk's store. All methods are safe for concurrent use. Slices that are
// passed in stay the caller's: no method uses them after it has returned, even if it
// returned because ctx ended. Slices in results are the caller's too. A call sees all
// of an Apply or nothing of it.
type OSD interface {
	// ID returns the OSD's own id, which never changes.
	ID() uuid.UUID

	// Apply checks all asserts and then makes all updates, or none; of several
	// updates of a key the last counts. It is durable when it returns nil.
	Apply(ctx context.Context, asserts []Assert, updates []Update) error

	// Read fills p with the value's bytes from off, and crcs with the checksum of
	// each of their blocks. off is a multiple of BlockSize; len(p) is one too, or p
	// ends where the value ends; len(crcs) is Blocks(len(p)). A range that is not
	// inside the value is ErrInvalid. Read verifies what it returns against the
	// checksums; a mismatch is ErrCorrupt.
	Read(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error

	// Stat returns what is known of up to RangeMax keys, in the order of keys.
	Stat(ctx context.Context, keys [][]byte) ([]Info, error)

	// Range returns up to limit keys from first, inclusive, to last, exclusive
	// (nil: to the end), in order.
	Range(ctx context.Context, first, last []byte, limit int) ([]Info, error)

	// Verify reads up to limit values back and returns those that are bad. It begins
	// at the first key behind after, at the very first if after is nil. next is to be
	// passed as after in the next call; it is nil behind the last key.
	Verify(ctx context.Context, after []byte, limit int) (bad []Bad, next []byte, err error)

	Usage(ctx context.Context) (Usage, error)
}
