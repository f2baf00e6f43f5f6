package osdisk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
)

// FS is the host's file system. Names are the host's paths.
type FS struct {
	written func(name string) *atomic.Uint64 // nil: nobody counts
}

// New returns the host's file system.
func New() disk.FS { return FS{} }

// Counted returns the host's file system. What is written to a file is added
// to the counter that written returns for its name when it is opened.
func Counted(written func(name string) *atomic.Uint64) disk.FS { return FS{written} }

// OpenFile opens name; see disk.Flag. Truncate needs Write.
func (d FS) OpenFile(name string, flag disk.Flag, perm fs.FileMode) (disk.File, error) {
	f, err := open(name, flag, perm)
	if err != nil {
		return nil, err
	}
	if d.written != nil && flag&disk.Write != 0 {
		f.written = d.written(name)
	}
	return f, nil
}

func open(name string, flag disk.Flag, perm fs.FileMode) (*File, error) {
	if flag&disk.Truncate != 0 && flag&disk.Write == 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: unix.EINVAL}
	}
	fd, err := openRetry(name, openMode(flag), perm)
	if err != nil {
		return nil, err
	}
	f := &File{d: descriptor{fd: fd}, name: name, crowd: &everyone}
	if flag&disk.Direct != 0 {
		// Some file systems have no direct writes: then there are none.
		if fd, err := openRetry(name, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_DIRECT, 0); err == nil {
			f.direct = &descriptor{fd: fd}
		}
	}
	return f, nil
}

func openMode(flag disk.Flag) int {
	mode := unix.O_RDONLY | unix.O_CLOEXEC
	if flag&disk.Write != 0 {
		mode |= unix.O_RDWR
	}
	if flag&disk.Create != 0 {
		mode |= unix.O_CREAT
	}
	if flag&disk.Exclusive != 0 {
		mode |= unix.O_EXCL
	}
	if flag&disk.Truncate != 0 {
		mode |= unix.O_TRUNC
	}
	return mode
}

// owners are the most rights that a new file or directory gets: files hold the bytes of
// vDisks, and whoever can open a lock file can hold the lock.
const owners fs.FileMode = 0o700

func openRetry(name string, mode int, perm fs.FileMode) (fd int, err error) {
	stay()
	err = retry(func() (err error) {
		fd, err = unix.Open(name, mode, uint32(perm&owners))
		return err
	})
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// Rename gives oldName's file the name newName, in place of what had it.
func (FS) Rename(oldName, newName string) error {
	stay()
	return os.Rename(oldName, newName)
}

// Link gives oldName's file a second name.
func (FS) Link(oldName, newName string) error {
	stay()
	return os.Link(oldName, newName)
}

// Remove removes a file or an empty directory.
func (FS) Remove(name string) error {
	stay()
	return os.Remove(name)
}

// RemoveAll removes name and what is below it.
func (FS) RemoveAll(name string) error {
	stay()
	return os.RemoveAll(name)
}

// MkdirAll makes name and what is missing above it.
func (FS) MkdirAll(name string, perm fs.FileMode) error {
	stay()
	if err := os.MkdirAll(name, perm&owners); err != nil {
		return explainLink(name, err)
	}
	return nil
}

// Stat describes the file that name leads to.
func (FS) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

// ReadDir returns the names in a directory, sorted.
func (FS) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// SyncDir makes the names in a directory durable.
func (FS) SyncDir(name string) error {
	fd, err := openRetry(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := retry(func() error { return unix.Fsync(fd) }); err != nil {
		return &fs.PathError{Op: "syncdir", Path: name, Err: err}
	}
	return nil
}

// Statfs reports the room on the file system that holds name.
func (FS) Statfs(name string) (disk.Usage, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(name, &st) }); err != nil {
		return disk.Usage{}, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	unit := uint64(st.Bsize)
	id := uint64(uint32(st.Fsid.Val[0])) | uint64(uint32(st.Fsid.Val[1]))<<32
	return disk.Usage{Total: st.Blocks * unit, Free: st.Bavail * unit, ID: id, Names: st.Files, FreeNames: st.Ffree, ReadOnly: st.Flags&unix.ST_RDONLY != 0}, nil
}

// Private takes the rights of others off a name; see disk.FS.
func (FS) Private(name string) (fs.FileMode, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(unix.AT_FDCWD, name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	was := modeOf(st.Mode)
	if was.Perm()&^owners == 0 || !was.IsRegular() && !was.IsDir() {
		return was, nil
	}
	// By a descriptor: what has the name meanwhile is not touched, and no link is
	// followed.
	fd, err := openRetry(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return was, err
	}
	defer unix.Close(fd)
	err = unix.Fstat(fd, &st)
	if was = modeOf(st.Mode); err == nil && (was.IsRegular() || was.IsDir()) {
		if err = unix.Fchmod(fd, uint32(was&owners)); err == nil {
			err = unix.Fstat(fd, &st)
		}
		if err == nil && modeOf(st.Mode).Perm()&^owners != 0 {
			err = disk.ErrNotPrivate
		}
	}
	if err != nil {
		return was, &fs.PathError{Op: "chmod", Path: name, Err: err}
	}
	return was, nil
}

// modeOf is the type and the rights of a mode of the kernel.
func modeOf(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return m
	case unix.S_IFDIR:
		return m | fs.ModeDir
	case unix.S_IFLNK:
		return m | fs.ModeSymlink
	}
	return m | fs.ModeIrregular
}

// Lock takes flock(2) on a file, which it makes if it is absent. It writes the process
// id to the file if there is room. The lock ends with Close or with the process. The file
// stays: if it were removed, two holders could lock two files of one name. A second Lock
// from this process is refused like any other. On a file system that takes no writes an
// existing file is locked as it is.
func (FS) Lock(name string) (io.Closer, error) {
	f, err := open(name, disk.Write|disk.Create, 0o600)
	readOnly := errors.Is(err, unix.EROFS)
	if readOnly {
		f, err = open(name, 0, 0)
	}
	if err != nil {
		return nil, err
	}
	// Other users may have rights to a lock file of an older release. If the file
	// system cannot change that, it is no reason not to lock it.
	_ = unix.Fchmod(f.d.fd, 0o600)
	err = retry(func() error { return unix.Flock(f.d.fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		err = lockedBy(f)
		f.Close()
		return nil, err
	}
	if err == nil && !readOnly {
		err = leavePid(f)
	}
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	l := &lockFile{f}
	l.note()
	return l, nil
}

// lockFile is a lock that is held.
type lockFile struct{ *File }

// Unlock gives the lock back and leaves the file open. It does not wait for the
// disk, as Close may, which has to.
func (l *lockFile) Unlock() error {
	if !l.d.acquire() {
		return nil // closed: the number may be another file's
	}
	defer l.d.release()
	return unix.Flock(l.d.fd, unix.LOCK_UN)
}

// Close gives the lock back.
func (l *lockFile) Close() error {
	l.forget()
	_ = l.Unlock() // what fails here the close does
	return l.File.Close()
}

// leavePid writes the process id over that of an earlier holder, in the room that
// it has. On a full disk the lock is held without it.
func leavePid(f *File) error {
	pid := strconv.AppendInt(nil, int64(os.Getpid()), 10)
	_, err := f.WriteAt(append(pid, "          "...), 0)
	if err == nil {
		err = f.Truncate(int64(len(pid)))
	}
	if disk.CauseOf(err) == disk.Full {
		return nil
	}
	return err
}

// lockError names the process that holds a lock. It is disk.ErrLocked.
type lockError struct{ pid string }

func (e lockError) Error() string { return disk.ErrLocked.Error() + " (pid " + e.pid + ")" }
func (e lockError) Unwrap() error { return disk.ErrLocked }

func lockedBy(f *File) error {
	var buf [20]byte
	n, _ := f.ReadAt(buf[:], 0)
	pid := strings.TrimSpace(string(buf[:n]))
	if pid == "" {
		pid = "unknown"
	}
	return &fs.PathError{Op: "lock", Path: f.name, Err: lockError{pid}}
}
