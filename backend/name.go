package backend

import "fmt"

// NameMax is the longest name of an object or namespace in bytes.
const NameMax = 200

// CheckName returns nil if name can name an object or a namespace: 1 to NameMax bytes of
// [a-z0-9-.] that do not begin with a dot. Every implementation refuses other names with
// an error that matches ErrName.
func CheckName(name string) error {
	if len(name) == 0 || len(name) > NameMax || name[0] == '.' {
		return fmt.Errorf("%w: %.210q", ErrName, name)
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return fmt.Errorf("%w: %.210q", ErrName, name)
		}
	}
	return nil
}
