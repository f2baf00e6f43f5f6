package nbd

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// Errno is an error on the wire. Its values are those of Linux, so that
// errors.Is(err, syscall.ENOSPC) holds for what a client returns.
type Errno uint32

// The errors that the protocol has.
const (
	OK        Errno = 0
	EPERM     Errno = 1
	EIO       Errno = 5
	ENOMEM    Errno = 12
	EINVAL    Errno = 22
	ENOSPC    Errno = 28
	EOVERFLOW Errno = 75
	ENOTSUP   Errno = 95
	ESHUTDOWN Errno = 108
)

// nearest maps errors of devices to those of the protocol. Any other error becomes EIO: it
// tells the client only that the request failed.
var nearest = map[syscall.Errno]Errno{
	syscall.EPERM:     EPERM,
	syscall.EACCES:    EPERM,
	syscall.EROFS:     EPERM,
	syscall.ENOMEM:    ENOMEM,
	syscall.EINVAL:    EINVAL,
	syscall.ERANGE:    EINVAL,
	syscall.EDOM:      EINVAL,
	syscall.ENOSPC:    ENOSPC,
	syscall.EDQUOT:    ENOSPC,
	syscall.EFBIG:     ENOSPC,
	syscall.EOVERFLOW: EOVERFLOW,
	syscall.E2BIG:     EOVERFLOW,
	syscall.ENOTSUP:   ENOTSUP,
	syscall.ENOSYS:    ENOTSUP,
	syscall.ESHUTDOWN: ESHUTDOWN,
}

// ErrnoOf is the errno that err is sent as: the Errno that it wraps; the nearest to a
// syscall.Errno that it wraps; ESHUTDOWN if the request was cancelled; else EIO.
func ErrnoOf(err error) Errno {
	if err == nil {
		return OK
	}
	var e Errno
	if errors.As(err, &e) && e != OK {
		return e
	}
	var sys syscall.Errno
	if errors.As(err, &sys) {
		if e, ok := nearest[sys]; ok {
			return e
		}
		return EIO
	}
	// The server cancels requests only when it goes away or hangs up.
	if errors.Is(err, context.Canceled) {
		return ESHUTDOWN
	}
	return EIO
}

func (e Errno) Error() string {
	if e == OK {
		return "nbd: no error"
	}
	return fmt.Sprintf("nbd: %s", syscall.Errno(e).Error())
}

// Is makes an Errno match the syscall.Errno of the same value.
func (e Errno) Is(target error) bool {
	sys, ok := target.(syscall.Errno)
	return ok && sys == syscall.Errno(e)
}
