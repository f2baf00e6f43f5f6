package disk

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Cause is what an error of a file says about the disk it is on. Every errno has
// one, and only some mean a bad disk.
//
// No errno says anything about the bytes of a file: a file that could not be read
// counts neither as damaged, nor as empty, nor as absent. Only bytes that were read
// and do not decode are damage. Only an Answer says how things stand.
//
// A cause does not say what the failed call has done. A failed sync has lost what it
// was to write, whatever its cause, and is never repeated (see package disk).
type Cause int

// The causes, from the lightest to the gravest.
const (
	// NoCause: no error, or one that does not come from the system, as about the
	// content of a file, or of a call that was cancelled.
	NoCause Cause = iota
	// Answer tells how things stand: the name is absent, there already, or no
	// directory; the bytes are not in memory; another process holds the lock.
	Answer
	// Other is any errno that has no decision of its own, as those of calls that are
	// wrong in themselves. The request fails, and nothing is concluded.
	Other
	// Scarce: the process or the kernel has no descriptors or no memory now, or
	// was interrupted. The file is as it was, and a later try may succeed.
	Scarce
	// Full: no room, or no more of the quota. Goes away when somebody makes room.
	Full
	// Denied: this process lacks the right. Goes away when somebody grants it.
	Denied
	// BadDisk: the medium, its controller, or the file system on it has failed.
	BadDisk
)

var causeNames = [...]string{"no cause", "answer", "other", "scarce", "full", "denied", "bad disk"}

func (c Cause) String() string { return causeNames[c] }

// Passes reports whether the disk is well and a call that changed nothing may succeed
// when it is repeated, as when somebody makes room or closes files.
func (c Cause) Passes() bool { return c == Scarce || c == Full || c == Denied }

// Cure says what to do about an error that only a restart ends. It asks for a check of
// the disk only if the disk may be at fault.
func Cure(err error) string {
	switch CauseOf(err) {
	case BadDisk:
		return "check the disk and restart"
	case Full:
		return "make room and restart"
	case Denied:
		return "see that this process may do so, and restart"
	case Scarce:
		return "the disk is not at fault: see that this process gets files and memory, and restart"
	}
	return "restart"
}

// causes is the decision about each errno; those that it does not have are Other.
var causes = map[unix.Errno]Cause{
	unix.ENOENT:       Answer,
	unix.EEXIST:       Answer,
	unix.ENOTDIR:      Answer,
	unix.EISDIR:       Answer,
	unix.ENOTEMPTY:    Answer,
	unix.ENAMETOOLONG: Answer,
	unix.ELOOP:        Answer,

	unix.EMFILE:  Scarce,
	unix.ENFILE:  Scarce,
	unix.ENOMEM:  Scarce,
	unix.ENOBUFS: Scarce,
	unix.ENOLCK:  Scarce, // flock: no memory for one more lock
	unix.EAGAIN:  Scarce,
	unix.EINTR:   Scarce, // osdisk makes such calls again; a network file system may still say so

	unix.ENOSPC: Full,
	unix.EDQUOT: Full,

	unix.EACCES:      Denied,
	unix.EPERM:       Denied,
	unix.ENOKEY:      Denied, // the directory is encrypted, and locked
	unix.EKEYREVOKED: Denied,

	// The block layer's, by what the device answered.
	unix.EIO:       BadDisk,
	unix.ENODATA:   BadDisk, // medium error
	unix.ETIMEDOUT: BadDisk,
	unix.ENOLINK:   BadDisk, // transport
	unix.EREMOTEIO: BadDisk, // target
	unix.EBADE:     BadDisk, // reserved by another host
	unix.EILSEQ:    BadDisk, // protection information
	unix.ENODEV:    BadDisk, // offline, or pulled out
	unix.ENXIO:     BadDisk,
	unix.ENOMEDIUM: BadDisk,
	unix.EHWPOISON: BadDisk, // the page's memory is broken
	// The file system's.
	unix.EUCLEAN:      BadDisk, // its metadata is damaged
	unix.EBADMSG:      BadDisk, // its checksum does not match
	unix.EROFS:        BadDisk, // mounted so, or made so after errors
	unix.ESHUTDOWN:    BadDisk,
	unix.ESTALE:       BadDisk, // it is another one now
	unix.ENOTCONN:     BadDisk, // its FUSE server is gone
	unix.ECONNABORTED: BadDisk,
}

// SyncBegun reports whether a failed SyncDir may have begun to write. If it could not
// even open the directory it has not: nothing is lost, and it may be repeated.
func SyncBegun(err error) bool {
	return !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) && !errors.Is(err, unix.EACCES) || CauseOf(err) == BadDisk
}

// CauseOf is the gravest cause of an error and of all that it wraps.
func CauseOf(err error) Cause {
	c := own(err)
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		c = max(c, CauseOf(e.Unwrap()))
	case interface{ Unwrap() []error }:
		for _, e := range e.Unwrap() {
			c = max(c, CauseOf(e))
		}
	}
	return c
}

// own is the cause of an error by itself.
func own(err error) Cause {
	switch err {
	case nil:
		return NoCause
	case ErrWouldBlock, ErrLocked, fs.ErrNotExist, fs.ErrExist:
		return Answer
	case fs.ErrPermission:
		return Denied
	}
	errno, ok := err.(unix.Errno)
	if !ok || errno == 0 {
		return NoCause
	}
	if c, ok := causes[errno]; ok {
		return c
	}
	return Other
}
