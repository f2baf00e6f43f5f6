package asd

import (
	"errors"
	"fmt"
	"io"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/format"
	"openvstorage/internal/wal"

	"golang.org/x/sys/unix"
)

// There are three kinds of failed read. Bytes that were read and are wrong are damage
// (isDamage). Bytes that the medium does not give, even in small pieces, are unreadable
// (medium). Any other error says nothing about what is on the disk: the call fails with
// it, and may be repeated.

// medium reports whether an error is the medium's: it does not give a sector.
func medium(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EILSEQ) || errors.Is(err, unix.EREMOTEIO)
}

// noDescriptor reports whether an error says that too many files are open. It
// passes when others close theirs.
func noDescriptor(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }

func interrupted(err error) bool { return errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) }

// isDamage reports whether bytes were read and are wrong.
func isDamage(err error) bool {
	return errors.Is(err, ErrFormat) || errors.Is(err, wal.ErrCorrupt) || errors.Is(err, osd.ErrCorrupt) ||
		errors.Is(err, format.ErrCorrupt) || errors.Is(err, errIndex)
}

// Passes reports whether an error of Open or ReadIdentity comes from the machine or
// the process, as for too many open files, no memory or no permission. It says nothing
// about the ASD or its disk, and the open is to be repeated.
func Passes(err error) bool {
	if noDescriptor(err) || interrupted(err) || isNoRoom(err) || errors.Is(err, disk.ErrLocked) {
		return true
	}
	for _, errno := range []unix.Errno{unix.ENOMEM, unix.EACCES, unix.EPERM, unix.EBUSY, unix.ENOBUFS, unix.ENOLCK} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// unreadable says which bytes of a file the medium does not give. It is
// osd.ErrUnreadable, and the medium's error.
type unreadable struct {
	file   string
	offset int64
	length int64 // zero: not known
	cause  error
}

func (e *unreadable) Error() string {
	return fmt.Sprintf("%v: %s, offset %d, %d bytes: %v", osd.ErrUnreadable, e.file, e.offset, e.length, e.cause)
}

// Is reports whether target is osd.ErrUnreadable.
func (e *unreadable) Is(target error) bool { return target == osd.ErrUnreadable }

func (e *unreadable) Unwrap() error { return e.cause }

func isUnreadable(err error) bool {
	var u *unreadable
	return errors.As(err, &u)
}

// interruptsMax bounds how often a read that was interrupted is made again.
const interruptsMax = 10

// readFull fills p, or returns how much of it could be read and why not more. The
// error is io.ErrUnexpectedEOF if the file ends.
func readFull(f io.ReaderAt, p []byte, off int64) (n int, err error) {
	for range interruptsMax {
		var k int
		if k, err = f.ReadAt(p[n:], off+int64(n)); n+k == len(p) {
			return n + k, nil
		}
		n += k
		if err == nil || errors.Is(err, io.EOF) {
			return n, io.ErrUnexpectedEOF
		}
		if !interrupted(err) {
			return n, err
		}
	}
	return n, err
}

// unreadableMax bounds the blocks that an Open fails to read one by one. A disk with
// more of them is dying, and each try may take it seconds.
const unreadableMax = 64

// errDying is matched by the error for a disk that does not give too much.
var errDying = errors.New("too much of the disk cannot be read: replace it")

// readSmall fills p block by block, so that a bad sector costs no more than what lies
// in it. It asks twice for each block. A block that the medium does not give becomes
// zeros in p and is counted in bad. The error is an *unreadable then, from the first
// such block to the last.
func readSmall(f io.ReaderAt, name string, p []byte, off int64, bad *int) error {
	var lost *unreadable
	for len(p) > 0 {
		piece := p[:min(int64(len(p)), blockSize-off%blockSize)]
		_, err := readFull(f, piece, off)
		if medium(err) {
			_, err = readFull(f, piece, off)
		}
		switch {
		case medium(err):
			clear(piece)
			if *bad++; *bad > unreadableMax {
				return fmt.Errorf("%w: %s, offset %d: %w", errDying, name, off, err)
			}
			at := off - off%blockSize
			if lost == nil {
				lost = &unreadable{file: name, offset: at, cause: err}
			}
			lost.length = at + blockSize - lost.offset
		case err != nil:
			return fmt.Errorf("%s, offset %d: %w", name, off, err)
		}
		p, off = p[len(piece):], off+int64(len(piece))
	}
	if lost != nil {
		return lost
	}
	return nil
}

// retryingReader reads a file as readSmall does where the medium fails.
type retryingReader struct {
	file io.ReaderAt
	name string
	bad  *int
	err  error // the first that was met, other than the file's end
}

func (p *retryingReader) ReadAt(b []byte, off int64) (int, error) {
	n, err := readFull(p.file, b, off)
	if medium(err) {
		if err = readSmall(p.file, p.name, b, off, p.bad); err == nil {
			n = len(b)
		}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return n, io.EOF
	}
	if err != nil && p.err == nil {
		p.err = err
	}
	return n, err
}
