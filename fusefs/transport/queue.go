package transport

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"openvstorage/internal/uring"
)

// queue is the ring of a CPU and the thread that serves it. Only that thread submits: it
// is handed the replies of requests that waited.
type queue struct {
	conn    *Conn
	cpu     int
	ring    uring.Queues[uring.WideSubmission]
	fd      int
	entries []entry
	memory  [][]byte
	pushed  int // submissions that the kernel has not taken
	live    int // entries that the kernel has, or that are served

	begin chan bool  // whether to serve; the ring is there
	state chan error // of what the thread does: the ring is open, it serves
	kick  int        // an eventfd: something was answered elsewhere
	kicks []byte     // where it is read to

	requests atomic.Uint64
	round    *round // what came at once

	mu       sync.Mutex
	answered []int // entries that were answered elsewhere
	asleep   atomic.Bool
}

// kickID is the user_data of the read of the eventfd; an entry's is its index.
const kickID = ^uint64(0)

// elsewhereSize is from which length in bytes a read or write goes to a goroutine: while
// another CPU copies it and computes its checksum, this thread serves the next request.
const elsewhereSize = 128 << 10

// newQueue makes the ring of a CPU with n entries.
func newQueue(c *Conn, cpu, n int) (q *queue, err error) {
	q = &queue{conn: c, cpu: cpu, fd: -1, kick: -1, begin: make(chan bool, 1), state: make(chan error, 1)}
	q.round = newRound(q.wrote)
	defer func() {
		if err != nil {
			q.close()
		}
	}()
	if q.kick, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return nil, err
	}
	size := c.room()
	headers, err := q.alloc((n + 1) * headerStride)
	if err != nil {
		return nil, err
	}
	payloads, err := q.alloc(n * size)
	if err != nil {
		return nil, err
	}
	q.entries = make([]entry, n)
	for i := range q.entries {
		q.entries[i].header = (*ringHeader)(unsafe.Pointer(&headers[i*headerStride]))
		q.entries[i].payload = payloads[i*size : (i+1)*size : (i+1)*size]
		q.entries[i].x.room = q.entries[i].payload
	}
	q.kicks = headers[n*headerStride:]
	go q.run()
	if err := <-q.state; err != nil {
		return nil, err
	}
	return q, nil
}

// alloc takes memory that the garbage collector does not know, and that stays in place.
func (q *queue) alloc(n int) ([]byte, error) {
	m, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		q.memory = append(q.memory, m)
	}
	return m, err
}

// close gives everything back. The caller has taken care that no request is under way.
func (q *queue) close() {
	select {
	case q.begin <- false: // its thread waits for that, or ended before
	default:
	}
	q.round.close()
	q.ring.Unmap()
	for _, m := range q.memory {
		_ = unix.Munmap(m)
	}
	for _, fd := range []int{q.fd, q.kick} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	q.memory, q.fd, q.kick = nil, -1, -1
}

// run is the thread. It makes the ring, because the kernel lets only the thread that
// made a ring submit to it, and serves the ring once that is wanted. run ends its
// thread, which it has bound to a CPU.
func (q *queue) run() {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(q.cpu)
	// If the CPU is offline, or not for this process, any CPU will do.
	_ = unix.SchedSetaffinity(0, &set)
	size := uint32(1)
	for int(size) < len(q.entries)+1 {
		size *= 2
	}
	var err error
	q.fd, err = q.ring.Open(size, uring.SQE128|uring.SingleIssuer|uring.DeferTaskrun)
	q.state <- err
	if err != nil || !<-q.begin {
		return
	}
	defer q.conn.readers.Done()
	err = q.register()
	q.state <- err
	if err == nil {
		err = q.serve()
	}
	if err != nil {
		q.conn.fail(fmt.Sprint("the ring of CPU ", q.cpu), err)
	}
}

// register gives the kernel all entries.
func (q *queue) register() error {
	q.awaitKick()
	for i := range q.entries {
		e := &q.entries[i]
		iovecs := (*[2]unix.Iovec)(unsafe.Add(unsafe.Pointer(e.header), iovecsAt))
		iovecs[0] = unix.Iovec{Base: (*byte)(unsafe.Pointer(e.header)), Len: uint64(unsafe.Sizeof(ringHeader{}))}
		iovecs[1] = unix.Iovec{Base: &e.payload[0], Len: uint64(len(e.payload))}
		s := q.command(commandRegister, i)
		s.Addr, s.Len = uint64(uintptr(unsafe.Pointer(iovecs))), uint32(len(iovecs))
		q.push(s)
		q.live++
	}
	for q.pushed > 0 {
		if err := q.enter(0); err != nil {
			return fmt.Errorf("register: %w", err)
		}
	}
	// One that the kernel refuses comes back at once. A request may be among
	// them too, once all rings are there.
	for {
		id, res, ok := q.ring.Complete()
		switch {
		case !ok:
			q.round.make()
			return nil
		case res < 0:
			return fmt.Errorf("register: %w", unix.Errno(-res))
		case id != kickID:
			q.request(int(id))
		}
	}
}

// serve serves requests until the mount has gone.
func (q *queue) serve() error {
	for q.live > 0 {
		wait := 1
		q.asleep.Store(true)
		if q.commitAnswered() {
			wait = 0
		}
		err := q.enter(wait)
		q.asleep.Store(false)
		if err != nil {
			return err
		}
		for id, res, ok := q.ring.Complete(); ok; id, res, ok = q.ring.Complete() {
			switch {
			case id == kickID:
				q.awaitKick()
			case res < 0:
				// The mount has gone; or nobody waits for a reply any more,
				// and with it went the entry.
				q.live--
				if e := unix.Errno(-res); e != unix.ENOTCONN && e != unix.ECANCELED {
					q.conn.logger.Warn("FUSE: an entry of a ring is lost", "mount", q.conn.dir, "cpu", q.cpu, "err", e)
				}
			default:
				q.request(int(id))
			}
		}
		q.round.make()
	}
	return nil
}

// enter hands the kernel what was pushed, and waits for the given number of completions.
func (q *queue) enter(completions int) error {
	n, err := q.ring.EnterAndWait(q.pushed, completions)
	q.pushed -= n
	if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}

func (q *queue) push(s uring.WideSubmission) {
	q.ring.Push(s)
	q.pushed++
}

// command is a submission about entry i.
func (q *queue) command(number uint64, i int) uring.WideSubmission {
	var s uring.WideSubmission
	s.Opcode, s.FD, s.Off, s.UserData = uring.OpCommand, int32(q.conn.fd), number, uint64(i)
	s.Command[1] = q.entries[i].header.commitID
	s.MoreCommand[0] = uint64(q.cpu)
	return s
}

// awaitKick has a completion come when the eventfd is written.
func (q *queue) awaitKick() {
	var s uring.WideSubmission
	s.Opcode, s.FD, s.UserData = uring.OpRead, int32(q.kick), kickID
	s.Addr, s.Len = uint64(uintptr(unsafe.Pointer(&q.kicks[0]))), 8
	q.push(s)
}

// commitAnswered commits what was answered elsewhere.
func (q *queue) commitAnswered() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, i := range q.answered {
		q.push(q.command(commandCommit, i))
	}
	any := len(q.answered) > 0
	q.answered = q.answered[:0]
	return any
}

// elsewhere has fn answer entry i without this thread.
func (q *queue) elsewhere(i int, fn func()) {
	q.conn.handle(func() {
		fn()
		q.mu.Lock()
		q.answered = append(q.answered, i)
		q.mu.Unlock()
		if q.asleep.CompareAndSwap(true, false) {
			one := [8]byte{1}
			_, _ = unix.Write(q.kick, one[:]) // cannot fail but for a full counter
		}
	})
}

// request serves the request in entry i.
func (q *queue) request(i int) {
	q.requests.Add(1)
	e := &q.entries[i]
	header := (*fuse.InHeader)(unsafe.Pointer(&e.header.inOut))
	fixed := int(header.Length) - requestHeaderSize - int(e.header.length)
	if fixed < 0 || fixed > len(e.header.fixed) || int(e.header.length) > len(e.payload) {
		e.answer(header.Unique, 0, fuse.EIO)
		q.push(q.command(commandCommit, i))
		return
	}
	if header.Opcode != opRead && header.Opcode != opWrite {
		q.elsewhere(i, func() { e.other(q.conn, fixed) })
		return
	}
	x := &e.x
	x.copyIn(e.header.inOut[:requestHeaderSize], e.header.fixed[:ioSize-requestHeaderSize])
	x.data = e.payload[:e.header.length]
	if x.in.Size >= elsewhereSize {
		q.tried(i, 0, mustWait)
		return
	}
	n, status := q.conn.do(x, q.round.tried)
	if status == gathers {
		q.round.took(i)
		return
	}
	q.tried(i, n, status)
}

// wrote is the end of a write that was gathered.
func (q *queue) wrote(i int, n uint32, errno syscall.Errno) {
	if errno != 0 {
		q.tried(i, 0, fuse.Status(errno))
		return
	}
	q.tried(i, q.entries[i].x.written(n), fuse.OK)
}

// tried answers a read or write that has ended, or has it made again where it may wait.
func (q *queue) tried(i, n int, status fuse.Status) {
	e := &q.entries[i]
	if status != mustWait {
		e.answer(e.x.in.Unique, n, status)
		q.push(q.command(commandCommit, i))
		return
	}
	q.elsewhere(i, func() {
		n, status := q.conn.wait(&e.x)
		e.answer(e.x.in.Unique, n, status)
	})
}

// answer makes the reply. Its payload of n bytes is in place already.
func (e *entry) answer(unique uint64, n int, status fuse.Status) {
	*(*replyHeader)(unsafe.Pointer(&e.header.inOut)) = replyHeader{uint32(replyHeaderSize + n), -int32(status), unique}
	e.header.length = uint32(n)
}

// other has the library make the reply. It copies the request first: the reply takes its
// place.
func (e *entry) other(c *Conn, fixed int) {
	request := make([]byte, 0, requestHeaderSize+fixed+int(e.header.length))
	request = append(request, e.header.inOut[:requestHeaderSize]...)
	request = append(request, e.header.fixed[:fixed]...)
	request = append(request, e.payload[:e.header.length]...)
	asked := (*fuse.InHeader)(unsafe.Pointer(&request[0]))
	var header [replyHeaderSize]byte
	n, status := c.library(asked, [][]byte{request}, [][]byte{header[:], e.payload})
	if n < replyHeaderSize {
		e.answer(asked.Unique, 0, status)
		return
	}
	copy(e.header.inOut[:], header[:])
	e.header.length = uint32(n - replyHeaderSize)
}
