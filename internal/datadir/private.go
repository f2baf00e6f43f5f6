package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"openvstorage/internal/disk"
)

// Directories in a data directory that hold what others must not read. Each may be a
// symbolic link to a faster or a larger disk. A directory with many files is searched
// only if others have rights to it. ASDs are not searched here: each may be a disk of
// its own that does not answer. They are tightened when they are opened.
var (
	trees = []string{"arakoon", "buffer", "map", "cache", "dev", "registry"}
	large = []string{"backend", namesDir}
)

// makePrivate takes all rights of others off the data directory itself. It holds the
// bytes of vDisks, of encrypted ones too, and whoever can open its sockets can do
// everything.
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

// Was is the mode that the directory had when it was opened. Since then only its owner
// has rights.
func (d *Directory) Was() fs.FileMode { return d.was }

// Tighten takes the rights of other users, which older releases left, off everything in
// the directory except ASDs. Objects, of which there may be many, are searched once in
// the life of the directory, the rest at each call. It is for a start, before anything
// is open.
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
