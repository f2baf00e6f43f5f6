// Package image copies raw images into vDisks and out of them, for `ovs vdisk import`
// and `export`. It tells raw images from others by how they begin and end. It finds an
// image that was cut short by what the image says of its own length.
//
// Images are copied by NBD clients of the running `ovs up`, like the clients of guests.
// So the management socket needs no calls that carry data.
package image

import (
	"errors"
	"fmt"
)

// Refused reports whether an error says that a file, as it was named, cannot be copied,
// or cannot be copied to. Nothing was done then.
func Refused(err error) bool {
	var r refusal
	return errors.As(err, &r)
}

// refusal is an error in what file was named, or in how.
type refusal struct{ error }

func refusef(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }
