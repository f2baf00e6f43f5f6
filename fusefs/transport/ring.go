package transport

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Commands of FUSE over io_uring, their fixed parts and their reply's place, of
// Linux's include/uapi/linux/fuse.h.
//
// The command, from byte 48 of the submission on:
//
//	 0  u64  flags
//	 8  u64  commit_id  of the request that is answered
//	16  u16  qid        the queue, which is the number of a CPU
//
// REGISTER gives the kernel an entry, the place of one request: two iovecs, the
// header and the payload. Its completion says that a request is there. The
// header:
//
//	  0  128  request header, later the reply's
//	128  128  the operation's fixed part
//	256  u64  flags
//	264  u64  commit_id
//	272  u32  length of the payload, later of the reply's
//	276  12 bytes that are left alone
//
// The payload has what a request brings behind its fixed part, and later all
// that a reply brings behind its header.
type ringHeader struct {
	inOut    [128]byte
	fixed    [128]byte
	flags    uint64
	commitID uint64
	length   uint32
	_        uint32
	_        uint64
}

const (
	commandRegister = 1 // FUSE_IO_URING_CMD_REGISTER
	commandCommit   = 2 // FUSE_IO_URING_CMD_COMMIT_AND_FETCH: the reply, and the next request

	headerStride = 512 // of entries' headers, with room for their iovecs
	iovecsAt     = 384
)

// entry is the place of one request.
type entry struct {
	header  *ringHeader
	payload []byte
	x       exchange
}

// openRings makes a ring for each CPU that the machine may have: the kernel takes none
// before it has all.
func (c *Conn) openRings() error {
	possible, err := cpus("possible")
	if err != nil {
		return err
	}
	online, err := cpus("online")
	if err != nil {
		return err
	}
	depth, err := depth(c.opt.Memory, c.room(), len(online), len(possible)-len(online))
	if err != nil {
		return err
	}
	for _, cpu := range possible {
		n := depth
		if !slices.Contains(online, cpu) {
			n = 1 // nobody asks there
		}
		q, err := newQueue(c, cpu, n)
		if err != nil {
			c.closeRings()
			return fmt.Errorf("ring of CPU %d: %w", cpu, err)
		}
		c.queues = append(c.queues, q)
	}
	return nil
}

// startRings gives the kernel all rings. Requests come by them from then on.
func (c *Conn) startRings() error {
	var errs []error
	for _, q := range c.queues {
		c.readers.Add(1)
		q.begin <- true
	}
	for _, q := range c.queues {
		errs = append(errs, <-q.state)
	}
	return errors.Join(errs...)
}

// closeRings gives the rings up. None of them was started.
func (c *Conn) closeRings() {
	for _, q := range c.queues {
		q.close()
	}
	c.queues = nil
}

const ringParameter = "/sys/module/fuse/parameters/enable_uring"

var errRingAbsent = fmt.Errorf("%w: this kernel has none; it comes with Linux 6.14", errRing)

// ringOffered returns why the kernel does not let FUSE use an io_uring, nil if
// it does.
func ringOffered() error {
	on, err := os.ReadFile(ringParameter)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errRingAbsent
	case err != nil:
		return err
	case strings.TrimSpace(string(on)) != "Y":
		return fmt.Errorf("the kernel does not allow it; as root: echo Y > %s", ringParameter)
	}
	return nil
}

// cpus reads a list of CPUs: "possible" or "online".
func cpus(which string) ([]int, error) {
	name := "/sys/devices/system/cpu/" + which
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	list, err := parseCPUs(strings.TrimSpace(string(raw)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return list, nil
}

// cpusMax is more than Linux can have.
const cpusMax = 1 << 13

// parseCPUs reads a list as "0-3,6".
func parseCPUs(s string) (list []int, err error) {
	for _, part := range strings.Split(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err := strconv.ParseUint(first, 10, 32)
		if err != nil {
			return nil, err
		}
		b, err := strconv.ParseUint(last, 10, 32)
		if err != nil {
			return nil, err
		}
		if b < a || b >= cpusMax {
			return nil, fmt.Errorf("%q is no list of CPUs", s)
		}
		for ; a <= b; a++ {
			list = append(list, int(a))
		}
	}
	return list, nil
}
