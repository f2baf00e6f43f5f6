package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Ways say which ways to the kernel are taken.
type Ways int

// Ways to the kernel.
const (
	BestWay  Ways = iota // an io_uring if the kernel offers and takes it, else the device
	NoRing               // the device alone
	RingOnly             // an io_uring, or the mount fails
)

// Options say how a file system is mounted and served.
type Options struct {
	Name         string // type of the mount ("fuse.NAME") and its source
	AllowOther   bool   // let other users in
	Direct       bool   // mount(2) instead of fusermount3; needs root
	MaxWrite     int    // bytes of a read or write at most, a multiple of 4096
	Background   int    // asynchronous requests that the kernel has under way at most
	Memory       int64  // bytes that requests may have at most: those by the device that wait, or all entries of the rings; see memory.go
	Capabilities uint64 // fuse.CAP_* that are asked for
	Ways         Ways   // to the kernel
	Self         bool   // this process opens files of the mount itself, as tests do
	Logger       *slog.Logger
}

// Conn is a mount that is served.
type Conn struct {
	raw    fuse.RawFileSystem
	proto  *fuse.ProtocolServer
	opt    Options
	dir    string
	device string // number of the mount, as the mount table has it; "" if it is not known
	fd     int
	logger *slog.Logger

	requests atomic.Uint64 // by the device
	waited   atomic.Uint64
	inFlight atomic.Int64

	waiting  waiting
	buffers  *buffers
	queues   []*queue
	readers  sync.WaitGroup // of the device, and of the rings
	handlers sync.WaitGroup // requests that wait
	ended    chan struct{}

	notices sync.RWMutex // held for reading while the kernel is told something
	closed  bool
}

// Mount mounts a file system on dir and serves it until it is unmounted.
func Mount(dir string, raw fuse.RawFileSystem, opt Options) (*Conn, error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if err := opt.checkMemory(); err != nil {
		return nil, err
	}
	c, err := connect(dir, raw, opt)
	if errors.Is(err, errRing) && opt.Ways == BestWay {
		opt.Logger.Warn("FUSE goes by the device: there can be no io_uring", "mount", dir, "err", err)
		opt.Ways = NoRing
		c, err = connect(dir, raw, opt)
	}
	return c, err
}

// errRing is matched by the error of a connection whose rings failed.
var errRing = errors.New("FUSE over io_uring")

func connect(dir string, raw fuse.RawFileSystem, opt Options) (*Conn, error) {
	c := &Conn{raw: raw, opt: opt, dir: dir, logger: opt.Logger, ended: make(chan struct{})}
	c.waiting.gone = c.gone
	c.buffers = newBuffers(opt.MaxWrite, cmp.Or(opt.Memory, MemoryDefault), c.waiting.checkKills)
	offered := ringOffered()
	if opt.Ways == RingOnly && offered != nil {
		return nil, fmt.Errorf("%w: %w", errRing, offered)
	}
	if opt.Ways != NoRing && offered == nil {
		if err := c.openRings(); err != nil {
			return nil, fmt.Errorf("%w: %w", errRing, err)
		}
		opt.Capabilities |= fuse.CAP_OVER_IO_URING
	}
	c.proto = fuse.NewProtocolServer(raw, &fuse.MountOptions{
		MaxWrite: opt.MaxWrite, MaxBackground: opt.Background, ExtraCapabilities: opt.Capabilities,
		Logger: slog.NewLogLogger(opt.Logger.Handler(), slog.LevelWarn),
	})
	var err error
	if c.fd, err = mount(dir, opt); err != nil {
		c.closeRings()
		return nil, err
	}
	err = c.start()
	if err != nil {
		// The rest ends by itself, as soon as nobody has a file of the mount open.
		err = errors.Join(err, Detach(dir))
	}
	go c.finish()
	if err != nil {
		return nil, err
	}
	c.device = deviceOn(dir)
	return c, nil
}

// start answers the kernel's first request, which is INIT, and serves.
func (c *Conn) start() error {
	b, err := c.buffers.get()
	if err != nil {
		return err
	}
	n, err := readRequest(c.fd, b.request())
	if err != nil {
		return fmt.Errorf("read FUSE's first request: %w", err)
	}
	request := b.request()[:n]
	if initFlags(request)&fuse.CAP_OVER_IO_URING == 0 {
		c.closeRings() // this kernel has none
		if c.opt.Ways == RingOnly {
			return errRingAbsent
		}
	}
	c.other(request)
	c.buffers.put(b, n)
	for range max(1, readersMax-len(c.queues)) {
		c.readers.Add(1)
		go c.readDevice()
	}
	if err := c.startRings(); err != nil {
		return fmt.Errorf("%w: %w", errRing, err)
	}
	if c.opt.Self {
		return noPolling(c.dir)
	}
	return nil
}

// finish waits until no request comes any more and none waits. Then it gives everything
// back.
func (c *Conn) finish() {
	c.readers.Wait()
	c.handlers.Wait()
	for _, q := range c.queues {
		q.close()
	}
	c.closeDevice()
	c.buffers.free()
	c.raw.OnUnmount()
	close(c.ended)
}

// ErrElsewhere says that a mount is gone here but not in another mount namespace, of a
// container or a service, that was made while the mount was there.
var ErrElsewhere = errors.New("another mount namespace still has it")

// Unmount takes the mount away. It returns when the mount is gone, or, if ctx ends
// before, when it is gone only here. It fails with EBUSY while somebody uses the mount.
// If somebody else has taken the mount away there is nothing to do: whoever has a file
// of it open keeps that for as long as this process lives.
func (c *Conn) Unmount(ctx context.Context) error {
	if !c.mounted() {
		return nil
	}
	if err := unmount(c.dir, c.opt.Direct); err != nil {
		if !c.mounted() {
			return nil // meanwhile
		}
		return err
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
	}
	late := time.NewTimer(endMax)
	defer late.Stop()
	select {
	case <-c.ended:
		return nil
	case <-late.C:
		return ErrElsewhere
	}
}

// mounted reports whether the mount may be there still. It reads the mount table, which
// asks no file system.
func (c *Conn) mounted() bool {
	select {
	case <-c.ended:
		return false
	default:
	}
	if c.device == "" {
		return true
	}
	there, err := mountedOn(c.dir, c.device)
	return there || err != nil
}

// endMax is how long the end of a mount may take that nobody uses any more.
const endMax = 500 * time.Millisecond

// Wait returns when nothing is mounted any more.
func (c *Conn) Wait() { <-c.ended }

// noPolling tells the kernel that no file of the mount can be polled. Otherwise the
// runtime would poll each file of the mount that this process itself opens, and nothing
// in the process could run meanwhile to answer that.
func noPolling(dir string) error {
	const name = ".go-fuse-epoll-hack" // the library answers for it
	fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("ask the mount: %w", err)
	}
	defer unix.Close(fd)
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err
}

// What do returns for a request that may not wait, if it has not ended.
const (
	mustWait = fuse.Status(unix.EAGAIN) // nothing has happened
	gathers  = fuse.Status(Gathered)    // the round makes the write
)

// wait makes a read or write that may wait.
func (c *Conn) wait(x *exchange) (n int, status fuse.Status) {
	cancel, once := make(chan struct{}), new(sync.Once)
	w := c.waiting.begin(x.in.Unique, x.in.Pid, func() { once.Do(func() { close(cancel) }) })
	defer c.waiting.done(x.in.Unique, w)
	return c.do(x, cancel)
}

// library has the library answer a request, whose parts are given, into reply.
func (c *Conn) library(header *fuse.InHeader, request, reply [][]byte) (n int, status fuse.Status) {
	unique := header.Unique
	w := c.waiting.begin(unique, header.Pid, func() {
		c.proto.HandleRequest([][]byte{appendInterrupt(nil, unique)}, [][]byte{make([]byte, replyHeaderSize)})
	})
	defer c.waiting.done(unique, w)
	return c.proto.HandleRequest(request, reply)
}

// do makes a read or write. n is the length of the reply behind its header.
func (c *Conn) do(x *exchange, cancel <-chan struct{}) (n int, status fuse.Status) {
	defer func() {
		if r := recover(); r != nil {
			c.logger.Error("FUSE request panics", "opcode", x.in.Opcode, "panic", r)
			n, status = 0, fuse.EIO
		}
	}()
	if x.in.Opcode == opWrite {
		written, status := c.raw.Write(cancel, &x.in, x.data)
		if status.Ok() {
			n = x.written(written)
		}
		return n, status
	}
	result, status := c.raw.Read(cancel, x.read(), x.room[:x.in.Size])
	if result == nil || !status.Ok() {
		return 0, status
	}
	defer result.Done()
	got, status := result.Bytes(x.room)
	if !status.Ok() {
		return 0, status
	}
	if len(got) > 0 && &got[0] != &x.room[0] {
		copy(x.room, got)
	}
	return len(got), status
}
