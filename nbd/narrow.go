package nbd

import (
	"errors"
	"fmt"
)

// A READ is narrow if there is less memory for it than it is long, because others hold so
// much. Its data is read and sent in pieces. That is slower than one piece, but the READ
// waits for nobody.

var errHalfRead = errors.New("a read failed in the middle of its reply")

// runNarrow serves a narrow READ. If a reply may have several chunks, each piece is one,
// and other replies go in between. Otherwise the head is sent with the first piece, and
// only the rest of the data may follow. If the device fails after that, the server can only
// hang up.
func (t *task) runNarrow() {
	c, req := t.c, t.req
	whole := !c.structured || req.Flags&FlagDF != 0
	for at := 0; at < int(req.Length); {
		p := t.buf.b[:min(len(t.buf.b), int(req.Length)-at)]
		err := c.dev.Read(c.ctx, p, int64(req.Offset)+int64(at))
		switch {
		case err != nil && (at == 0 || !whole):
			t.finish(req, err)
			return
		case err != nil:
			c.count(err)
			c.mu.Lock()
			c.failLocked(fmt.Errorf("%w, at %d: %w", errHalfRead, int64(req.Offset)+int64(at), err))
			c.sendLocked()
			c.mu.Unlock()
			t.head = t.head[:0]
			t.end()
			return
		}
		last := at+len(p) == int(req.Length)
		switch {
		case !whole:
			t.head = c.appendPieceHead(t.head[:0], req, at, len(p), last)
		case at == 0:
			t.head = c.appendReadHead(t.head[:0], req)
		default:
			t.head = t.head[:0]
		}
		if !c.sendAlone(t.head, p, whole && at > 0, whole && !last) {
			break
		}
		at += len(p)
	}
	t.head = t.head[:0]
	t.end()
}

// sendAlone sends a head and a payload at once. Unless mine says that the caller is the
// sender already, it waits to become that; with more it stays the sender. False says that
// the connection is over.
func (c *conn) sendAlone(head, payload []byte, mine, more bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !mine && c.mu.err == nil && c.mu.sending {
		c.mu.changed.Wait()
	}
	if !mine && c.mu.err != nil {
		return false
	}
	c.mu.sending = true
	if c.mu.err == nil {
		c.vecs = append(c.vecs[:0], head, payload)
		c.mu.Unlock()
		err := c.sock.send(c.vecs)
		clear(c.vecs)
		c.mu.Lock()
		if err != nil {
			c.failLocked(err)
		}
	}
	if !more || c.mu.err != nil {
		c.sendLocked()
	}
	return c.mu.err == nil
}
