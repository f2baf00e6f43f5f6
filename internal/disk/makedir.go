package disk

import (
	"errors"
	"io/fs"
	"path"
)

// MakeDir makes a directory, and what is missing above it. All names that it made
// are durable when it returns nil.
func MakeDir(fsys FS, name string, perm fs.FileMode) error {
	var missing []string // the lowest first
	for at := path.Clean(name); ; at = path.Dir(at) {
		if _, err := fsys.Stat(at); !errors.Is(err, fs.ErrNotExist) || at == path.Dir(at) {
			break
		}
		missing = append(missing, at)
	}
	if err := fsys.MkdirAll(name, perm); err != nil {
		return err
	}
	for _, made := range missing {
		if err := SyncName(fsys, made); err != nil {
			return err
		}
	}
	return nil
}

// SyncName makes the name of a directory durable, also where the one that it is in
// may be entered and not read. name must be one that this process may read.
func SyncName(fsys FS, name string) error {
	err := fsys.SyncDir(path.Dir(path.Clean(name)))
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	// All of the file system, then. If name is another's root, it was there before.
	all, ok := fsys.(interface{ SyncAll(name string) error })
	if !ok {
		return err
	}
	return all.SyncAll(name)
}
