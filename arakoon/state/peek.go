package state

import (
	"errors"
	"fmt"

	"openvstorage/internal/disk/pebblefs"

	"github.com/cockroachdb/pebble/v2"
)

// Peek tells how far the state in a directory is applied, and changes nothing
// there; a zero Position if it holds none. Open may remove what an older manifest
// does not know: whoever knows how far the state must be looks first (rule P8).
func Peek(opt Options) (at Position, err error) {
	opt = opt.withDefaults()
	fs := pebblefs.New(opt.FS, pebblefs.Options{})
	po, done := opt.pebble(fs)
	defer done()
	po.ReadOnly, po.ErrorIfNotExists = true, true
	db, err := pebblefs.Open(opt.Dir, po)
	if errors.Is(err, pebble.ErrDBDoesNotExist) {
		return Position{}, nil
	}
	if err != nil {
		return Position{}, fmt.Errorf("arakoon state: look at %s: %w", opt.Dir, damaged(err))
	}
	v, found, err := get(db, metaKey)
	var m meta
	if err == nil && found {
		m, err = decodeMeta(v)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return Position{}, fmt.Errorf("arakoon state: look at %s: %w", opt.Dir, err)
	}
	return m.at, nil
}
