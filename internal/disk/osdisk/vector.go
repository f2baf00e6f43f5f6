package osdisk

import (
	"io"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxVectors is Linux's IOV_MAX: one pwritev takes no more buffers.
const maxVectors = 1024

type vectors [maxVectors]unix.Iovec

// freeVectors keeps at most 16 arrays of 16 KiB. A channel and not a
// sync.Pool: a list of fixed size that the garbage collector does not empty.
var freeVectors = make(chan *vectors, 16)

func getVectors() *vectors {
	select {
	case v := <-freeVectors:
		return v
	default:
		return new(vectors)
	}
}

// putVectors forgets the first used buffers and keeps v for the next call.
func putVectors(v *vectors, used int) {
	clear(v[:used])
	select {
	case freeVectors <- v:
	default:
	}
}

// pwritev writes all of bufs at off and returns how much it wrote.
func pwritev(fd int, bufs [][]byte, off int64) (int, error) {
	v := getVectors()
	used, done := 0, 0
	defer func() { putVectors(v, used) }()
	for len(bufs) > 0 {
		k := 0
		for k < maxVectors && len(bufs) > 0 {
			if b := bufs[0]; len(b) > 0 {
				v[k].Base = unsafe.SliceData(b)
				v[k].SetLen(len(b))
				k++
			}
			bufs = bufs[1:]
		}
		used = max(used, k)
		n, err := pwritevAll(fd, v[:k], off+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// pwritevAll writes what vs point at, going on after a short write with the
// rest. It changes vs.
func pwritevAll(fd int, vs []unix.Iovec, off int64) (int, error) {
	done := 0
	for len(vs) > 0 {
		n, _, errno := unix.Syscall6(unix.SYS_PWRITEV, uintptr(fd),
			uintptr(unsafe.Pointer(&vs[0])), uintptr(len(vs)),
			offsetLow(off+int64(done)), offsetHigh(off+int64(done)), 0)
		runtime.KeepAlive(vs)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return done, errno
		case n == 0:
			return done, io.ErrShortWrite
		}
		done += int(n)
		vs = skip(vs, int(n))
	}
	return done, nil
}

// skip drops the first n bytes of vs.
func skip(vs []unix.Iovec, n int) []unix.Iovec {
	for len(vs) > 0 && n >= int(vs[0].Len) {
		n -= int(vs[0].Len)
		vs = vs[1:]
	}
	if n > 0 {
		vs[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(vs[0].Base), n))
		vs[0].SetLen(int(vs[0].Len) - n)
	}
	return vs
}

// The kernel takes the offset as two words; on 64-bit machines the first holds
// all of it and the second is shifted out.
func offsetLow(off int64) uintptr  { return uintptr(off) }
func offsetHigh(off int64) uintptr { return uintptr(uint64(off) >> 32) }
