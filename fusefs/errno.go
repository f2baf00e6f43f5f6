package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"openvstorage/fusefs/filetree"
)

// errnos is the table from errors to what a program sees. The first row that matches
// counts: EIO comes first, whatever its cause is, and an errno comes before those errors
// of package io/fs that it matches too. An error that is not in the table is EIO. A bare
// errno, as the library returns it, is that errno.
var errnos = []struct {
	err   error
	errno syscall.Errno
}{
	{syscall.EIO, syscall.EIO}, // a halted vDisk, whose reason may be another
	{syscall.EINVAL, syscall.EINVAL},
	{syscall.EBUSY, syscall.EBUSY},
	{syscall.EREMOTE, syscall.EREMOTE},
	{syscall.ENOSPC, syscall.ENOSPC},
	{syscall.EDQUOT, syscall.EDQUOT},
	{syscall.EFBIG, syscall.EFBIG},
	{syscall.EROFS, syscall.EROFS},
	{syscall.ENOTDIR, syscall.ENOTDIR},
	{syscall.ENOTEMPTY, syscall.ENOTEMPTY},
	{syscall.ENAMETOOLONG, syscall.ENAMETOOLONG},
	{syscall.EOPNOTSUPP, syscall.EOPNOTSUPP},
	{filetree.ErrMany, syscall.EOPNOTSUPP},
	{fs.ErrNotExist, syscall.ENOENT},
	{fs.ErrExist, syscall.EEXIST},
	{fs.ErrInvalid, syscall.EINVAL},
	{fs.ErrPermission, syscall.EPERM},
	{context.Canceled, syscall.EINTR},
}

func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if e, ok := err.(syscall.Errno); ok {
		return e // decided here
	}
	for _, row := range errnos {
		if errors.Is(err, row.err) {
			return row.errno
		}
	}
	return syscall.EIO
}
