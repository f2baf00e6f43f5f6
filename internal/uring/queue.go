package uring

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The layouts below are those of Linux's include/uapi/linux/io_uring.h. They exist
// since 5.1; later versions only add to them.

// Submission is struct io_uring_sqe, 64 bytes.
//
//	 0  u8   opcode
//	 1  u8   flags
//	 2  u16  ioprio
//	 4  s32  fd
//	 8  u64  off        in the file; of OpCommand the command, in its low half
//	16  u64  addr       of the buffer
//	24  u32  len        of the buffer
//	28  u32  rw_flags
//	32  u64  user_data  comes back in the completion
//	40  u16  buf_index
//	42  u16  personality
//	44  s32  splice_fd_in
//	48  16 bytes that reads leave zero, where a command begins
type Submission struct {
	Opcode   uint8
	Flags    uint8
	Ioprio   uint16
	FD       int32
	Off      uint64
	Addr     uint64
	Len      uint32
	RWFlags  uint32
	UserData uint64
	_        uint64
	Command  [2]uint64
}

// WideSubmission is a submission of a ring that was opened with SQE128. 80 bytes of it
// belong to a command.
type WideSubmission struct {
	Submission
	MoreCommand [8]uint64
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

// Opcodes of submissions.
const (
	OpRead    = 22 // IORING_OP_READ
	OpCommand = 46 // IORING_OP_URING_CMD
)

// Flags of Open.
const (
	SQE128       = 1 << 10 // submissions are WideSubmissions
	SingleIssuer = 1 << 12 // one thread submits
	DeferTaskrun = 1 << 13 // completions come when that thread waits for them
)

const (
	featSingleMmap    = 1 << 0     // IORING_FEAT_SINGLE_MMAP: both rings in one mapping
	featNoDrop        = 1 << 1     // IORING_FEAT_NODROP: completions are never lost
	featFastPoll      = 1 << 5     // IORING_FEAT_FAST_POLL: Linux 5.7, which has IORING_OP_READ
	offsetSubmissions = 0x10000000 // IORING_OFF_SQES
	enterGetEvents    = 1 << 0     // IORING_ENTER_GETEVENTS
)

// Queues is what a ring shares with the kernel; S is Submission, or
// WideSubmission with the flag SQE128. One caller at a time may push or pop,
// one may enter, and one may complete.
type Queues[S Submission | WideSubmission] struct {
	FD          atomic.Int64 // tests break it
	maps        [2][]byte
	sqTail      *atomic.Uint32 // ours: the kernel takes what is before it
	cqHead      *atomic.Uint32 // ours: we have taken what is before it
	cqTail      *atomic.Uint32 // the kernel's
	submissions []S            // as many as a power of two
	completions []completion   // twice as many
}

// Open makes an io_uring with room for entries submissions, a power of two. The caller
// closes the descriptor, after Unmap; it is -1 after an error.
func (q *Queues[S]) Open(entries, flags uint32) (fd int, err error) {
	p := ringParams{flags: flags}
	n, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return -1, errno
	}
	fd = int(n)
	if err := q.mmap(fd, &p); err != nil {
		q.Unmap()
		unix.Close(fd)
		return -1, err
	}
	q.FD.Store(int64(fd))
	return fd, nil
}

func (q *Queues[S]) mmap(fd int, p *ringParams) error {
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
	var s S
	size = p.sqEntries * uint32(unsafe.Sizeof(s))
	if q.maps[1], err = unix.Mmap(fd, offsetSubmissions, int(size), protect, shared); err != nil {
		return err
	}
	word := func(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&q.maps[0][at])) }
	counter := func(at uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(word(at))) }
	q.sqTail, q.cqHead, q.cqTail = counter(p.sq.tail), counter(p.cq.head), counter(p.cq.tail)
	q.submissions = unsafe.Slice((*S)(unsafe.Pointer(&q.maps[1][0])), p.sqEntries)
	q.completions = unsafe.Slice((*completion)(unsafe.Pointer(&q.maps[0][p.cq.droppedOrCQEs])), p.cqEntries)
	// The submission queue is a ring of indices. Here each slot always names the entry
	// of its own index.
	for i, array := uint32(0), unsafe.Slice(word(p.sq.arrayOrFlags), p.sqEntries); i < p.sqEntries; i++ {
		array[i] = i
	}
	return nil
}

// Unmap gives the memory back.
func (q *Queues[S]) Unmap() {
	for i, m := range q.maps {
		if m != nil {
			unix.Munmap(m)
			q.maps[i] = nil
		}
	}
}

// Push adds a submission. There must be room.
func (q *Queues[S]) Push(s S) {
	tail := q.sqTail.Load()
	q.submissions[tail&uint32(len(q.submissions)-1)] = s
	q.sqTail.Store(tail + 1)
}

// Pop takes back the last push. The kernel must not have taken it.
func (q *Queues[S]) Pop() S {
	tail := q.sqTail.Load() - 1
	q.sqTail.Store(tail)
	return q.submissions[tail&uint32(len(q.submissions)-1)]
}

// Enter hands up to n pushed submissions to the kernel and returns how many it
// took. It does not wait for them.
func (q *Queues[S]) Enter(n int) (int, error) { return q.enter(n, 0, 0) }

// EnterAndWait is Enter, and also waits until that many completions are there.
func (q *Queues[S]) EnterAndWait(n, completions int) (int, error) {
	return q.enter(n, completions, enterGetEvents)
}

func (q *Queues[S]) enter(n, completions int, flags uintptr) (int, error) {
	took, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(q.FD.Load()), uintptr(n), uintptr(completions), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(took), nil
}

// Complete takes the next completion, if there is one.
func (q *Queues[S]) Complete() (userData uint64, res int32, ok bool) {
	head := q.cqHead.Load()
	if head == q.cqTail.Load() {
		return 0, 0, false
	}
	c := q.completions[head&uint32(len(q.completions)-1)]
	q.cqHead.Store(head + 1)
	return c.userData, c.res, true
}
