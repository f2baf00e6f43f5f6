package asd

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"openvstorage/alba/osd"
	"openvstorage/internal/ctxlock"
	"openvstorage/internal/disk"
)

const suffix = ".seg"

// segment is an open segment file. What contents.mu guards is marked so; what the writer
// alone changes the writer may read without.
type segment struct {
	file        disk.File // the writer's, while it is the current segment
	path        string
	number      uint32
	incarnation uint64
	// temp is the name that the file has until its first batch is synced.
	temp string

	end  int64 // behind the last batch; contents.mu, changed by the writer only
	done int64 // behind the last batch that is in the index; contents.mu
	size int64 // of the file; contents.mu, changed by the writer only
	live int64 // bytes that live values take; contents.mu
	tomb int64 // bytes that deletes take; contents.mu
	// since is the highest entry.Since of the deletes; contents.mu.
	since uint64
	// lastDelete is the seq of the newest batch with a delete; contents.mu.
	lastDelete uint64
	// stuck: values in it could not be read, so it is not compacted as long as
	// any of them lives; contents.mu.
	stuck bool

	// handle is the open file, nil: it is closed, and opened when it is read.
	handle  atomic.Pointer[handle]
	opening ctxlock.Shared // a disk that hangs may hold it for long
	// waiting counts the readers that are about to open the file. It is raised under
	// contents.mu only.
	waiting atomic.Int32
	// gone: the segment is retired, or the ASD closed.
	gone atomic.Bool
}

// idle reports whether nobody reads the file, or is about to. Nothing in the segment is
// found any more, so whoever has not come yet does not come.
func (s *segment) idle() bool {
	// In this order: whoever no longer waits has acquired a handle before.
	if s.waiting.Load() != 0 {
		return false
	}
	h := s.handle.Load()
	return h == nil || h.users.Load() == 0
}

// place returns where the value of an entry lies, and what it takes to read it. Two
// puts of a key have different places unless they put the same: empty values take no
// room and may share an offset, but differ in seed or epoch then.
func (s *segment) place(e *Entry) place {
	return place{segment: s.number, data: uint32(e.Offset), table: uint32(e.Table), size: e.Size, seed: e.Seed, epoch: e.Epoch}
}

// corrupt is the error for a value in the segment.
func (s *segment) corrupt(key []byte, off int64, what string) error {
	return &CorruptError{Key: append([]byte(nil), key...), File: s.path, Offset: off, What: what}
}

func segmentName(number uint32) string { return fmt.Sprintf("%016x%s", uint64(number), suffix) }

func parseName(name string) (number uint32, ok bool) {
	hex, ok := strings.CutSuffix(name, suffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(hex, 16, 32)
	return uint32(n), err == nil && n > 0 && segmentName(uint32(n)) == name
}

// cost is the room that a value takes in its segment.
func (p place) cost(key int) int64 {
	n := int64(entrySize + key + 4*osd.Blocks(int(p.size)))
	if packed(p.size) {
		return n + int64(p.size)
	}
	return n + roundUp(int64(p.size))
}
