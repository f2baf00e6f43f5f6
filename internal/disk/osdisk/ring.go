package osdisk

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"openvstorage/internal/uring"
)

const (
	// ringReads is how many reads a ring has under way; the next one is a pread.
	ringReads = 128
	// ringMax is the longest read that goes to the ring. A longer one costs its
	// reader little for a system call of its own, and the copying of one that
	// the submitter makes would hold up all others.
	ringMax = 64 << 10
)

// ring is an io_uring that reads are submitted to in batches.
//
// A reader that finds no submitter becomes the submitter. It first lets other
// goroutines run that are ready, since they may be readers too. Then it hands all
// reads that were pushed to the kernel in one system call, so the device is notified
// once for the batch. No goroutine is set aside for submitting. One goroutine, reaper,
// sleeps in the runtime's poller until the kernel has filled completions, and wakes
// their readers. No thread waits.
//
// A ring reports no errors. A read that it cannot take, or that fails, comes back as
// not done, and the caller's pread returns the error.
type ring struct {
	dead atomic.Bool // takes no more reads
	q    uring.Queues[uring.Submission]
	poll *os.File // owns the ring's descriptor; keeps it in the runtime's poller

	slots [ringReads]slot
	free  chan uint32 // the slots that no read has

	push       sync.Mutex // guards the tail of q's submissions
	pushed     atomic.Int64
	submitting atomic.Bool   // held by the submitter
	taken      atomic.Int64  // reads that the kernel took, ever
	ended      chan struct{} // closed when the reaper is gone
}

// slot is a read under way. Its index is the read's user_data.
type slot struct {
	// p is the memory that the kernel writes to, held so that the collector
	// leaves it. Being stored here also makes the compiler put it on the heap:
	// stacks move, the heap does not.
	p    unsafe.Pointer
	done chan int32 // one completion's result, never blocks
}

// newRing makes a ring and starts its reaper. It fails where the kernel has no
// io_uring (ENOSYS), or does not let this process have it (EPERM).
func newRing() (*ring, error) {
	r := &ring{free: make(chan uint32, ringReads), ended: make(chan struct{})}
	fd, err := r.q.Open(ringReads, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		r.q.Unmap()
		unix.Close(fd)
		return nil, err
	}
	for i := range r.slots {
		r.slots[i].done = make(chan int32, 1)
		r.free <- uint32(i)
	}
	r.poll = os.NewFile(uintptr(fd), "io_uring")
	conn, err := r.poll.SyscallConn()
	if err == nil {
		// Without a poller there is no sleeping on the ring.
		err = r.poll.SetReadDeadline(time.Time{})
	}
	if err != nil {
		r.poll.Close()
		r.q.Unmap()
		return nil, err
	}
	go r.reaper(conn.Read)
	return r, nil
}

// read reads up to len(p) bytes, at least 1 and no more than ringMax, at off.
// It reports false if nothing was read: at the end of the file, after an
// error, and when the ring is full or dead. The file's descriptor must not be
// closed meanwhile.
func (r *ring) read(fd int, p []byte, off int64) (n int, ok bool) {
	var i uint32
	select {
	case i = <-r.free:
	default:
		return 0, false
	}
	if r.dead.Load() { // after having a slot; see reap
		r.free <- i
		return 0, false
	}
	s := &r.slots[i]
	s.p = unsafe.Pointer(unsafe.SliceData(p))
	r.push.Lock()
	r.q.Push(readInto(fd, s.p, len(p), off, i))
	r.pushed.Add(1)
	r.push.Unlock()
	r.submit()
	got := <-s.done
	s.p = nil
	r.free <- i
	return int(max(got, 0)), got > 0
}

func readInto(fd int, p unsafe.Pointer, n int, off int64, slot uint32) uring.Submission {
	return uring.Submission{
		Opcode: uring.OpRead, FD: int32(fd), Off: uint64(off), Addr: uint64(uintptr(p)), Len: uint32(n), UserData: uint64(slot),
	}
}

// submit has everything that was pushed before it handed to the kernel, by this
// goroutine or by the present submitter. Whoever ceases to be submitter checks once
// more, so nothing is left behind.
func (r *ring) submit() {
	for r.pushed.Load() > 0 && r.submitting.CompareAndSwap(false, true) {
		runtime.Gosched()
		r.submitPushed()
		r.submitting.Store(false)
	}
}

func (r *ring) submitPushed() {
	for n := r.pushed.Load(); n > 0; n = r.pushed.Load() {
		took, err := r.q.Enter(int(n))
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN || err == unix.EBUSY: // the kernel is short of memory now
			r.giveBack()
		case err != nil || took == 0:
			r.dead.Store(true)
			r.giveBack()
		default:
			r.pushed.Add(-int64(took))
			r.taken.Add(int64(took))
		}
	}
}

// giveBack returns the reads that the kernel has not taken to their readers.
// Those that it has taken it completes. The submitter calls it.
func (r *ring) giveBack() {
	r.push.Lock()
	defer r.push.Unlock()
	for r.pushed.Load() > 0 {
		r.slots[r.q.Pop().UserData].done <- 0
		r.pushed.Add(-1)
	}
}

// reap wakes the readers whose completions are there.
func (r *ring) reap() {
	for {
		i, n, ok := r.q.Complete()
		if !ok {
			return
		}
		r.slots[i].done <- n
	}
}

// reaper reaps as long as the process runs, asleep in the poller in between. If the
// poller fails, the ring takes no more reads, and reaper polls every millisecond for
// those under way. It ends when all slots are back: each reader takes its slot before it
// checks whether the ring is dead, so none can come later.
func (r *ring) reaper(wait func(func(uintptr) bool) error) {
	defer close(r.ended)
	_ = wait(func(uintptr) bool {
		r.reap()
		return false // sleep until there are more
	})
	r.dead.Store(true)
	for len(r.free) < ringReads {
		r.reap()
		time.Sleep(time.Millisecond)
	}
}
