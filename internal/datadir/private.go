package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"openvstorage/internal/disk"
)

// Directories in a data directory that hold what others must not read. Each may
// be a symbolic link to a faster or a larger disk. One that has many files is looked into
// only if others have rights to it. ASDs are not looked into here: each may be a
// disk of its own that does not answer, and is tightened when it is opened.
var (
	trees = []string{"arakoon", "buffer", "map", "cache", "dev", "registry"}
	large = []string{"backend", namesDir}
)

// makePrivate takes all rights of others off the data directory itself: the bytes
// of disks are in it, of encrypted ones too, and its sockets let whoever opens
// them do everything.
func makePrivate(fsys disk.FS, path string) (was fs.FileMode, err error) {
	was, err = fsys.Private(path + "/.")
	if err == nil {
		return was.Perm(), nil
	}
	hint := "make it yours alone: chmod 700 " + path
	switch {
	case errors.Is(err, disk.ErrNotPrivate):
		hint = "mount that file system with umask=077 and your uid, or use another"
	case errors.Is(err, fs.ErrPermission):
		hint = "run as the user whom it belongs to, give it to yours (chown -R), or name a directory of its own in it; a file system without modes is mounted with umask=077"
	}
	return 0, fmt.Errorf("data directory %s: other users may read or change what is in it (mode %04o), and that cannot be changed: %w; %s", path, was.Perm(), err, hint)
}

// Was is the mode that the directory had when it was opened. Others than its
// owner have no rights since.
func (d *Directory) Was() fs.FileMode { return d.was }

// Tighten takes the rights of other users off all in the directory, as older
// releases left them, but for ASDs: once for objects, of which there may be many,
// at each call for the rest. It is for a start, before anything is open.
func (d *Directory) Tighten() (t disk.Tightened, err error) {
	names, err := d.fs.ReadDir(d.Path)
	if err != nil {
		return t, fmt.Errorf("read data directory: %w", err)
	}
	for _, name := range names {
		full := filepath.Join(d.Path, name)
		switch {
		case slices.Contains(trees, name):
			t.Add(disk.TightenTree(d.fs, full))
		case slices.Contains(large, name):
			t.Add(disk.TightenOnce(d.fs, full))
		default:
			t.Add(disk.TightenName(d.fs, full))
		}
	}
	return t, nil
}
