package asd

import (
	"fmt"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
)

// A CorruptError says of which value, and where on the disk, a checksum did not
// hold. It is osd.ErrCorrupt.
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

// Damage is what a restart found bad that had been synced. Values whose data or
// CRC tables are bad are not in it: reads and Verify tell of those.
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
