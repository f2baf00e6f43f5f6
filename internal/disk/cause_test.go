package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Every errno that Linux has, by what it says. Whoever changes a line changes
// what each package does when it meets that errno.
func TestEveryErrnoHasACause(t *testing.T) {
	want := map[Cause][]unix.Errno{
		Answer: {unix.ENOENT, unix.EEXIST, unix.ENOTDIR, unix.EISDIR, unix.ENOTEMPTY, unix.ENAMETOOLONG, unix.ELOOP},
		Scarce: {unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.ENOLCK, unix.EAGAIN, unix.EWOULDBLOCK, unix.EINTR},
		Full:   {unix.ENOSPC, unix.EDQUOT},
		Denied: {unix.EACCES, unix.EPERM, unix.ENOKEY, unix.EKEYREVOKED},
		BadDisk: {
			unix.EIO, unix.ENODATA, unix.ETIMEDOUT, unix.ENOLINK, unix.EREMOTEIO, unix.EBADE, unix.EILSEQ, unix.ENODEV, unix.ENXIO,
			unix.ENOMEDIUM, unix.EHWPOISON, unix.EUCLEAN, unix.EBADMSG, unix.EROFS, unix.ESHUTDOWN, unix.ESTALE, unix.ENOTCONN,
			unix.ECONNABORTED,
		},
	}
	cause := map[unix.Errno]Cause{}
	for c, list := range want {
		for _, errno := range list {
			cause[errno] = c
		}
	}
	for errno := unix.Errno(1); errno < 200; errno++ {
		c, ok := cause[errno]
		if !ok {
			c = Other
		}
		if got, want := CauseOf(errno).Passes(), c == Scarce || c == Full || c == Denied; got != want {
			t.Errorf("%v passes: %v", unix.ErrnoName(errno), got)
		}
		if got := CauseOf(errno); got != c {
			t.Errorf("%v (%d): %v, not %v", unix.ErrnoName(errno), errno, got, c)
		}
		if got := CauseOf(&fs.PathError{Op: "read", Path: "f", Err: errno}); got != c {
			t.Errorf("%v (%d) of a file: %v, not %v", unix.ErrnoName(errno), errno, got, c)
		}
	}
}

func TestCauseOfWhatIsWrapped(t *testing.T) {
	of := func(errno unix.Errno) error {
		return fmt.Errorf("open: %w", &fs.PathError{Op: "open", Path: "f", Err: errno})
	}
	for _, c := range []struct {
		err  error
		want Cause
	}{
		{nil, NoCause},
		{unix.Errno(0), NoCause},
		{io.EOF, NoCause},
		{io.ErrUnexpectedEOF, NoCause},
		{context.Canceled, NoCause},
		{errors.New("checksum"), NoCause},
		{fs.ErrClosed, NoCause},
		{fs.ErrNotExist, Answer},
		{fs.ErrExist, Answer},
		{ErrWouldBlock, Answer},
		{fmt.Errorf("lock f: %w", ErrLocked), Answer},
		{fs.ErrPermission, Denied},
		{&os.LinkError{Op: "rename", Old: "a", New: "b", Err: unix.EMFILE}, Scarce},
		{os.NewSyscallError("statfs", unix.EIO), BadDisk},
		// What went wrong while cleaning up is not what was wrong.
		{errors.Join(of(unix.ENOENT), of(unix.EMFILE)), Scarce},
		{errors.Join(of(unix.EIO), of(unix.ENOSPC)), BadDisk},
		{fmt.Errorf("%w: %w", errors.New("damaged"), of(unix.EACCES)), Denied},
		{errors.Join(errors.New("a"), fmt.Errorf("b: %w", errors.Join(nil, of(unix.EDQUOT)))), Full},
	} {
		if got := CauseOf(c.err); got != c.want {
			t.Errorf("%v: %v, not %v", c.err, got, c.want)
		}
	}
}

// A SyncDir that found no descriptor has synced nothing, and lost nothing. All
// others count as begun.
func TestSyncBegun(t *testing.T) {
	for errno := unix.Errno(1); errno < 200; errno++ {
		err := fmt.Errorf("a: %w", &fs.PathError{Op: "syncdir", Path: "d", Err: errno})
		if got, want := SyncBegun(err), errno != unix.EMFILE && errno != unix.ENFILE && errno != unix.EACCES; got != want {
			t.Errorf("%v: %v", unix.ErrnoName(errno), got)
		}
	}
	if !SyncBegun(errors.Join(unix.EMFILE, unix.EIO)) {
		t.Error("a bad disk is overlooked")
	}
}

// The disk is to be checked where it may be at fault, and nowhere else.
func TestCure(t *testing.T) {
	for err, want := range map[error]string{
		unix.EIO: "check the disk", unix.EROFS: "check the disk", unix.ENOSPC: "make room", unix.EDQUOT: "make room",
		unix.EMFILE: "not at fault", unix.ENOMEM: "not at fault", unix.EPERM: "may do so", errors.New("its CRC"): "restart", nil: "restart",
	} {
		got := Cure(fmt.Errorf("sync: %w", err))
		if !strings.Contains(got, want) || strings.Contains(got, "check the disk") != (want == "check the disk") || !strings.HasSuffix(got, "restart") {
			t.Errorf("%v: %q", err, got)
		}
	}
}
