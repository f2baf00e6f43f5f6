package writebuffer

import (
	"errors"
	"io/fs"
	"time"

	"openvstorage/internal/disk"

	"golang.org/x/sys/unix"
)

// lacked reports whether a call failed for a reason that says nothing about the disk:
// it was interrupted, or lacked a descriptor or memory. Such a call may be made again.
func lacked(err error) bool {
	return isAny(err, unix.EINTR, unix.EAGAIN, unix.EMFILE, unix.ENFILE, unix.ENOMEM)
}

// passing reports whether a sync failed for a reason that may pass: those of lacked,
// and a full disk, which is not a bad one.
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

// lackedTries is how often a call that lacked something is made. lackedRest is the
// pause before the second try; each further pause is four times as long: 85 ms in all.
const (
	lackedTries = 5
	lackedRest  = time.Millisecond
)

// again repeats a call that lacked something, lackedTries times in all. The error of
// the last try names the file and the reason; the caller may try again later.
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

// patientFS is a disk that repeats calls which lacked something: otherwise a vDisk
// would halt, or a file be taken for missing or bad, for want of a descriptor. It does
// not repeat the sync of a file: a failed sync may have lost the data that it was to
// make durable (see syncs).
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

// patientFile is an open file of a patientFS. It repeats writes without a pause, since
// they come from the append section, where nothing waits.
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

// TryReadAt returns disk.ErrWouldBlock if the read lacked something: ReadAt tries again.
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

// WritevAt may write the same bytes to the same place more than once: nothing refers
// to them before it has returned.
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

// Close ignores an error of lacked: Linux closes the descriptor whatever it answers
// (close(2)), and data that has to be durable was synced before.
func (f *patientFile) Close() error {
	if err := f.File.Close(); err != nil && !lacked(err) {
		return err
	}
	return nil
}
