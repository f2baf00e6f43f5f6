package registry

import (
	"io/fs"

	"openvstorage/internal/disk"
)

// stepFS calls step before every operation that changes the disk, and fails
// the operation if step does.
type stepFS struct {
	disk.FS
	step func(op, name string) error
}

type stepFile struct {
	disk.File
	fs *stepFS
}

func (s *stepFS) OpenFile(name string, flag disk.Flag, perm fs.FileMode) (disk.File, error) {
	if flag&disk.Write != 0 {
		if err := s.step("open", name); err != nil {
			return nil, err
		}
	}
	f, err := s.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &stepFile{f, s}, nil
}

func (s *stepFS) Rename(from, to string) error {
	if err := s.step("rename", from); err != nil {
		return err
	}
	return s.FS.Rename(from, to)
}

func (s *stepFS) SyncDir(name string) error {
	if err := s.step("syncdir", name); err != nil {
		return err
	}
	return s.FS.SyncDir(name)
}

func (f *stepFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.step("write", f.Name()); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *stepFile) Datasync() error {
	if err := f.fs.step("datasync", f.Name()); err != nil {
		return err
	}
	return f.File.Datasync()
}
