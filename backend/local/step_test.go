package local

import (
	"io/fs"
	"sync/atomic"

	"openvstorage/internal/disk"
)

// stepFS calls step before every operation that changes the disk, and fails
// the operation if step does. It counts reads and open files.
type stepFS struct {
	disk.FS
	step  func(op, name string) error
	reads atomic.Int64
	files atomic.Int64
}

type stepFile struct {
	disk.File
	fs *stepFS
}

func newStepFS(inner disk.FS) *stepFS {
	return &stepFS{FS: inner, step: func(string, string) error { return nil }}
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
	s.files.Add(1)
	return &stepFile{f, s}, nil
}

func (s *stepFS) Rename(from, to string) error {
	if err := s.step("rename", to); err != nil {
		return err
	}
	return s.FS.Rename(from, to)
}

func (s *stepFS) Link(from, to string) error {
	if err := s.step("link", to); err != nil {
		return err
	}
	return s.FS.Link(from, to)
}

func (s *stepFS) Remove(name string) error {
	if err := s.step("remove", name); err != nil {
		return err
	}
	return s.FS.Remove(name)
}

func (s *stepFS) MkdirAll(name string, perm fs.FileMode) error {
	if err := s.step("mkdir", name); err != nil {
		return err
	}
	return s.FS.MkdirAll(name, perm)
}

func (s *stepFS) SyncDir(name string) error {
	if err := s.step("syncdir", name); err != nil {
		return err
	}
	return s.FS.SyncDir(name)
}

func (f *stepFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.reads.Add(1)
	return f.File.ReadAt(p, off)
}

func (f *stepFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.step("write", f.Name()); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *stepFile) WritevAt(bufs [][]byte, off int64) (int, error) {
	if err := f.fs.step("write", f.Name()); err != nil {
		return 0, err
	}
	return f.File.WritevAt(bufs, off)
}

func (f *stepFile) Datasync() error {
	if err := f.fs.step("datasync", f.Name()); err != nil {
		return err
	}
	return f.File.Datasync()
}

func (f *stepFile) Close() error {
	f.fs.files.Add(-1)
	return f.File.Close()
}
