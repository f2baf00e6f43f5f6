package writebuffer

import (
	"errors"
	"io/fs"
	"time"

	"openvstorage/internal/disk"

	"golang.org/x/sys/unix"
)

// lacked reports whether a call failed for what says nothing about the disk: it
// was interrupted, or lacked a descriptor or memory. It may be made again.
func lacked(err error) bool {
	return isAny(err, unix.EINTR, unix.EAGAIN, unix.EMFILE, unix.ENFILE, unix.ENOMEM)
}

// passing reports whether a sync failed for what may pass. The disk may be full
// and not bad.
func passing(err error) bool { return lacked(err) || isAny(err, unix.ENOSPC, unix.EDQUOT) }

func isAny(err error, errnos ...unix.Errno) bool {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return false
	}
	for _, e := range errnos {
		if errno == e {
			return true
		}
	}
	return false
}

// patience is how often a call that lacked something is made, and how long it
// takes a rest before the second time: 85 ms in all.
const (
	lackedTries = 5
	lackedRest  = time.Millisecond
)

// again makes a call until it no longer lacks something, or has been made often
// enough: who gave up is told which file and why, and may come again.
func again(do func() error) error {
	rest := lackedRest
	for try := 1; ; try++ {
		err := do()
		if err == nil || try == lackedTries || !lacked(err) {
			return err
		}
		time.Sleep(rest)
		rest *= 4
	}
}

// patientFS is a disk whose calls are made again when they lacked something, so
// that no vDisk halts, and no file is taken for missing or bad, because of it.
// Syncs of files are not: a failed one may have lost what it was to make durable
// (see syncs).
type patientFS struct{ disk.FS }

func (d patientFS) OpenFile(name string, flag disk.Flag, perm fs.FileMode) (f disk.File, err error) {
	err = again(func() error {
		f, err = d.FS.OpenFile(name, flag, perm)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &patientFile{f}, nil
}

func (d patientFS) Rename(oldName, newName string) error {
	return again(func() error { return d.FS.Rename(oldName, newName) })
}

func (d patientFS) Remove(name string) error {
	return again(func() error { return d.FS.Remove(name) })
}

func (d patientFS) RemoveAll(name string) error {
	return again(func() error { return d.FS.RemoveAll(name) })
}

func (d patientFS) MkdirAll(name string, perm fs.FileMode) error {
	return again(func() error { return d.FS.MkdirAll(name, perm) })
}

func (d patientFS) ReadDir(name string) (names []string, err error) {
	err = again(func() error {
		names, err = d.FS.ReadDir(name)
		return err
	})
	return names, err
}

func (d patientFS) Stat(name string) (info fs.FileInfo, err error) {
	err = again(func() error {
		info, err = d.FS.Stat(name)
		return err
	})
	return info, err
}

func (d patientFS) SyncDir(name string) error {
	return again(func() error { return d.FS.SyncDir(name) })
}

// patientFile is an open file of a patientFS. Writes come from the append
// section: they take no rest.
type patientFile struct{ disk.File }

func (f *patientFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if err != nil && lacked(err) {
		err = again(func() error {
			n, err = f.File.ReadAt(p, off)
			return err
		})
	}
	return n, err
}

// TryReadAt leaves what lacked something to who can wait.
func (f *patientFile) TryReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.TryReadAt(p, off)
	if err != nil && lacked(err) {
		err = disk.ErrWouldBlock
	}
	return n, err
}

func (f *patientFile) WriteAt(p []byte, off int64) (n int, err error) {
	for range lackedTries {
		if n, err = f.File.WriteAt(p, off); err == nil || !lacked(err) {
			break
		}
	}
	return n, err
}

// WritevAt writes the same bytes to the same place again: nobody refers to them
// before it has returned.
func (f *patientFile) WritevAt(bufs [][]byte, off int64) (n int, err error) {
	for range lackedTries {
		if n, err = f.File.WritevAt(bufs, off); err == nil || !lacked(err) {
			break
		}
	}
	return n, err
}

// Prewrite writes all of it again before it syncs again.
func (f *patientFile) Prewrite(off, n int64) error {
	return again(func() error { return f.File.Prewrite(off, n) })
}

func (f *patientFile) Allocate(off, n int64) error {
	return again(func() error { return f.File.Allocate(off, n) })
}

func (f *patientFile) Truncate(size int64) error {
	return again(func() error { return f.File.Truncate(size) })
}

func (f *patientFile) Size() (n int64, err error) {
	err = again(func() error {
		n, err = f.File.Size()
		return err
	})
	return n, err
}

// Close does not say what lacked: the descriptor is gone whatever Linux answers
// (close(2)), and what has to be durable was synced before.
func (f *patientFile) Close() error {
	if err := f.File.Close(); err != nil && !lacked(err) {
		return err
	}
	return nil
}
