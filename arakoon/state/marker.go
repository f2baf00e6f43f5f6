package state

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// checkMarker refuses a directory that holds tables but not the file that names the
// manifest. Pebble would take it for a new directory, and remove the tables (rule P8).
// A first start that was cut short has no tables yet.
func checkMarker(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	has := func(match func(string) bool) bool { return slices.ContainsFunc(names, match) }
	marked := has(func(n string) bool { return strings.HasPrefix(n, "marker.manifest.") })
	if !marked && has(func(n string) bool { return strings.HasSuffix(n, ".sst") }) {
		return fmt.Errorf("%w: %s holds tables, and its marker.manifest file is missing; restore it", ErrDamaged, dir)
	}
	return nil
}
