package nbd

import (
	"encoding/binary"
	"time"

	"openvstorage/device"
)

// BLOCK_STATUS and CACHE ask about a range and change nothing. With extended headers the
// range may be a whole device, and the device may have to look at each cluster of it. So
// the device is asked about one window after the other, for a bounded time.

// statusPayload is the length of the payload of a BLOCK_STATUS: the length of
// the range and the contexts that are wanted. There is one context.
const statusPayload = 8 + 4

// statusRange makes the request that a BLOCK_STATUS with a payload stands for.
func (c *session) statusRange(req Request, payload []byte, size uint64) (Request, *refusal) {
	if binary.BigEndian.Uint32(payload[8:]) != BaseAllocationID {
		return req, errContexts
	}
	req.Flags &^= FlagPayloadLen
	req.Length = binary.BigEndian.Uint64(payload)
	return req, c.check(req, size)
}

// status collects the extents of a BLOCK_STATUS.
type status struct {
	extent func(device.Extent) bool // addExtent, as a value made once

	out   []byte // extents as they are sent, in the task's buffer or in small
	small [16]byte
	left  int64  // of the window
	one   bool   // no more than one is wanted
	run   uint64 // length of the last extent, which is not in out yet
	state uint32
}

// runBlockStatus answers with the extents of the range, as many as fit and are found in
// time, in one chunk.
func (t *task) runBlockStatus() {
	c, req, s := t.c, t.req, &t.status
	if s.extent == nil {
		s.extent = t.addExtent
	}
	s.one = req.Flags&FlagReqOne != 0
	s.out = s.small[:0]
	if t.buf != nil {
		s.out = t.buf.b[:0]
	}
	deadline := time.Now().Add(c.srv.limits.RangeTime)
	for off, left := int64(req.Offset), int64(req.Length); left > 0; {
		n := min(left, window)
		s.left = n
		err := c.dev.Extents(c.ctx, off, n, s.extent)
		if err != nil && off == int64(req.Offset) {
			t.finish(req, err)
			return
		}
		if err != nil || s.left > 0 || time.Now().After(deadline) {
			break // the client asks for the rest, and gets the error then
		}
		off, left = off+n, left-n
	}
	t.endStatus()
}

// endStatus adds the last extent and sends the answer. A long one is sent from
// the buffer that it is in, and stays charged until then.
func (t *task) endStatus() {
	c, s := t.c, &t.status
	if s.run == 0 && len(s.out) == 0 { // there must be one extent; state 0 promises nothing
		s.run, s.state = t.req.Length, 0
	}
	t.putExtent()
	if c.extended {
		t.head = c.appendChunk(t.head[:0], t.req, ChunkBlockStatusExt, 8+len(s.out))
		t.head = binary.BigEndian.AppendUint32(t.head, BaseAllocationID)
		t.head = binary.BigEndian.AppendUint32(t.head, uint32(len(s.out)/16))
	} else {
		t.head = c.appendChunk(t.head[:0], t.req, ChunkBlockStatus, 4+len(s.out))
		t.head = binary.BigEndian.AppendUint32(t.head, BaseAllocationID)
	}
	if buf := t.buf; buf != nil && len(s.out) >= copyReplies {
		t.buf = nil
		c.post(t.head, s.out, buf, t.charge, t)
		return
	}
	t.head = append(t.head, s.out...)
	t.end()
}

// putExtent appends the last extent, if there is one.
func (t *task) putExtent() {
	s := &t.status
	switch {
	case s.run == 0:
	case t.c.extended:
		s.out = binary.BigEndian.AppendUint64(s.out, s.run)
		s.out = binary.BigEndian.AppendUint64(s.out, uint64(s.state))
	default:
		s.out = binary.BigEndian.AppendUint32(s.out, uint32(s.run))
		s.out = binary.BigEndian.AppendUint32(s.out, s.state)
	}
	s.run = 0
}

// addExtent takes an extent of the window and tells whether more are wanted.
func (t *task) addExtent(e device.Extent) bool {
	s := &t.status
	n := min(e.Length, s.left)
	if n <= 0 {
		return s.left > 0
	}
	var state uint32
	if e.Hole {
		state |= StateHole
	}
	if e.Zero {
		state |= StateZero
	}
	if s.run > 0 && state != s.state {
		t.putExtent()
		if s.one || len(s.out) >= maxStatus {
			return false
		}
	}
	s.left -= n
	s.run += uint64(n)
	s.state = state
	return s.left > 0
}

// flushDisk makes all writes durable. A device that is read-only has none.
func (c *conn) flushDisk() error {
	if c.disk == nil {
		return nil
	}
	return c.disk.Flush(c.ctx)
}

// prefetch has the device bring a range near, as much of it as there is time for: CACHE is
// a hint.
func (c *conn) prefetch(off, n int64) error {
	deadline := time.Now().Add(c.srv.limits.RangeTime)
	for n > 0 {
		m := min(n, window)
		if err := c.dev.Prefetch(c.ctx, off, m); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			break
		}
		off, n = off+m, n-m
	}
	return nil
}
