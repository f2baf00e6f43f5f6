package state

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// withoutOptions hides the OPTIONS files, as a damaged one is no reason to refuse a state
// (dropBadOptions), and Peek changes nothing.
type withoutOptions struct{ vfs.FS }

func (d withoutOptions) List(dir string) ([]string, error) {
	names, err := d.FS.List(dir)
	return slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, "OPTIONS-") }), err
}

// CheckReach refuses, with ErrDamaged, a state that ends before entry was, to which it is
// known to have been durable. It changes nothing.
func CheckReach(opt Options, was uint64) error {
	at, err := Peek(opt)
	if err != nil || at.Index >= was {
		return err
	}
	// Pebble takes a manifest with a bad record for one that ended there.
	manifest := "its manifest"
	names, err := opt.FS.ReadDir(opt.Dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if _, name, ok := strings.Cut(n, ".MANIFEST-"); ok && strings.HasPrefix(n, "marker.manifest.") {
			manifest = "MANIFEST-" + name // the last counts
		}
	}
	return fmt.Errorf("%w: %s is at entry %d by %s, and was durable up to %d; restore it", ErrDamaged, opt.Dir, at.Index, path.Join(opt.Dir, manifest), was)
}

// Peek tells how far the state in a directory is applied: a zero Position if the directory
// holds none. It changes nothing there. Open may remove files that an older manifest does
// not mention, so a caller that knows how far the state must reach calls Peek first
// (rule P8).
func Peek(opt Options) (at Position, err error) {
	opt = opt.withDefaults()
	var m meta
	err = readOnly(opt, func(db *pebble.DB) error {
		v, found, err := get(db, metaKey)
		if err == nil && found {
			m, err = decodeMeta(v)
		}
		return err
	})
	if errors.Is(err, pebble.ErrDBDoesNotExist) {
		return Position{}, nil
	}
	if err != nil {
		return Position{}, fmt.Errorf("arakoon state: look at %s: %w", opt.Dir, err)
	}
	return m.at, nil
}
