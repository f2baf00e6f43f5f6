package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"time"
)

// Who reads at the end that asks. A goroutine of the connection does, and wakes the caller whose
// answer has come. With one call at a time that wake is most of the call's time: it takes
// another thread, which looks for work and finds the processors taken by the peer. So while calls
// come one after the other, the caller reads by itself:
//
//   - The right to read belongs to one goroutine at a time, and passes under Conn.calls. It is
//     free only while no call is in flight, or the caller of the only one is about to take it.
//   - The connection's goroutine lets go of it when the last call in flight got its answer,
//     if calls come briskly. It looks again after briskTime, and takes the right if no caller has
//     had it since: so an idle connection is read as before, and a ping, a goodbye or the end of a
//     connection waits for twice that long at most.
//   - A caller that reads never waits in the middle of a frame, so that it can leave when its
//     context ends. A frame that does not fit the buffer is left to the connection's goroutine, as
//     are calls that others have in flight when the caller has its answer, and every error.

// briskTime is how far apart answers are, at most, for callers to read by themselves.
const briskTime = 5 * time.Millisecond

// leading is the right to read a Conn.
type leading struct {
	able bool       // the transport lets a reader be called off
	turn chan error // gives the right to the connection's goroutine, with what went wrong

	// Of the one who reads:
	last  int64 // when the last answer came, on clock's time
	brisk bool  // so did the one before, and it was short

	// Guarded by Conn.calls:
	free bool
	led  uint64 // how often a caller took it
}

// receive is the connection's goroutine.
func (c *asker) receive() error {
	for {
		if err := c.one(); err != nil {
			return err
		}
		if c.lead.brisk && c.in.ready() == 0 && c.aside() {
			if err := c.guard(); err != nil {
				return err
			}
		}
	}
}

// aside lets go of the right to read, if no call is in flight.
func (c *asker) aside() bool {
	c.calls.Lock()
	defer c.calls.Unlock()
	c.lead.free = c.lead.able && len(c.calls.by) == 0 && c.calls.refused == nil
	return c.lead.free
}

// guard waits until the right to read is given back, or callers do without it.
func (c *asker) guard() error {
	t := time.NewTimer(briskTime)
	defer t.Stop()
	var seen uint64
	ended := c.done
	for first := true; ; first = false {
		select {
		case err := <-c.lead.turn:
			return err
		case <-ended:
			ended = nil // if a caller reads, it finds out too, and gives the right back
		case <-t.C:
			t.Reset(briskTime)
		}
		c.calls.Lock()
		mine := c.lead.free && (ended == nil || !first && c.lead.led == seen)
		if mine {
			c.lead.free = false
		}
		seen = c.lead.led
		c.calls.Unlock()
		if mine {
			return c.reason()
		}
	}
}

// answered is told of each call that has its answer.
func (l *leading) answered(k *call) {
	now := clock()
	l.brisk = k.then == nil && now-l.last < int64(briskTime) && int(k.in.h.header)+int(k.in.h.body) <= readAhead/2
	l.last = now
}

// take takes the right to read for a call that was sent, if it is free. If other calls are in
// flight too, the right goes to the connection's goroutine.
func (c *Conn) take(k *call) (mine bool) {
	c.calls.Lock()
	defer c.calls.Unlock()
	if !c.lead.free {
		return false
	}
	c.lead.free = false
	if k.then == nil && len(c.calls.by) <= 1 {
		c.lead.led++
		return true
	}
	c.lead.turn <- nil // there is room: there is one right
	return false
}

// give gives the right to read back: to the connection's goroutine, if there is something to read.
func (c *Conn) give(err error) {
	c.calls.Lock()
	defer c.calls.Unlock()
	if err == nil && len(c.calls.by) == 0 && c.in.ready() == 0 && c.calls.refused == nil {
		c.lead.free = true
		return
	}
	c.lead.turn <- err
}

// read reads until k has its answer or ctx ends, or the connection's goroutine has to go on. The
// caller has the right to read, and has it no more.
func (c *Conn) read(ctx context.Context, k *call) {
	if ctx.Done() == nil {
		c.give(c.readFor(k))
		return
	}
	called := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = c.link.raw.SetReadDeadline(past)
		close(called)
	})
	err := c.readFor(k)
	if !stop() {
		<-called
		if e := c.link.raw.SetReadDeadline(time.Time{}); err == nil {
			err = e
		}
	}
	c.give(err)
}

// past is before now, also where a test has a clock of its own.
var past = time.Unix(1, 0)

func (c *Conn) readFor(k *call) error {
	for {
		select {
		case <-k.done:
			return nil
		default:
		}
		var err error
		switch missing := c.in.missing(); {
		case missing < 0:
			return nil
		case missing == 0:
			err = c.one()
		default:
			if err = c.in.fill(); errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
}

// missing is how many bytes at least must still be read before the next frame can be taken without
// a wait; below 0: it does not fit the buffer.
func (in *input) missing() int {
	if in.ready() < headSize {
		return headSize - in.ready()
	}
	b := in.buf[in.r:in.w]
	size := headSize + uint64(binary.LittleEndian.Uint32(b[20:])) + uint64(binary.LittleEndian.Uint32(b[28:]))
	if size > uint64(len(in.buf)) {
		return -1
	}
	return max(0, int(size)-in.ready())
}
