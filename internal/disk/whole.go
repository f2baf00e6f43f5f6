package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// ErrTooLong: a file is longer than it may be, and was not read.
var ErrTooLong = errors.New("too long")

// ReadWhole returns a file's bytes, or an ErrTooLong if there are more than most.
func ReadWhole(fsys FS, name string, most int64) ([]byte, error) {
	f, err := fsys.OpenFile(name, 0, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > most {
		return nil, fmt.Errorf("%s: %w: %d bytes, at most %d", name, ErrTooLong, size, most)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); err != nil && !(errors.Is(err, io.EOF) && n == len(b)) {
		return nil, err
	}
	return b, nil
}

// ReplaceWhole replaces a file as a whole, durably: a draft is synced, and then it gets the
// name. Other users get no rights to the file. Two calls for one name must not run at the
// same time; what an earlier one left behind is overwritten. After an error the file is as it
// was, or has been replaced.
func ReplaceWhole(fsys FS, name string, b []byte) error {
	draft := name + ".new"
	if err := fsys.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.OpenFile(draft, Write|Create|Exclusive, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, fsys.Remove(draft))
	}
	if err := fsys.Rename(draft, name); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(name))
}
