package osdisk

import (
	"fmt"
	"io"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
)

// tryRead fills p from the page cache, or starts to read what is missing. The kernel
// returns a short read both where memory ends and where the file ends. Another read from
// there tells the two apart.
func (f *File) tryRead(p []byte, off int64) (int, error) {
	if off < 0 { // to preadv2 -1 is the file's own position
		return 0, f.fail("tryread", unix.EINVAL)
	}
	done := 0
	for done < len(p) && !f.noNowait.Load() {
		var v unix.Iovec
		v.Base = &p[done]
		v.SetLen(len(p) - done)
		at := off + int64(done)
		n, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(f.d.fd),
			uintptr(unsafe.Pointer(&v)), 1, offsetLow(at), offsetHigh(at), unix.RWF_NOWAIT)
		runtime.KeepAlive(p)
		switch errno {
		case 0:
			if n == 0 {
				return done, io.EOF
			}
			done += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			if !nowaitReads() {
				f.readahead(at, int64(len(p)-done))
			}
			return done, disk.ErrWouldBlock
		case unix.EOPNOTSUPP, unix.ENOSYS:
			f.noNowait.Store(true)
		default:
			return done, f.fail("tryread", errno)
		}
	}
	if done < len(p) {
		f.readahead(off+int64(done), int64(len(p)-done))
		return done, disk.ErrWouldBlock
	}
	return done, nil
}

// nowaitReads reports whether a read with RWF_NOWAIT starts to read the pages
// that it does not find: from Linux 5.10 on. Asking for it once more costs as
// much as the read.
var nowaitReads = sync.OnceValue(func() bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	return err == nil && (major > 5 || major == 5 && minor >= 10)
})
