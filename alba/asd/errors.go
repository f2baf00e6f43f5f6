package asd

import (
	"fmt"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
)

// A CorruptError names a value that does not match its checksums, and where it is on
// the disk. It is osd.ErrCorrupt.
type CorruptError struct {
	Key    []byte
	File   string
	Offset int64
	What   string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%v: key %x: %s, offset %d: %s", osd.ErrCorrupt, e.Key, e.File, e.Offset, e.What)
}

// Is reports whether target is osd.ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == osd.ErrCorrupt }

// Damage is something that had been synced and that Open found bad. Values with bad
// data or bad CRC tables are not reported so: Read and Verify report those.
type Damage struct {
	File   string
	Offset int64
	Length int64 // zero: not known
	What   string
}

func (d Damage) String() string {
	return fmt.Sprintf("%s, offset %d, %d bytes: %s", d.File, d.Offset, d.Length, d.What)
}

// readOnly is why the ASD takes no writes. It is osd.ErrReadOnly.
type readOnly struct{ cause error }

func (e *readOnly) Error() string {
	return fmt.Sprintf("%v: %v; %s", osd.ErrReadOnly, e.cause, disk.Cure(e.cause))
}
func (e *readOnly) Is(target error) bool { return target == osd.ErrReadOnly }
func (e *readOnly) Unwrap() error        { return e.cause }
