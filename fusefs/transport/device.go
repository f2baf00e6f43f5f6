package transport

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// readersMax is how many threads read the device. Requests that must wait do so on other
// threads.
const readersMax = 2

// readRequest reads the next request, whole: the device gives one at a time.
func readRequest(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		switch err {
		case unix.EINTR, unix.EAGAIN, unix.ENOENT: // ENOENT: it was interrupted meanwhile
		default:
			return n, err
		}
	}
}

// readDevice serves what comes by the device until the mount has gone. Nobody wants the
// replies of waiting requests then, and the rings wait for those requests to end. If
// readDevice cannot go on it takes the mount away.
func (c *Conn) readDevice() {
	defer c.readers.Done()
	for {
		b, err := c.buffers.get()
		n := 0
		if err == nil {
			n, err = readRequest(c.fd, b.request())
		}
		switch err {
		case nil:
			c.received(b, n)
			continue
		case unix.ENODEV, unix.ECONNABORTED: // unmounted, aborted
			c.waiting.endAll()
		default:
			c.fail("a reader", err)
		}
		if b != nil {
			c.buffers.put(b, 0)
		}
		return
	}
}

// gone reports whether the mount was unmounted or aborted.
func (c *Conn) gone() bool {
	p := [1]unix.PollFd{{Fd: int32(c.fd)}}
	n, err := unix.Poll(p[:], 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLERR != 0
}

// fail takes the mount away, because a part of it cannot be served any more. Its users
// get errors then; otherwise they would wait for ever.
func (c *Conn) fail(what string, err error) {
	c.logger.Error("FUSE: the mount is taken away, as it cannot be served", "mount", c.dir, "part", what, "err", err)
	if err := Detach(c.dir); err != nil {
		c.logger.Error("FUSE: the mount stays", "mount", c.dir, "err", err)
	}
}

// received serves a request of n bytes, and gives its buffer back.
func (c *Conn) received(b *buffer, n int) {
	c.requests.Add(1)
	request := b.request()[:n]
	header := (*fuse.InHeader)(unsafe.Pointer(&request[0]))
	switch header.Opcode {
	case opRead, opWrite:
		x := &b.x
		x.data, x.room = request[ioSize:], b.room()
		x.copyIn(request[:requestHeaderSize], request[requestHeaderSize:ioSize])
		used := max(n, int(x.in.Size))
		if got, status := c.do(x, tried); status != mustWait {
			c.reply(b, x.in.Unique, got, status)
			c.buffers.put(b, used)
			return
		}
		c.buffers.hold(b, used)
		c.handle(func() {
			got, status := c.wait(x)
			c.reply(b, x.in.Unique, got, status)
			c.buffers.put(b, used)
		})
	case opInterrupt:
		c.waiting.signal(*(*uint64)(unsafe.Pointer(&request[requestHeaderSize])))
		c.buffers.put(b, n)
	case opForget, opBatchForget:
		c.other(request)
		c.buffers.put(b, n)
	default:
		c.buffers.hold(b, n)
		c.handle(func() {
			c.other(request)
			c.buffers.put(b, n)
		})
	}
}

// handle runs what may wait.
func (c *Conn) handle(fn func()) {
	c.handlers.Add(1)
	c.waited.Add(1)
	c.inFlight.Add(1)
	go func() {
		defer c.handlers.Done()
		defer c.inFlight.Add(-1)
		fn()
	}()
}

// reply sends a reply whose payload is in place.
func (c *Conn) reply(b *buffer, unique uint64, n int, status fuse.Status) {
	*(*replyHeader)(unsafe.Pointer(&b.mem[replyAt])) = replyHeader{uint32(replyHeaderSize + n), -int32(status), unique}
	c.send(b.mem[replyAt : pageSize+n])
}

// other has the library answer a request that came by the device.
func (c *Conn) other(request []byte) {
	header := (*fuse.InHeader)(unsafe.Pointer(&request[0]))
	out := make([]byte, replyRoom(header.Opcode, request[requestHeaderSize:]))
	if n, _ := c.library(header, [][]byte{request}, [][]byte{out}); n > 0 {
		c.send(out[:n])
	}
}

// send gives the kernel a reply. Two errors are no news to anybody: that nobody waits
// for the reply any more (ENOENT), and that the mount has gone (ENODEV).
func (c *Conn) send(reply []byte) {
	if _, err := unix.Write(c.fd, reply); err != nil && err != unix.ENOENT && err != unix.ENODEV {
		c.logger.Warn("FUSE: a reply is refused", "mount", c.dir, "err", err)
	}
}
