package state

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"openvstorage/internal/disk/pebblefs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// dropBadOptions removes OPTIONS files that Pebble would refuse, so that a flipped bit in
// one does not make a state unusable. Nothing is lost: Pebble uses of them only the names
// of comparer and merger, which never change here and are in the manifest too, and the
// place of the WAL, which is off.
func dropBadOptions(fs vfs.FS, dir string, po *pebble.Options) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	po.EnsureDefaults()
	for _, name := range names {
		if !strings.HasPrefix(name, "OPTIONS-") {
			continue
		}
		name = path.Join(dir, name)
		text, err := readFile(fs, name)
		tooLong := errors.Is(err, pebblefs.ErrTooLong)
		if err != nil && !tooLong {
			return fmt.Errorf("%s: %w", name, err)
		}
		if !tooLong && po.CheckCompatibility(dir, text) == nil {
			continue
		}
		if err := fs.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// readFile reads an OPTIONS file, whose length pebblefs bounds.
func readFile(fs vfs.FS, name string) (string, error) {
	f, err := fs.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}
