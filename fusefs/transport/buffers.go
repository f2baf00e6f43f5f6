package transport

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// buffer holds a request of the device and its reply. The data of a write begins at page
// 1, so that it can go on as it is to a file that was opened for direct I/O. A reply's
// payload begins there too, with its header before it.
type buffer struct {
	mem  []byte
	x    exchange // if the request is a read or a write
	held int64    // of the bound on what waits
	used int64    // bytes that requests have touched
}

const (
	pageSize  = 4096
	requestAt = pageSize - ioSize
	replyAt   = pageSize - replyHeaderSize
	// smallestRoom is the least room that the kernel asks for, however short the longest
	// write is.
	smallestRoom = 8192
)

func (b *buffer) request() []byte { return b.mem[requestAt:] }
func (b *buffer) room() []byte    { return b.mem[pageSize:] }

// requestShare is what a waiting request of the device counts for at least, in bytes: so
// the bound on bytes bounds the number of requests too.
const requestShare = 256 << 10

// buffers is a bounded free list. The buffer that was given back last is taken first: so
// memory is used only as far as requests have touched it. Memory is given back to the
// system when more of it is idle than may wait.
type buffers struct {
	size int
	most int64                // bytes that may wait
	max  int                  // requests there may be
	full func() (done func()) // called while somebody waits for room

	mu   sync.Mutex
	more sync.Cond
	idle []*buffer
	made []*buffer
	held int64
	used int64 // of all buffers
	lent int64 // of those that are not idle
}

func newBuffers(maxWrite int, memory int64, full func() (done func())) *buffers {
	b := &buffers{size: pageSize + max(maxWrite, smallestRoom), most: memory, max: int(memory / requestShare), full: full}
	b.more.L = &b.mu
	return b
}

// get returns a buffer, and waits for one if all are in use.
func (l *buffers) get() (*buffer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if n := len(l.idle); n > 0 {
			b := l.idle[n-1]
			l.idle = l.idle[:n-1]
			l.lent += b.used
			return b, nil
		}
		if len(l.made) < l.max {
			break
		}
		l.wait()
	}
	mem, err := unix.Mmap(-1, 0, l.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("memory for FUSE requests: %w", err)
	}
	b := &buffer{mem: mem}
	l.made = append(l.made, b)
	return b, nil
}

// wait waits until a buffer is given back. l.mu is held, and released meanwhile.
func (l *buffers) wait() {
	done := l.full()
	l.more.Wait()
	done()
}

// hold counts a request of n bytes among those that wait. While too many wait it waits
// itself, and nothing is read from the device, not even interrupts: the kernel gives no
// way to read those alone.
func (l *buffers) hold(b *buffer, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.held > 0 && l.held+int64(n) > l.most {
		l.wait()
	}
	b.held = int64(n)
	l.held += b.held
}

// put gives a buffer back. The first n bytes of it were used, for a request or its
// reply.
func (l *buffers) put(b *buffer, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held -= b.held
	b.held = 0
	l.lent -= b.used
	if more := int64(n) - b.used; more > 0 {
		b.used += more
		l.used += more
	}
	l.idle = append(l.idle, b)
	if l.used-l.lent > l.most/2 && l.used > l.most {
		l.trim()
	}
	l.more.Broadcast()
}

// trim gives the memory of idle buffers back, but for the buffers that are taken next.
// It is called seldom where most memory is in use, because new pages cost time. l.mu is
// held.
func (l *buffers) trim() {
	for i, b := range l.idle {
		if l.used-l.lent <= l.most/4 || i == len(l.idle)-1 {
			return
		}
		if b.used > 0 && unix.Madvise(b.mem, unix.MADV_DONTNEED) == nil {
			l.used -= b.used
			b.used = 0
		}
	}
}

func (l *buffers) heldNow() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held
}

// free gives all memory back. The caller has taken care that nobody has a buffer any
// more.
func (l *buffers) free() {
	for _, b := range l.made {
		_ = unix.Munmap(b.mem)
	}
	l.idle, l.made = nil, nil
}
