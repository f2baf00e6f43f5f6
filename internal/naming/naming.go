// Package naming is the rule for the names of vDisks and snapshots. Everything that
// gives a name asks it: management, import, clone, rename and the mount.
//
// A name is path components divided by slashes. It becomes a path of the mount
// (component/component.raw), an NBD export, an argument of a command and a word in a
// log. So no component may mean something else in one of these places, and no two names
// may look the same because a part of one is invisible:
//
//   - A component has up to ComponentMax bytes, a name up to NameMax, of UTF-8.
//   - It is not "." or "..".
//   - It is not ".snapshots", which is the mount's directory of snapshots.
//   - It does not end in ".raw": NAME.raw is the file of vDisk NAME.
//   - It does not begin with "-", as an option does.
//   - It has visible characters and blanks only: no control characters, nothing of
//     zero width, nothing that changes the direction of text.
//   - It does not contain U+FFFD, which programs put in the place of what they cannot
//     read: many names would become one.
//   - It does not contain "@", which divides a vDisk's name from a snapshot's.
//
// The components of such a name are also directories of the mount. Small files of the
// mount are not vDisks: for their names only the rule for characters holds, see
// CheckText.
//
// Earlier releases allowed more names. vDisks that have such a name can still be
// opened, listed, deleted and renamed: Check is asked only when a name is given.
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

// Names that belong to the mount.
const (
	Suffix    = ".raw"       // of the file of a vDisk or a snapshot
	Snapshots = ".snapshots" // the directory of snapshots
)

// CheckKept returns nil if a vDisk may already have the name: it obeys the rules that
// every release has had, and can be read back.
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

// Check returns nil if a vDisk may be given the name. A snapshot's name is one
// component of such a name.
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

// CheckText returns nil if a name can be read and told from every other name: it is
// UTF-8, of visible characters and blanks. Every name that is given must pass it.
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

// unseen reports whether a character is neither visible nor a blank. Such are format
// characters (marks of direction, characters without width), characters of private use
// or not assigned, and those that programs leave out if they do not know them.
func unseen(r rune) bool {
	return !unicode.IsGraphic(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
