package nbd

import (
	"context"
	"syscall"
)

// ErrWouldBlock is returned, unwrapped, by the Try methods of a Device when
// the request needs to wait for something slower than memory.
const ErrWouldBlock = syscall.EAGAIN

// ErrUnderWay is returned, unwrapped, by TryRead instead of ErrWouldBlock when
// the data is on its way into memory: a Read waits for that and no more. The
// server lets one worker wait for several of these.
const ErrUnderWay = syscall.EINPROGRESS

// Span is one write of a batch: Data goes to byte offset Off. It is an alias
// of an unnamed type so that a Device need not import this package.
type Span = struct {
	Off  int64
	Data []byte
}

// Extent is a run of bytes of one allocation status. An alias, as Span is.
type Extent = struct {
	Length int64
	Hole   bool // not allocated
	Zero   bool // reads as zeros
}

// Device is what one export serves: a disk of Size bytes with no alignment
// demands. All methods are safe for concurrent use. The server checks ranges
// against Size before it calls. Buffers are the server's: a Device uses them
// only until the call returns.
//
// Errors are turned into NBD errors by one table (errno.go): an error that
// matches a syscall.Errno is sent as the nearest NBD errno, anything else is
// EIO.
//
// Order (rule O9): once Write has returned, every later read on any
// connection sees it; Flush makes durable every write that had returned
// before Flush was called, on any connection: that is what lets the server
// advertise CAN_MULTI_CONN. A call that has returned, be it because its context
// is done, changes nothing any more: what a client sends again comes after it.
type Device interface {
	// Size is the current size in bytes.
	Size() int64

	// ReadOnly devices get no write, trim or zero.
	ReadOnly() bool

	// TryRead fills p from off without waiting for anything slower than
	// memory, or returns ErrWouldBlock or ErrUnderWay, having perhaps
	// scribbled on p.
	TryRead(p []byte, off int64) error

	// Read fills p from off.
	Read(ctx context.Context, p []byte, off int64) error

	// TryWrite writes the batch in order without waiting for anything slower
	// than memory, all of it or none: on any error nothing was written.
	TryWrite(batch []Span) error

	// Write writes the batch in order. After an error any part of it may
	// have been written.
	Write(ctx context.Context, batch []Span) error

	// Flush makes all writes that returned before the call durable.
	Flush(ctx context.Context) error

	// Trim makes the whole clusters in the range unallocated; the rest of
	// the range is zeroed. The range reads as zeros afterwards.
	Trim(ctx context.Context, off, n int64) error

	// Zero makes the range read as zeros; with allocate it counts as
	// allocated afterwards (NBD_CMD_FLAG_NO_HOLE).
	Zero(ctx context.Context, off, n int64, allocate bool) error

	// Extents reports the allocation of [off, off+n), in order, merged, by
	// calling fn until it returns false.
	Extents(ctx context.Context, off, n int64, fn func(Extent) bool) error

	// Prefetch asks for [off, off+n) to be brought near (NBD_CMD_CACHE).
	Prefetch(ctx context.Context, off, n int64) error
}

// Info describes an export to NBD_OPT_LIST.
type Info struct {
	Name        string
	Description string
}

// Exports finds devices by export name.
type Exports interface {
	// Open returns the device called name, or an error that matches
	// fs.ErrNotExist. It is held until release is called, once.
	Open(ctx context.Context, name string) (dev Device, release func(), err error)
	// List returns the exports in order of name.
	List(ctx context.Context) ([]Info, error)
}
