// Package naming is the rule of what vDisks and snapshots may be called. All
// doors ask it: management, import, clone, rename and the mount.
//
// A name is path components divided by slashes. It becomes a path of the mount
// (component/component.raw), an NBD export, an argument of a command and a word of
// a log. So a component is not what one of these takes for something else, and no
// two names look the same because a part of one is not seen:
//
//   - up to ComponentMax bytes, a name up to NameMax, of UTF-8
//   - not "." or ".."
//   - not ".snapshots", which is the mount's directory of snapshots
//   - it does not end in ".raw": NAME.raw is the file of vDisk NAME
//   - it does not begin with "-", as an option does
//   - characters that are seen, and blanks: no control characters, nothing of
//     zero width, nothing that turns the direction of text
//   - not U+FFFD, which programs put in the place of what they cannot read: many
//     names would become one
//   - no "@", which divides a vDisk's name from a snapshot's
//
// The directories of the mount, in which vDisks get names, have components of such a
// name. Its small files are not vDisks': of them only the characters are asked for, see
// CheckText.
//
// Earlier releases allowed more. What they named is still opened, listed, deleted
// and renamed: nothing but the giving of a name asks Check.
package naming

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of names in bytes.
const (
	NameMax      = 1024
	ComponentMax = 255
)

// Names that are the mount's.
const (
	Suffix    = ".raw"       // of the file of a vDisk or a snapshot
	Snapshots = ".snapshots" // the directory of snapshots
)

// CheckKept returns nil if a name may be one that somebody has: what every release
// has held to, and what can be read back.
func CheckKept(name string) error {
	bad := func(why string, args ...any) error {
		return fmt.Errorf("%.100q %s", name, fmt.Sprintf(why, args...))
	}
	switch {
	case name == "":
		return bad("is empty")
	case len(name) > NameMax:
		return bad("has %d bytes, %d are allowed", len(name), NameMax)
	case !utf8.ValidString(name):
		return bad("is not UTF-8")
	case strings.ContainsRune(name, '@'):
		return bad("contains '@', which divides a vDisk's name from a snapshot's")
	case strings.ContainsFunc(name, unicode.IsControl):
		return bad("contains a control character")
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "":
			return bad("begins or ends with a slash, or has two in a row")
		case part == "." || part == "..":
			return bad("has a component %s", part)
		case len(part) > ComponentMax:
			return bad("has a component of %d bytes, %d are allowed", len(part), ComponentMax)
		}
	}
	return nil
}

// Check returns nil if a vDisk may get the name. A snapshot's is one component of
// such a name.
func Check(name string) error {
	if err := CheckKept(name); err != nil {
		return err
	}
	bad := func(why string, args ...any) error {
		return fmt.Errorf("%.100q %s", name, fmt.Sprintf(why, args...))
	}
	if err := CheckText(name); err != nil {
		return err
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == Snapshots:
			return bad("has a component %s, where the mount shows snapshots", Snapshots)
		case strings.HasSuffix(part, Suffix):
			return bad("has a component that ends in %s, which the mount appends to a vDisk's name: leave it out", Suffix)
		case part[0] == '-':
			return bad("has a component that begins with '-', as an option does")
		}
	}
	return nil
}

// CheckText returns nil if a name can be read and is told from every other: it is
// UTF-8, of characters that are seen, and blanks. All names that are given are so.
func CheckText(name string) error {
	bad := func(why string, args ...any) error {
		return fmt.Errorf("%.100q %s", name, fmt.Sprintf(why, args...))
	}
	switch i := strings.IndexFunc(name, unseen); {
	case !utf8.ValidString(name):
		return bad("is not UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		return bad("contains a control character")
	case i >= 0:
		r, _ := utf8.DecodeRuneInString(name[i:])
		return bad("contains %U, a character that is not seen", r)
	case strings.ContainsRune(name, utf8.RuneError):
		return bad("contains %U, which stands for what was not UTF-8", utf8.RuneError)
	}
	return nil
}

// unseen reports whether a character is neither seen nor a blank: of a format,
// such as the marks of direction and what has no width, of private use or not
// assigned, or one that is left out where it is not known what to make of it.
func unseen(r rune) bool {
	return !unicode.IsGraphic(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
