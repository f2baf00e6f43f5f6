package wire

import "fmt"

// asker is a Conn as whoever reads sees it.
type asker Conn

func (c *asker) begins(h *head) (*inbound, error) {
	if h.kind != kindReply {
		return nil, fmt.Errorf("%w: a request came to the side that asks", ErrProtocol)
	}
	c.calls.Lock()
	k := c.calls.by[h.id]
	mine := k != nil && k.in.h.kind == 0
	gone := mine && k.abandoned
	if mine {
		k.in.h.kind = kindReply
	}
	c.calls.Unlock()
	if !mine {
		return nil, fmt.Errorf("%w: an answer to request %d, which is not in flight", ErrProtocol, h.id)
	}
	if int(h.body) > c.limits.Body || h.priority != k.out.h.priority {
		return nil, fmt.Errorf("%w: an answer to request %d with priority %d and a body of %d bytes", ErrProtocol, h.id, h.priority, h.body)
	}
	if state := c.out.state(&k.out); state == waiting || state == begun {
		return nil, fmt.Errorf("%w: an answer to request %d, which has not left", ErrProtocol, h.id)
	}
	if err := c.charge(&k.in, h); err != nil {
		return nil, err
	}
	if gone {
		return &k.in, nil
	}
	buf := c.pool.get(int(h.body), int(h.header))
	if buf == nil {
		return &k.in, nil // complete says so
	}
	c.keep(&k.in, buf)
	return &k.in, nil
}

// complete ends a call with its answer.
func (c *asker) complete(in *inbound) {
	k := in.call
	c.lead.answered(k)
	lost := in.buf == nil
	var err error
	if lost {
		c.freed(in.window, in.charge)
		err = fmt.Errorf("%w: no memory for the answer of %d bytes", ErrBusy, in.h.body)
	}
	if !c.settle(k, err) && !lost {
		in.buf.Release()
	}
}

// settle takes a call away and tells its caller; err is why there is no answer. It returns
// false if the caller is gone.
func (c *asker) settle(k *call, err error) (told bool) {
	c.calls.Lock()
	told = !k.ended
	k.ended = true
	c.calls.Unlock()
	(*Conn)(c).forget(k)
	if told {
		if err != nil {
			sent := ErrNotSent
			if c.out.state(&k.out) == whole {
				sent = ErrOutcomeUnknown
			}
			k.err = &outcome{k.out.h.op, c.link.peer(), sent, err}
		}
		k.finish()
	}
	c.retire()
	return told
}

// cancel is what the peer says of an answer that it has begun and does not end.
func (c *asker) cancel(id uint64) {
	c.calls.Lock()
	k := c.calls.by[id]
	c.calls.Unlock()
	switch {
	case k == nil:
	case k.in.h.kind == 0: // if its request is still queued, it would leave later
		err := fmt.Errorf("%w: the answer to request %d was given up before it began", ErrProtocol, id)
		c.farewell(err)
		c.end(err)
	default:
		c.settle(k, fmt.Errorf("%w by the peer", ErrCancelled))
	}
}

// goodbye: no further request is taken. Those in flight are answered if the peer is only
// closing.
func (c *asker) goodbye(code Code, words string) {
	err := &told{by: "the peer ended the connection", code: code, text: words}
	if code != CodeClosing {
		c.end(err)
		return
	}
	c.calls.Lock()
	first := c.calls.refused == nil
	c.calls.refused = err
	c.calls.Unlock()
	if first {
		close(c.closing)
	}
	c.retire()
}

// retire ends a connection that the peer is closing once the last answer has come.
func (c *asker) retire() {
	c.calls.Lock()
	err := c.calls.refused
	over := err != nil && len(c.calls.by) == 0
	c.calls.Unlock()
	if over {
		c.end(err)
	}
}

func (c *asker) dry() {}

func (c *asker) ended(err error) {
	c.calls.Lock()
	all := make([]*call, 0, len(c.calls.by))
	for _, k := range c.calls.by {
		all = append(all, k)
	}
	c.calls.refused = err
	c.calls.Unlock()
	for _, k := range all {
		c.settle(k, err)
	}
}
