package nbd

import (
	"encoding/binary"
	"errors"
	"os"
	"unsafe"
)

// appendReply appends a reply that carries no data: success, or err. With structured
// replies only READ and BLOCK_STATUS must be answered with chunks; errors are too, for the
// sake of the message. With extended headers all replies are chunks.
func (c *session) appendReply(b []byte, req Request, err error) []byte {
	switch {
	case err != nil && c.structured:
		return c.appendError(b, req, err)
	case err == nil && (c.extended || c.structured && req.Type == CmdRead):
		return c.appendChunk(b, req, ChunkNone, 0)
	}
	return AppendSimpleReply(b, req.Cookie, ErrnoOf(err))
}

// appendChunk appends the head of the only chunk of the reply to req, whose
// payload has length bytes. It takes at most chunkMax bytes.
func (c *session) appendChunk(b []byte, req Request, typ ChunkType, length int) []byte {
	if c.extended {
		return AppendExtendedChunk(b, ChunkDone, typ, req.Cookie, req.Offset, uint64(length))
	}
	return AppendChunk(b, ChunkDone, typ, req.Cookie, uint32(length))
}

// appendError appends an error chunk. It takes at most errorMax bytes.
func (c *session) appendError(b []byte, req Request, err error) []byte {
	text := message(err)
	b = c.appendChunk(b, req, ChunkError, 6+len(text))
	b = binary.BigEndian.AppendUint32(b, uint32(ErrnoOf(err)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...)
}

const (
	chunkMax    = ExtendedChunkLen
	errorMax    = chunkMax + 6 + maxMessage
	readHeadMax = chunkMax + 8
)

// appendReadHead appends what goes before the data of a READ. A data chunk may
// not be empty.
func (c *session) appendReadHead(b []byte, req Request) []byte {
	if !c.structured || req.Length == 0 {
		return c.appendReply(b, req, nil)
	}
	b = c.appendChunk(b, req, ChunkOffsetData, 8+int(req.Length))
	return binary.BigEndian.AppendUint64(b, req.Offset)
}

// appendPieceHead appends the head of one chunk of several of a READ: n bytes of the data,
// from byte at on.
func (c *session) appendPieceHead(b []byte, req Request, at, n int, last bool) []byte {
	flags := uint16(0)
	if last {
		flags = ChunkDone
	}
	if c.extended {
		b = AppendExtendedChunk(b, flags, ChunkOffsetData, req.Cookie, req.Offset, uint64(8+n))
	} else {
		b = AppendChunk(b, flags, ChunkOffsetData, req.Cookie, uint32(8+n))
	}
	return binary.BigEndian.AppendUint64(b, req.Offset+uint64(at))
}

// outbox is the combining writer's queue: heads, with payloads in between.
type outbox struct {
	heads   []byte
	segs    []segment
	counted int64 // of its memory, by memory.scratch
}

// segment is a payload that goes after heads[:end].
type segment struct {
	end     int
	payload []byte
	buf     *buffer // given back to the free list when it is sent
	charge  charge  // given back with buf
}

const segmentSize = int(unsafe.Sizeof(segment{}))

func (o *outbox) empty() bool { return len(o.heads) == 0 && len(o.segs) == 0 }

// vectors appends the queue's bytes in order.
func (o *outbox) vectors(v [][]byte) [][]byte {
	start := 0
	for _, s := range o.segs {
		v = append(v, o.heads[start:s.end], s.payload)
		start = s.end
	}
	return append(v, o.heads[start:])
}

func (o *outbox) reset() {
	clear(o.segs)
	o.heads, o.segs = o.heads[:0], o.segs[:0]
	// A client that did not read made them grow.
	if cap(o.heads) > keepBytes {
		o.heads = nil
	}
	if cap(o.segs)*segmentSize > keepBytes {
		o.segs = nil
	}
}

// countLocked counts the memory of an outbox.
func (c *conn) countLocked(o *outbox) {
	if n := int64(cap(o.heads) + cap(o.segs)*segmentSize); n != o.counted {
		c.holdLocked(n - o.counted)
		o.counted = n
	}
}

// post queues a reply and sends the queue. buf and charge are given back when the payload is
// sent. finished, if it is not nil, is a task that is done and is used again.
func (c *conn) post(head, payload []byte, buf *buffer, ch charge, finished *task) {
	c.enqueue(head, payload, buf, ch, finished)
	c.sendQueue()
}

// enqueue queues a reply as post does, for a sendQueue that follows.
func (c *conn) enqueue(head, payload []byte, buf *buffer, ch charge, finished *task) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err == nil {
		q := c.mu.queue
		q.heads = append(q.heads, head...)
		c.mu.waiting += len(head)
		if buf != nil {
			q.segs = append(q.segs, segment{end: len(q.heads), payload: payload, buf: buf, charge: ch})
			buf, ch = nil, 0 // the segment's now
		}
		c.countLocked(q)
	}
	c.freeLocked(buf, ch)
	if finished != nil {
		c.finishLocked(finished)
	}
}

// sendQueue sends the queue, unless somebody is sending already. The sender sends for all.
func (c *conn) sendQueue() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.sending {
		c.mu.sending = true
		c.sendLocked()
	}
}

// sendLocked sends the queue until it is empty. The caller has set sending; it
// is clear on return.
func (c *conn) sendLocked() {
	for c.mu.err == nil && !c.mu.queue.empty() {
		q := c.mu.queue
		c.mu.queue, c.mu.spare = c.mu.spare, nil
		c.vecs = q.vectors(c.vecs[:0])
		c.mu.Unlock()
		err := c.sock.send(c.vecs)
		clear(c.vecs)
		c.mu.Lock()
		c.mu.waiting -= len(q.heads)
		for _, s := range q.segs {
			if s.charge == 0 {
				c.mu.waiting -= len(s.buf.b) // the reader's own
			}
			c.freeLocked(s.buf, s.charge)
		}
		q.reset()
		c.mu.spare = q
		c.sentLocked(q)
		if err != nil {
			c.failLocked(err)
		}
		c.mu.changed.Broadcast()
	}
	c.mu.sending = false
	c.mu.changed.Broadcast()
}

// sentLocked counts what the sender needs, when it has sent an outbox.
func (c *conn) sentLocked(q *outbox) {
	const vector = int(unsafe.Sizeof([]byte{}))
	if cap(c.vecs)*vector > keepBytes {
		c.vecs = nil
	}
	c.countLocked(q)
	if n := int64(cap(c.vecs) * vector); n != c.mu.vecs {
		c.holdLocked(n - c.mu.vecs)
		c.mu.vecs = n
	}
}

// room makes room for n bytes of inline replies, at most ioBuffer. It returns those that are
// there already; the caller appends to them, and gives the result to filled.
func (c *reader) room(n int) []byte {
	if c.out != nil && c.outN+n > len(c.out.b) {
		c.flushOut()
	}
	if c.out == nil {
		c.out = c.srv.buffers.get(ioBuffer)
	}
	return c.out.b[:c.outN]
}

func (c *reader) filled(b []byte) { c.outN = len(b) }

// inline answers a request from the reader.
func (c *reader) inline(req Request, err error) {
	if err != nil {
		c.in.round.errors++
		c.filled(c.appendReply(c.room(errorMax), req, err))
		return
	}
	c.filled(c.appendReply(c.room(chunkMax), req, nil))
}

// flushOut sends the inline replies, directly if nobody else is sending. Otherwise they join
// the queue, and the reader waits while that is too long: the server does not read from a
// client that does not read its replies.
func (c *reader) flushOut() {
	if c.outN == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.ownTime()
	p := c.out.b[:c.outN]
	c.outN = 0
	if c.mu.err != nil {
		return
	}
	if c.mu.sending {
		q := c.mu.queue
		if len(p) < copyReplies { // a few: they are not worth a buffer
			q.heads = append(q.heads, p...)
			c.mu.waiting += len(p)
		} else {
			q.segs = append(q.segs, segment{end: len(q.heads), payload: p, buf: c.out})
			c.mu.waiting += len(c.out.b)
			c.out = nil
		}
		c.countLocked(q)
		for c.mu.err == nil && c.mu.waiting > c.srv.limits.ReplyBytes {
			c.mu.changed.Wait()
		}
		return
	}
	c.mu.sending = true
	c.mu.Unlock()
	c.vecs = append(c.vecs[:0], p)
	err := c.sock.send(c.vecs)
	c.mu.Lock()
	if err != nil {
		c.failLocked(err)
	}
	c.sendLocked()
}

// failLocked ends the connection: nothing more is sent, and requests in flight are cancelled.
func (c *conn) failLocked(err error) {
	if c.mu.err == nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errUnread
		}
		c.mu.err = err
		c.cancel()
		_ = c.sock.conn.Close() // wakes reader and sender; the first error counts
		for _, s := range c.mu.queue.segs {
			c.freeLocked(s.buf, s.charge)
		}
		c.mu.queue.reset()
		c.countLocked(c.mu.queue)
		c.mu.waiting = 0
	}
	c.mu.changed.Broadcast()
}
