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

// SyncName makes the name of a directory durable, even if this process may enter the
// parent but not read it. The process must be able to read the directory itself.
func SyncName(fsys FS, name string) error {
	err := fsys.SyncDir(path.Dir(path.Clean(name)))
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	// Syncing the whole file system needs no right to the parent. If name is the root
	// of another file system, its name was there before.
	all, ok := fsys.(interface{ SyncAll(name string) error })
	if !ok {
		return err
	}
	return all.SyncAll(name)
}
