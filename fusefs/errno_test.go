package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"openvstorage/fusefs/filetree"
)

func TestErrnoTable(t *testing.T) {
	want := map[error]syscall.Errno{
		fs.ErrNotExist: syscall.ENOENT, fs.ErrExist: syscall.EEXIST, fs.ErrInvalid: syscall.EINVAL, fs.ErrPermission: syscall.EPERM,
		filetree.ErrMany: syscall.EOPNOTSUPP, context.Canceled: syscall.EINTR,
	}
	for _, row := range errnos {
		errno, ok := want[row.err]
		if !ok {
			errno = row.err.(syscall.Errno) // an errno is itself
		}
		for _, err := range []error{
			fmt.Errorf("vDisk a: %w", row.err),
			errors.Join(errors.New("beside another"), row.err),
			fmt.Errorf("%w: of the pool: %w", row.err, errors.New("why")),
		} {
			if got := errnoOf(err); got != errno || row.errno != errno {
				t.Errorf("%v: %v, want %v", err, got, errno)
			}
		}
	}
	if got := errnoOf(nil); got != 0 {
		t.Errorf("no error: %v", got)
	}
	if got := errnoOf(syscall.EXDEV); got != syscall.EXDEV {
		t.Errorf("a bare errno: %v", got)
	}
	for _, err := range []error{
		errors.New("halted"), fmt.Errorf("of a disk: %w", syscall.ENOTTY), fmt.Errorf("of a disk: %w", syscall.EIO),
		fmt.Errorf("halted: %w: %w", syscall.EIO, syscall.ENOSPC), fmt.Errorf("halted: %w: %w", syscall.EIO, fs.ErrNotExist),
		filetree.ErrNotWritten, context.DeadlineExceeded,
	} {
		if got := errnoOf(err); got != syscall.EIO {
			t.Errorf("%v: %v, want EIO", err, got)
		}
	}
}

// Without a device a file is an empty one, or a vDisk that could not be opened
// again after something that failed.
func TestNoDevice(t *testing.T) {
	for what, c := range map[string]struct {
		is   which
		want syscall.Errno
	}{
		"empty": {which{node: 1}, 0},
		"lost":  {which{id: uuid.UUID{1}}, syscall.EIO},
	} {
		var file diskFile
		file.which.Store(&c.is)
		open := openDevice{file: &file}
		dev, got := open.use(context.Background())
		if dev != nil || got != c.want {
			t.Errorf("%s: %v, %v", what, dev, got)
		}
		if got == 0 {
			open.unshare()
		}
		if !open.mu.TryLock() {
			t.Errorf("%s: the lock is held still", what)
		}
	}
}
