// Package device is the contract of a block device: what front ends serve, and what a
// vDisk, a snapshot and their doubles offer. Its suite is in devicetest.
//
// A device is a row of bytes with no demands on alignment. All methods are safe for
// concurrent use. Ranges lie within Size: whoever calls checks that, and a device
// that shrinks under a request fails it. Buffers are those of whoever calls: a device
// uses them only until the call returns.
//
// Errors that match a syscall.Errno mean what that one means; a front end turns
// anything else into EIO.
//
// Order (rule O9): once a Write has returned, every later read sees it, whoever
// reads; Flush makes durable every write that had returned before Flush was called,
// whoever wrote. That is what lets an NBD server advertise CAN_MULTI_CONN. A call that
// has returned, be it because its context is done, changes nothing any more: what is
// asked again comes after it.
package device

import (
	"context"
	"syscall"
)

// ErrWouldBlock is returned, unwrapped, by the Try methods when the request needs to
// wait for something slower than memory.
const ErrWouldBlock = syscall.EAGAIN

// ErrUnderWay is returned, unwrapped, by TryRead instead of ErrWouldBlock when the data
// is on its way into memory: a Read waits for that and no more. One worker can wait
// for several of these.
const ErrUnderWay = syscall.EINPROGRESS

// Span is one write of a batch: Data goes to byte offset Off.
type Span struct {
	Off  int64
	Data []byte
}

// Extent is a run of bytes of one allocation status.
type Extent struct {
	Length int64
	Hole   bool // not allocated
	Zero   bool // reads as zeros
}

// Reader is a device that can be read, and all there is of one that is read-only.
type Reader interface {
	// Size is the current size in bytes.
	Size() int64

	// TryRead fills p from off without waiting for anything slower than memory, or
	// returns ErrWouldBlock or ErrUnderWay, having perhaps scribbled on p.
	TryRead(p []byte, off int64) error

	// Read fills p from off.
	Read(ctx context.Context, p []byte, off int64) error

	// Extents reports the allocation of [off, off+n), in order, merged, by calling
	// fn until it returns false.
	Extents(ctx context.Context, off, n int64, fn func(Extent) bool) error

	// Prefetch asks for [off, off+n) to be brought near.
	Prefetch(ctx context.Context, off, n int64) error
}

// Device is a device that can be written too.
type Device interface {
	Reader

	// TryWrite writes the batch in order without waiting for anything slower than
	// memory, all of it or none: on any error nothing was written.
	TryWrite(batch []Span) error

	// Write writes the batch in order. After an error any part of it may have been
	// written.
	Write(ctx context.Context, batch []Span) error

	// Flush makes all writes that returned before the call durable.
	Flush(ctx context.Context) error

	// Trim makes the whole clusters in the range unallocated; the rest of the range
	// is zeroed. The range reads as zeros afterwards.
	Trim(ctx context.Context, off, n int64) error

	// Zero makes the range read as zeros; with allocate it counts as allocated
	// afterwards.
	Zero(ctx context.Context, off, n int64, allocate bool) error
}
