// Package device is the contract of a block device. Front ends serve devices; vDisks,
// snapshots and doubles in tests are devices. The suite of the contract is in devicetest.
//
// A device is a sequence of bytes, and requests need no alignment. All methods are safe for
// concurrent use. The caller checks that ranges lie within Size; if the device becomes
// smaller meanwhile, it fails the request. Buffers belong to the caller: a device uses them
// only until the call returns.
//
// An error that matches a syscall.Errno has the meaning of that errno. A front end turns any
// other error into EIO.
//
// Order (rule O9): once a Write has returned, every later read sees it, whoever
// reads; Flush makes durable every write that had returned before Flush was called,
// whoever wrote. Therefore an NBD server may advertise CAN_MULTI_CONN. A call that has
// returned changes nothing any more, even if it returned because its context was done. So a
// request that is made again takes effect after the first one.
package device

import (
	"context"
	"syscall"
)

// ErrWouldBlock is returned, unwrapped, by the Try methods when the request needs to
// wait for something slower than memory.
const ErrWouldBlock = syscall.EAGAIN

// ErrUnderWay is returned, unwrapped, by TryRead instead of ErrWouldBlock when the data is
// on its way into memory already: a Read would only wait for that. One worker can wait for
// several such reads.
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

// Reader is a device that can be read. A read-only device is this and no more.
type Reader interface {
	// Size is the current size in bytes.
	Size() int64

	// TryRead fills p from off without waiting for anything slower than memory, or
	// returns ErrWouldBlock or ErrUnderWay. After an error p may have been changed.
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
