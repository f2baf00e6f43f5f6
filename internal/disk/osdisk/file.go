package osdisk

import (
	"io"
	"io/fs"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// prewriteChunk is how much Prewrite hands to the kernel at a time.
const prewriteChunk = 1 << 20

// zeros is never written, so it costs no memory until it is first read.
var zeros [prewriteChunk]byte

// File is an open file of the host. It implements disk.File. All methods may run at the
// same time, Close included: running calls go on, and the last of them gives the
// descriptor back. Calls that start after Close return fs.ErrClosed.
type File struct {
	d    descriptor
	name string
	// direct, if not nil, is the same file for writes past the page cache.
	direct *descriptor
	// written counts the bytes that reached the kernel, if not nil.
	written *atomic.Uint64
	// crowd is whom reads share a ring with.
	crowd *crowd
	// noNowait is set once the file system has refused RWF_NOWAIT.
	noNowait atomic.Bool
}

// Name returns the name the file was opened by.
func (f *File) Name() string { return f.name }

func (f *File) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

// Close closes the file. A second Close returns fs.ErrClosed.
func (f *File) Close() error {
	if !f.d.close() {
		return f.fail("close", fs.ErrClosed)
	}
	if f.direct != nil {
		f.direct.close()
	}
	return nil
}

// directAlign is what direct writes must be aligned to, in memory and file.
const directAlign = 4096

// writeDirect tries a direct write and returns how much it wrote.
func (f *File) writeDirect(p []byte, off int64) int {
	if f.direct == nil || len(p) == 0 || len(p)%directAlign != 0 || off%directAlign != 0 ||
		uintptr(unsafe.Pointer(&p[0]))%directAlign != 0 || !f.direct.acquire() {
		return 0
	}
	defer f.direct.release()
	done := 0
	for done < len(p) && done%directAlign == 0 {
		n, err := unix.Pwrite(f.direct.fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			break // the buffered write that follows tells what is wrong
		}
		done += n
	}
	return done
}

// ReadAt fills p from off, or returns io.EOF with what there is.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if !f.d.acquire() {
		return 0, f.fail("read", fs.ErrClosed)
	}
	defer f.d.release()
	ring := f.crowd.join()
	defer f.crowd.leave()
	done := 0
	for done < len(p) {
		if ring != nil && len(p) <= ringMax && off >= 0 {
			if n, ok := ring.read(f.d.fd, p[done:], off+int64(done)); ok {
				done += n
				continue
			}
			ring = nil // pread tells why
		}
		n, err := unix.Pread(f.d.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, f.fail("read", err)
		case n == 0:
			return done, io.EOF
		default:
			done += n
		}
	}
	return done, nil
}

// TryReadAt is ReadAt from the page cache only; see disk.File.
func (f *File) TryReadAt(p []byte, off int64) (int, error) {
	if !f.d.acquire() {
		return 0, f.fail("tryread", fs.ErrClosed)
	}
	defer f.d.release()
	return f.tryRead(p, off)
}

// WriteAt writes all of p at off. With an error, the count says how much
// reached the kernel.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	stay()
	if !f.d.acquire() {
		return 0, f.fail("write", fs.ErrClosed)
	}
	defer f.d.release()
	done := f.writeDirect(p, off)
	defer func() { f.count(done) }()
	for done < len(p) {
		n, err := unix.Pwrite(f.d.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, f.fail("write", err)
		case n == 0:
			return done, f.fail("write", io.ErrShortWrite)
		default:
			done += n
		}
	}
	return done, nil
}

// WritevAt writes the concatenation of bufs at off with one system call for
// every 1024 buffers.
func (f *File) WritevAt(bufs [][]byte, off int64) (int, error) {
	stay()
	if len(bufs) == 1 {
		return f.WriteAt(bufs[0], off)
	}
	if !f.d.acquire() {
		return 0, f.fail("write", fs.ErrClosed)
	}
	defer f.d.release()
	n, err := pwritev(f.d.fd, bufs, off)
	f.count(n)
	if err != nil {
		err = f.fail("write", err)
	}
	return n, err
}

func (f *File) count(n int) {
	if f.written != nil {
		f.written.Add(uint64(n))
	}
}

// Datasync is fdatasync(2).
//
// An interrupted call (some network and FUSE file systems) has reported
// nothing and is made again. Any other error is final: the kernel may have
// dropped the dirty pages, and a second call would succeed without them.
func (f *File) Datasync() error { return f.sync("datasync", unix.Fdatasync) }

// Sync is fsync(2).
func (f *File) Sync() error { return f.sync("sync", unix.Fsync) }

func (f *File) sync(op string, call func(int) error) error {
	stay()
	if !f.d.acquire() {
		return f.fail(op, fs.ErrClosed)
	}
	defer f.d.release()
	if err := retry(func() error { return call(f.d.fd) }); err != nil {
		return f.fail(op, err)
	}
	return nil
}

// Prewrite writes zeros over [off, off+n), 1 MiB at a time, and syncs.
func (f *File) Prewrite(off, n int64) error {
	if off < 0 || n < 0 {
		return f.fail("prewrite", unix.EINVAL)
	}
	for n > 0 {
		k, err := f.WriteAt(zeros[:min(n, prewriteChunk)], off)
		if err != nil {
			return err
		}
		off += int64(k)
		n -= int64(k)
	}
	return f.Datasync()
}

// Allocate is fallocate(2). The file's length stays.
func (f *File) Allocate(off, n int64) error {
	stay()
	if off < 0 || n < 0 {
		return f.fail("allocate", unix.EINVAL)
	}
	if n == 0 {
		return nil
	}
	if !f.d.acquire() {
		return f.fail("allocate", fs.ErrClosed)
	}
	defer f.d.release()
	err := retry(func() error { return unix.Fallocate(f.d.fd, unix.FALLOC_FL_KEEP_SIZE, off, n) })
	if err != nil && err != unix.EOPNOTSUPP && err != unix.ENOSYS {
		return f.fail("allocate", err)
	}
	return nil
}

// readahead starts reading [off, off+n) into the page cache. A hint: whoever
// reads afterwards meets its errors.
func (f *File) readahead(off, n int64) { _ = unix.Fadvise(f.d.fd, off, n, unix.FADV_WILLNEED) }

// Writeback starts writing [off, off+n) to the medium and does not wait,
// except when the device's queue is full.
func (f *File) Writeback(off, n int64) error {
	if n <= 0 { // to the kernel 0 would mean up to the end of the file
		return nil
	}
	if !f.d.acquire() {
		return f.fail("writeback", fs.ErrClosed)
	}
	defer f.d.release()
	err := retry(func() error {
		return unix.SyncFileRange(f.d.fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
	if err != nil && err != unix.ENOSYS && err != unix.EOPNOTSUPP { // a hint, no more
		return f.fail("writeback", err)
	}
	return nil
}

// Truncate sets the file's length; a longer file reads as zeros there.
func (f *File) Truncate(size int64) error {
	stay()
	if !f.d.acquire() {
		return f.fail("truncate", fs.ErrClosed)
	}
	defer f.d.release()
	if err := retry(func() error { return unix.Ftruncate(f.d.fd, size) }); err != nil {
		return f.fail("truncate", err)
	}
	return nil
}

// Size returns the file's length in bytes.
func (f *File) Size() (int64, error) {
	if !f.d.acquire() {
		return 0, f.fail("stat", fs.ErrClosed)
	}
	defer f.d.release()
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(f.d.fd, &st) }); err != nil {
		return 0, f.fail("stat", err)
	}
	return st.Size, nil
}

// retry repeats a call that a signal interrupted; the Go runtime sends itself
// signals all the time.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
