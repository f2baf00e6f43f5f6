package wire

import (
	"context"
	"fmt"
)

// request is one in flight: on its way in, at its handler, or its answer on its way out.
type request struct {
	Incoming
	conn   *serverConn
	in     inbound
	out    message
	refuse error // it is not given to the handler
	share  bool  // it counts among those in flight; beyond the peer's share it does not

	// Guarded by serverConn.reqs:
	stop      context.CancelFunc // of its handler; nil: no handler runs
	cancelled bool
	answered  bool
}

// serve calls the handler, and gives the request's memory back.
func (r *request) serve(ctx context.Context) Answer {
	answer := r.conn.service.Handler.Serve(ctx, &r.Incoming)
	if buf := r.buf; buf != nil {
		r.buf = nil
		buf.Release()
	}
	return answer
}

// answer queues the answer.
func (r *request) answer(a Answer) {
	c := r.conn
	h := head{kind: kindReply, id: r.in.h.id, priority: r.Priority}
	c.reqs.Lock()
	cancelled := r.cancelled
	c.reqs.Unlock()
	switch body := a.Body.Len(); {
	case cancelled:
		a.Body.Release()
		a = Answer{Status: uint16(CodeCancelled)}
	case len(a.Header) > HeaderMax || body > c.bodyMax:
		a.Body.Release()
		a = Answer{Status: uint16(CodeAnswer), Header: fmt.Appendf(nil, "%v: an answer with a header of %d bytes and a body of %d", ErrTooLarge, len(a.Header), body)}
	}
	h.op, h.header, h.body = a.Status, uint32(len(a.Header)), uint32(a.Body.Len())
	if a.Sum {
		h.flags = flagSummed
	}
	if len(a.Header) > 0 {
		h.headerSum = sumOf([][]byte{a.Header})
	}
	r.out = message{h: h, header: a.Header, body: a.Body, gone: r.left}
	_ = c.out.put(&r.out) // it fails if the connection has ended: nobody waits for it
	c.reqs.Lock()
	r.answered = true
	late := r.cancelled && !cancelled
	c.reqs.Unlock()
	if late {
		c.recall(r)
	}
}

// uncount is for a request that is in flight no more.
func (r *request) uncount() {
	if r.share {
		r.conn.server.requests.Add(-1)
		r.conn.share.requests.Add(-1)
	}
}

// left is called when the answer is about to leave, or is given up.
func (r *request) left(*message) {
	c := r.conn
	c.reqs.Lock()
	if c.reqs.by[r.in.h.id] == r {
		delete(c.reqs.by, r.in.h.id)
		c.reqs.flying[r.Priority]--
		r.uncount()
	}
	c.quietLocked()
	c.reqs.Unlock()
}
