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
//   - The connection's goroutine watches the context of a caller that reads for longer than
//     briskTime, and calls it off. So each call does not pay for that, and a call whose context
//     ends in its first moments ends up to twice briskTime later. It looks no more until that
//     caller gives the right back to it: a call that waits for long costs nothing meanwhile.

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
	led  uint64          // how often a caller took it
	ctx  context.Context // of the caller that has it
	long bool            // that caller reads for long, and the connection's goroutine waits for it
	off  bool            // that caller was called off
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
	seen, first := uint64(0), true
	ended := c.done
	var called <-chan struct{} // the end of the context of a caller that has read for long
	for {
		select {
		case err := <-c.lead.turn:
			return err
		case <-ended:
			ended = nil // if a caller reads, it finds out too, and gives the right back
		case <-called:
			c.callOff(seen)
		case <-t.C:
		}
		c.calls.Lock()
		same := !first && c.lead.led == seen
		mine := c.lead.free && (ended == nil || same)
		if mine {
			c.lead.free = false
		}
		if called = nil; same && c.lead.ctx != nil {
			c.lead.long = true
			if !c.lead.off {
				called = c.lead.ctx.Done()
			}
		}
		seen, first = c.lead.led, false
		long := c.lead.long
		c.calls.Unlock()
		if mine {
			return c.reason()
		}
		if !long {
			t.Reset(briskTime)
		}
	}
}

// callOff ends the wait of the caller that was the one to take the right to read at that time, if
// it still has it.
func (c *asker) callOff(led uint64) {
	c.calls.Lock()
	defer c.calls.Unlock()
	if c.lead.led == led && c.lead.ctx != nil {
		_ = c.link.raw.SetReadDeadline(past) // it fails when the connection has ended, and then the caller ends too
		c.lead.off = true
	}
}

// past is before now, also where a test has a clock of its own.
var past = time.Unix(1, 0)

// answered is told of each call that has its answer.
func (l *leading) answered(k *call) {
	now := clock()
	l.brisk = k.then == nil && now-l.last < int64(briskTime) && int(k.in.h.header)+int(k.in.h.body) <= readAhead/2
	l.last = now
}

// take takes the right to read for a call that was sent, if it is free. If other calls are in
// flight too, or the call waits for nothing (ctx is nil), the right goes to the connection's
// goroutine.
func (c *Conn) take(ctx context.Context) (mine bool) {
	c.calls.Lock()
	defer c.calls.Unlock()
	if !c.lead.free {
		return false
	}
	c.lead.free = false
	if ctx != nil && len(c.calls.by) <= 1 {
		c.lead.led++
		c.lead.ctx = ctx
		return true
	}
	c.lead.turn <- nil // there is room: there is one right
	return false
}

// give gives the right to read back: to the connection's goroutine, if there is something to read.
func (c *Conn) give(err error) {
	c.calls.Lock()
	defer c.calls.Unlock()
	long := c.lead.long
	c.lead.ctx, c.lead.long = nil, false
	if c.lead.off {
		c.lead.off = false
		err = errors.Join(err, c.link.raw.SetReadDeadline(time.Time{}))
	}
	if err == nil && !long && len(c.calls.by) == 0 && c.in.ready() == 0 && c.calls.refused == nil {
		c.lead.free = true
		return
	}
	c.lead.turn <- err
}

// read reads until k has its answer, or ctx has ended, or the connection's goroutine has to go
// on. The caller has the right to read, and has it no more. It returns whether k has ended.
func (c *Conn) read(k *call) (ended bool) {
	var err error
	for {
		select {
		case <-k.done:
			ended = true
		default:
		}
		missing := c.in.missing()
		if ended || missing < 0 {
			break
		}
		if missing == 0 {
			err = c.one()
		} else {
			err = c.in.fill()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
			break
		}
		if err != nil {
			break
		}
	}
	c.give(err)
	return ended
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
