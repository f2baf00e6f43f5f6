package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/internal/format"
)

// side is what differs between the end that asks and the end that answers. Its methods
// are called by the one goroutine that reads, but for ended.
type side interface {
	// receive takes frames until the connection breaks.
	receive() error
	// begins is for the first frame of a message. in.buf is where it goes; nil: nobody wants it.
	begins(h *head) (in *inbound, err error)
	// complete is for a message that is all there. It has the message's buffer.
	complete(in *inbound)
	// cancel is for a message that the peer gives up; what came of it was dropped.
	cancel(id uint64)
	goodbye(code Code, words string)
	// dry is called before each wait for more to come.
	dry()
	// ended is called once, after the connection has ended, perhaps before end returns.
	ended(err error)
}

// inbound is a message on its way in.
type inbound struct {
	h      head
	buf    *Buffer // nil: it is thrown away as it comes
	got    int     // of the body
	window int
	charge int64
	since  int64 // when its first frame came, if that was not its last, on clock's time
	over   bool  // nothing more of it comes

	request *request // at the end that answers
	call    *call    // at the end that asks
}

// endpoint is one end of a connection, with what both have in common.
type endpoint struct {
	side   side
	link   *link
	in     *input
	out    *sender
	limits *Limits
	done   chan struct{} // closed when the connection has ended
	over   chan struct{} // closed when none of its goroutines is left
	wait   sync.WaitGroup
	head   head                // of the frame at hand; of the one who reads
	partly map[uint64]*inbound // of which more is to come; of the one who reads
	order  []*inbound          // the same by age, with some that are over; of the one who reads
	oldest atomic.Int64        // when the first of those began, on clock's time; 0: none

	mu  sync.Mutex
	err error

	room  [windows]int64        // as announced to the peer
	holds [windows]atomic.Int64 // bytes of it that the peer has used
	share *share                // of a server's bounds; nil at the end that asks
}

// start makes the ends of a connection behind the prefaces; run serves it.
func (e *endpoint) start(l *link, mine, theirs *preface, limits *Limits, s side) {
	e.side, e.link, e.limits, e.done, e.over = s, l, limits, make(chan struct{}), make(chan struct{})
	e.partly = map[uint64]*inbound{}
	for i, n := range mine.windows {
		e.room[i] = int64(n)
	}
	e.in = newInput(l, s.dry)
	e.out = newSender(l, theirs.windows, mine.windows, e.end)
}

// run reads until the connection ends, and returns when none of its goroutines is left.
func (e *endpoint) run() {
	e.wait.Go(e.out.run)
	e.wait.Go(e.watch)
	err := e.side.receive()
	if errors.Is(err, ErrProtocol) || errors.Is(err, ErrChecksum) {
		e.farewell(err)
	}
	e.end(err)
	for _, in := range e.partly {
		e.drop(in)
	}
	e.wait.Wait()
	close(e.over)
}

// end ends the connection, for the reason that came first.
func (e *endpoint) end(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		err = fmt.Errorf("%w by %s", ErrClosed, e.link.peer())
	}
	e.mu.Lock()
	first := e.err == nil
	if first {
		e.err = err
		close(e.done)
	}
	err = e.err
	e.mu.Unlock()
	e.out.end(err)
	if first {
		e.link.raw.Close() // not TLS: its farewell could wait
		e.side.ended(err)
	}
}

// farewellTime bounds how long a peer that is sent away may take to hear why.
const farewellTime = time.Second

// farewell tells the peer why the connection ends, within farewellTime. The caller is
// the one who reads; it reads what is still on its way, so that the kernel does not drop
// the words for it.
func (e *endpoint) farewell(why error) {
	stop := time.AfterFunc(farewellTime, func() { e.end(why) })
	defer stop.Stop()
	select {
	case <-e.out.goodbye(codeOf(why), why.Error()):
		linger(e.link.raw)
	case <-e.done:
	}
}

// linger waits until the peer has closed, or has sent too much. Whoever calls bounds the
// time.
func linger(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c, 64<<20)
	}
}

// reason is why the connection has ended, nil as long as it has not.
func (e *endpoint) reason() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// freed gives room back to the peer.
func (e *endpoint) freed(window int, n int64) {
	e.holds[window].Add(-n)
	if e.share != nil {
		e.share.bytes.Add(-n)
	}
	if e.out.grant(window, n) {
		e.out.kick()
	}
}

// charge charges a message to its window.
func (e *endpoint) charge(in *inbound, h *head) error {
	in.h = *h
	in.window, in.charge = h.charge()
	if e.share != nil {
		e.share.bytes.Add(in.charge)
	}
	if e.holds[in.window].Add(in.charge) > e.room[in.window] {
		e.freed(in.window, in.charge)
		return fmt.Errorf("%w: message %d of %d bytes is beyond the window of %d bytes", ErrProtocol, h.id, in.charge, e.room[in.window])
	}
	return nil
}

// drop throws a message away: what came of it, and what is still to come.
func (e *endpoint) drop(in *inbound) {
	if in.buf == nil {
		e.freed(in.window, in.charge)
		return
	}
	in.buf.Release()
	in.buf = nil
}

// keep gives a message memory.
func (e *endpoint) keep(in *inbound, buf *Buffer) {
	in.buf = buf
	buf.from, buf.window, buf.charge = e, in.window, in.charge
}

// one takes the next frame.
func (e *endpoint) one() error {
	b, err := e.in.next(headSize)
	if err != nil {
		return err
	}
	if e.head, err = decodeHead(b); err != nil {
		return err
	}
	e.in.mid = true
	if err := e.frame(&e.head); err != nil {
		return err
	}
	e.in.ended()
	return nil
}

// frame deals with one frame, of which the head was read.
func (e *endpoint) frame(h *head) error {
	switch h.kind {
	case kindRequest, kindReply:
		return e.first(h)
	case kindPiece:
		in := e.partly[h.id]
		if in == nil || in.h.body != h.body || in.h.priority != h.priority || in.h.flags != h.flags || int(h.piece) > int(h.body)-in.got {
			return fmt.Errorf("%w: %d bytes of message %d, of which they are no part", ErrProtocol, h.piece, h.id)
		}
		if err := e.piece(h, in); err != nil {
			return err
		}
		if in.got == int(h.body) {
			e.parted(h.id, in)
			e.side.complete(in)
		}
	case kindCancel:
		if in := e.partly[h.id]; in != nil {
			e.parted(h.id, in)
			e.drop(in)
		}
		e.side.cancel(h.id)
	case kindWindow:
		if h.op >= windows || !e.out.credited(int(h.op), int64(h.word)) {
			return fmt.Errorf("%w: %d bytes of room in window %d, which has less", ErrProtocol, h.word, h.op)
		}
		e.out.kick()
	case kindPing:
		e.out.pong(h.id)
		e.out.kick()
	case kindGoodbye:
		words := make([]byte, min(int(h.header), reasonMax))
		if err := e.in.full(words); err != nil {
			return err
		}
		if err := e.in.discard(int(h.header) - len(words)); err != nil {
			return err
		}
		e.side.goodbye(Code(h.op), printable(words))
	}
	return nil
}

// first deals with the first frame of a message.
func (e *endpoint) first(h *head) error {
	in, err := e.side.begins(h)
	if err != nil {
		return err
	}
	err = e.header(h, in)
	if err == nil {
		err = e.piece(h, in)
	}
	switch {
	case err != nil:
		e.drop(in)
		return err
	case in.got < int(h.body):
		e.partly[h.id] = in
		in.since = clock()
		e.order = append(e.order, in)
		e.oldest.CompareAndSwap(0, in.since)
	default:
		e.side.complete(in)
	}
	return nil
}

// parted is for a message of several frames of which nothing more is to come.
func (e *endpoint) parted(id uint64, in *inbound) {
	delete(e.partly, id)
	in.over = true
	if e.order[0] != in && len(e.order) < 2*len(e.partly)+64 {
		return
	}
	e.order = slices.DeleteFunc(e.order, func(in *inbound) bool { return in.over })
	if len(e.order) == 0 {
		e.oldest.Store(0)
	} else {
		e.oldest.Store(e.order[0].since)
	}
}

// header reads the header of a message.
func (e *endpoint) header(h *head, in *inbound) error {
	if h.header == 0 {
		return nil
	}
	if in.buf == nil {
		return e.in.discard(int(h.header))
	}
	if err := e.in.full(in.buf.header); err != nil {
		return err
	}
	if got := format.CRC(in.buf.header); got != h.headerSum {
		return fmt.Errorf("%w: header of message %d: it is %08x, not %08x", ErrChecksum, h.id, got, h.headerSum)
	}
	return nil
}

// piece reads a piece of a body into its place.
func (e *endpoint) piece(h *head, in *inbound) error {
	n := int(h.piece)
	if in.buf == nil {
		if err := e.in.discard(n); err != nil {
			return err
		}
	} else if n > 0 {
		to := in.buf.one[0][in.got : in.got+n]
		if err := e.in.full(to); err != nil {
			return err
		}
		if h.flags&flagSummed != 0 {
			if got := format.CRC(to); got != h.pieceSum {
				return fmt.Errorf("%w: body of message %d from byte %d: it is %08x, not %08x", ErrChecksum, h.id, in.got, got, h.pieceSum)
			}
		}
	}
	in.got += n
	return nil
}

// watch ends the connection if the peer falls silent, or stops in the middle of a frame
// or of a message, or does not take what is written. It costs a look every interval and, if nothing came
// since the last, a ping.
func (e *endpoint) watch() {
	tick := time.NewTicker(e.limits.Ping)
	defer tick.Stop()
	var heard uint64
	silent := 0
	for {
		select {
		case <-e.done:
			return
		case <-tick.C:
		}
		now, stall := clock(), int64(e.limits.Stall)
		if since := e.in.since.Load(); since != 0 && now-since >= stall {
			e.end(fmt.Errorf("%w: %s stopped in the middle of a frame for %v", ErrDead, e.link.peer(), e.limits.Stall))
		}
		if since := e.out.since.Load(); since != 0 && now-since >= stall {
			e.end(fmt.Errorf("%w: %s took nothing of what was sent for %v", ErrDead, e.link.peer(), e.limits.Stall))
		}
		if since := e.oldest.Load(); since != 0 && now-since >= int64(e.limits.Whole) {
			e.end(fmt.Errorf("%w: %s began a message and did not end it within %v", ErrDead, e.link.peer(), e.limits.Whole))
		}
		if n := e.in.heard.Load(); n != heard {
			heard, silent = n, 0
			continue
		}
		if silent++; silent > 2 {
			e.end(fmt.Errorf("%w: nothing came from %s for %v, though it was asked", ErrDead, e.link.peer(), 2*e.limits.Ping))
		}
		e.out.signal(head{kind: kindPing, id: uint64(silent)})
		e.out.kick()
	}
}

// printable is what a peer said, as far as it can be shown.
func printable(b []byte) string {
	b = b[:min(len(b), reasonMax)]
	s := make([]byte, len(b))
	for i, c := range b {
		if s[i] = c; c < ' ' || c > '~' {
			s[i] = '?'
		}
	}
	return string(s)
}
