package osdisk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// SyncAll makes all of the file system durable that the directory name is on; see
// disk.SyncName.
func (FS) SyncAll(name string) error {
	fd, err := openRetry(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := retry(func() error { return unix.Syncfs(fd) }); err != nil {
		return &fs.PathError{Op: "syncfs", Path: name, Err: err}
	}
	return nil
}

// explainLink explains why a directory cannot be made if a symbolic link that leads
// nowhere is in the way: the system only says that something is there already.
func explainLink(name string, err error) error {
	if !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for at := filepath.Clean(name); at != filepath.Dir(at); at = filepath.Dir(at) {
		if to, e := os.Readlink(at); e == nil {
			if _, e := os.Stat(at); errors.Is(e, fs.ErrNotExist) {
				return &fs.PathError{Op: "mkdir", Path: at, Err: linkError{to, err}}
			}
		}
	}
	return err
}

// linkError is what stands in the way of a directory.
type linkError struct {
	to    string
	cause error
}

func (e linkError) Error() string {
	return fmt.Sprintf("it is a symbolic link to %s, and nothing is there: make that directory, or remove the link", e.to)
}

func (e linkError) Unwrap() error { return e.cause }
