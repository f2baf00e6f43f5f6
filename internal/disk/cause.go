package disk

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Cause is what an error of a file says about the disk it is on. Every errno has
// one, and only some mean a bad disk.
//
// No errno says anything about the bytes of a file: a file that could not be
// read is not damaged, not empty and not absent. Only what was read and does not
// decode is damage, and only Answer may be taken for how things stand.
//
// A cause says nothing about what a failed call has done. A sync that failed
// has lost what it was to write, whatever the cause is, and is never made again
// (see File.Datasync).
type Cause int

// The causes, from the lightest to the gravest.
const (
	// NoCause: no error, or one that is not the system's: of what is in a file,
	// or of a call that was given up.
	NoCause Cause = iota
	// Answer tells how things stand: the name is absent, there already, or no
	// directory; the bytes are not in memory; another process holds the lock.
	Answer
	// Other is any errno without a decision of its own, one for a call that
	// should not have been made among them. What was asked for is refused, and
	// nothing is concluded.
	Other
	// Scarce: the process or the kernel has no descriptors or no memory now, or
	// was interrupted. The file is as it was, and a later try may succeed.
	Scarce
	// Full: no room, or no more of the quota. Goes away when somebody makes room.
	Full
	// Denied: this process may not. Goes away when somebody changes who may.
	Denied
	// BadDisk: the medium, its controller, or the file system on it has failed.
	BadDisk
)

var causeNames = [...]string{"no cause", "answer", "other", "scarce", "full", "denied", "bad disk"}

func (c Cause) String() string { return causeNames[c] }

// Passes says whether the disk is well, and a call that changed nothing may
// succeed when it is made again: somebody makes room, or lets go of descriptors.
func (c Cause) Passes() bool { return c == Scarce || c == Full || c == Denied }

// Cure says what to do about an error after which nothing is done until a restart: the
// disk is only to be checked where it may be at fault.
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

// SyncBegun says whether a SyncDir that failed may have reached the medium. One
// that could not open the directory has not: it has reported nothing that is
// lost, and may be made again.
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
