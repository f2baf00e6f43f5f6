// Package image copies raw images into vDisks and out of them, for `ovs vdisk
// import` and `export`. It tells raw images from others by how they begin and end,
// and one that was cut short by what it says of its own length.
//
// Images are copied by NBD clients of the running `ovs up`, as any guest is one:
// the management socket has no calls that carry data, and needs none.
package image

import (
	"errors"
	"fmt"
)

// Refused reports whether an error says that a file is none to be copied, or to be
// copied to, as it was named. Nothing was done then.
func Refused(err error) bool {
	var r refusal
	return errors.As(err, &r)
}

// refusal is an error in which file was named, and how.
type refusal struct{ error }

func refusef(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }
