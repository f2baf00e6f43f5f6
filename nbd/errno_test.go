package nbd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"openvstorage/nbd"
)

// TestErrnoTable goes through every errno that Linux has.
func TestErrnoTable(t *testing.T) {
	want := map[nbd.Errno][]syscall.Errno{
		nbd.EPERM:     {syscall.EPERM, syscall.EACCES, syscall.EROFS},
		nbd.ENOMEM:    {syscall.ENOMEM},
		nbd.EINVAL:    {syscall.EINVAL, syscall.ERANGE, syscall.EDOM},
		nbd.ENOSPC:    {syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG},
		nbd.EOVERFLOW: {syscall.EOVERFLOW, syscall.E2BIG},
		nbd.ENOTSUP:   {syscall.ENOTSUP, syscall.ENOSYS},
		nbd.ESHUTDOWN: {syscall.ESHUTDOWN},
	}
	expected := func(e syscall.Errno) nbd.Errno {
		for to, froms := range want {
			for _, from := range froms {
				if from == e {
					return to
				}
			}
		}
		return nbd.EIO
	}
	for e := syscall.Errno(1); e < 200; e++ {
		if got := nbd.ErrnoOf(fmt.Errorf("wrapped: %w", e)); got != expected(e) {
			t.Errorf("%d (%v) is sent as %v, want %v", int(e), e, got, expected(e))
		}
	}
	for _, test := range []struct {
		err  error
		want nbd.Errno
	}{
		{nil, nbd.OK},
		{io.ErrUnexpectedEOF, nbd.EIO},
		{context.Canceled, nbd.ESHUTDOWN},
		{context.DeadlineExceeded, nbd.EIO},
		{fmt.Errorf("wrapped: %w", nbd.EOVERFLOW), nbd.EOVERFLOW},
	} {
		if got := nbd.ErrnoOf(test.err); got != test.want {
			t.Errorf("%v is sent as %v, want %v", test.err, got, test.want)
		}
	}
	if !errors.Is(nbd.ENOSPC, syscall.ENOSPC) || errors.Is(nbd.ENOSPC, syscall.EIO) {
		t.Error("an Errno does not match its syscall.Errno")
	}
}
