package osdisk

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The layouts below are those of Linux's include/uapi/linux/io_uring.h, which
// has them since 5.1 and never changes what is there.

// submission is struct io_uring_sqe, 64 bytes, as IORING_OP_READ uses it.
//
//	 0  u8   opcode
//	 1  u8   flags
//	 2  u16  ioprio
//	 4  s32  fd
//	 8  u64  off        in the file
//	16  u64  addr       of the buffer
//	24  u32  len        of the buffer
//	28  u32  rw_flags
//	32  u64  user_data  comes back in the completion
//	40  24 bytes that reads leave zero
type submission struct {
	opcode   uint8
	flags    uint8
	ioprio   uint16
	fd       int32
	off      uint64
	addr     uint64
	len      uint32
	rwFlags  uint32
	userData uint64
	_        [3]uint64
}

// completion is struct io_uring_cqe, 16 bytes.
//
//	 0  u64  user_data
//	 8  s32  res    bytes read, or the errno negated
//	12  u32  flags
type completion struct {
	userData uint64
	res      int32
	flags    uint32
}

// ringParams is struct io_uring_params, 120 bytes. The kernel fills all but
// flags.
//
//	 0  u32  sq_entries
//	 4  u32  cq_entries
//	 8  u32  flags
//	12  u32  sq_thread_cpu
//	16  u32  sq_thread_idle
//	20  u32  features
//	24  u32  wq_fd
//	28  u32  resv[3]
//	40  sq_off, 40 bytes
//	80  cq_off, 40 bytes
type ringParams struct {
	sqEntries, cqEntries, flags uint32
	sqThreadCPU, sqThreadIdle   uint32
	features, wqFD              uint32
	_                           [3]uint32
	sq                          ringOffsets
	cq                          ringOffsets
}

// ringOffsets is struct io_sqring_offsets or io_cqring_offsets: where in the
// shared memory things lie. The two differ behind ring_entries.
//
//	 0  u32  head
//	 4  u32  tail
//	 8  u32  ring_mask
//	12  u32  ring_entries
//	16  u32  flags     or overflow
//	20  u32  dropped   or cqes
//	24  u32  array     or flags
//	28  u32  resv
//	32  u64  user_addr
type ringOffsets struct {
	head, tail, mask, entries uint32
	flagsOrOverflow           uint32
	droppedOrCQEs             uint32
	arrayOrFlags              uint32
	_                         uint32
	_                         uint64
}

const (
	opRead            = 22         // IORING_OP_READ
	featSingleMmap    = 1 << 0     // IORING_FEAT_SINGLE_MMAP: both rings in one mapping
	featNoDrop        = 1 << 1     // IORING_FEAT_NODROP: completions are never lost
	featFastPoll      = 1 << 5     // IORING_FEAT_FAST_POLL: Linux 5.7, which has IORING_OP_READ
	offsetSubmissions = 0x10000000 // IORING_OFF_SQES
)

// queues is the memory that a ring shares with the kernel. One caller at a
// time may push or pop, one may enter, and one may complete.
type queues struct {
	fd          atomic.Int64 // tests break it
	maps        [2][]byte
	sqTail      *atomic.Uint32 // ours: the kernel takes what is before it
	cqHead      *atomic.Uint32 // ours: we have taken what is before it
	cqTail      *atomic.Uint32 // the kernel's
	submissions []submission   // as many as a power of two
	completions []completion   // twice as many
}

// open makes an io_uring that holds entries submissions, a power of two.
func (q *queues) open(entries uint32) (fd int, err error) {
	var p ringParams
	n, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return 0, errno
	}
	fd = int(n)
	if err := q.mmap(fd, &p); err != nil {
		q.unmap()
		unix.Close(fd)
		return 0, err
	}
	q.fd.Store(int64(fd))
	return fd, nil
}

func (q *queues) mmap(fd int, p *ringParams) error {
	const features = featSingleMmap | featNoDrop | featFastPoll
	if p.features&features != features {
		return unix.ENOSYS
	}
	const protect, shared = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	size := max(p.sq.arrayOrFlags+4*p.sqEntries, p.cq.droppedOrCQEs+p.cqEntries*uint32(unsafe.Sizeof(completion{})))
	var err error
	if q.maps[0], err = unix.Mmap(fd, 0, int(size), protect, shared); err != nil {
		return err
	}
	size = p.sqEntries * uint32(unsafe.Sizeof(submission{}))
	if q.maps[1], err = unix.Mmap(fd, offsetSubmissions, int(size), protect, shared); err != nil {
		return err
	}
	word := func(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&q.maps[0][at])) }
	counter := func(at uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(word(at))) }
	q.sqTail, q.cqHead, q.cqTail = counter(p.sq.tail), counter(p.cq.head), counter(p.cq.tail)
	q.submissions = unsafe.Slice((*submission)(unsafe.Pointer(&q.maps[1][0])), p.sqEntries)
	q.completions = unsafe.Slice((*completion)(unsafe.Pointer(&q.maps[0][p.cq.droppedOrCQEs])), p.cqEntries)
	// The submission queue is a ring of indices; here each is its own place's.
	for i, array := uint32(0), unsafe.Slice(word(p.sq.arrayOrFlags), p.sqEntries); i < p.sqEntries; i++ {
		array[i] = i
	}
	return nil
}

func (q *queues) unmap() {
	for i, m := range q.maps {
		if m != nil {
			unix.Munmap(m)
			q.maps[i] = nil
		}
	}
}

// push adds a read. There is room: there are as many places as reads.
func (q *queues) push(fd int, p unsafe.Pointer, n int, off int64, userData uint32) {
	tail := q.sqTail.Load()
	q.submissions[tail&uint32(len(q.submissions)-1)] = submission{
		opcode: opRead, fd: int32(fd), off: uint64(off), addr: uint64(uintptr(p)), len: uint32(n), userData: uint64(userData),
	}
	q.sqTail.Store(tail + 1)
}

// pop takes the last push back, which the kernel must not have taken, and
// returns its user_data.
func (q *queues) pop() uint32 {
	tail := q.sqTail.Load() - 1
	q.sqTail.Store(tail)
	return uint32(q.submissions[tail&uint32(len(q.submissions)-1)].userData)
}

// enter hands up to n pushed reads to the kernel and returns how many it took.
// It does not wait for them.
func (q *queues) enter(n int) (int, error) {
	took, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(q.fd.Load()), uintptr(n), 0, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(took), nil
}

// complete takes the next completion, if there is one.
func (q *queues) complete() (userData uint32, res int32, ok bool) {
	head := q.cqHead.Load()
	if head == q.cqTail.Load() {
		return 0, 0, false
	}
	c := q.completions[head&uint32(len(q.completions)-1)]
	q.cqHead.Store(head + 1)
	return uint32(c.userData), c.res, true
}
