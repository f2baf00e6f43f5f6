package wire

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// link is the transport under frames: a connection, perhaps TLS over it. One goroutine
// reads; one at a time writes.
//
// TLS makes a record and a write of each buffer that it is given. So records are held in
// memory while a batch goes through TLS, and leave in one write.
type link struct {
	raw  net.Conn // what bytes leave by
	conn net.Conn // what frames are read from: raw, or TLS over it
	tls  *tls.Conn
	hold *holder // under TLS, else nil
	try  *attempt
}

func plainLink(c net.Conn) *link { return &link{raw: c, conn: c, try: newAttempt(c)} }

// secureLink puts TLS over c; make is tls.Client or tls.Server.
func secureLink(c net.Conn, config *tls.Config, make func(net.Conn, *tls.Config) *tls.Conn) *link {
	h := &holder{Conn: c}
	t := make(h, config)
	return &link{raw: c, conn: t, tls: t, hold: h, try: newAttempt(c)}
}

// segments is what is to be written, in order.
type segments [][]byte

// writeNow writes what the kernel takes without waiting, and returns what is left. of is
// how much there is. Without a way to know what can be taken, all is left.
func (l *link) writeNow(b segments, of int) (left segments, err error) {
	if l.try == nil || of > nowMax {
		return b, nil
	}
	if l.hold == nil {
		return l.try.write(b)
	}
	rest, err := l.seal(b)
	if err != nil || len(rest) == 0 {
		return nil, err
	}
	n := len(rest)
	left, err = l.try.write(segments{rest})
	if err != nil {
		return nil, err
	}
	if len(left) > 0 {
		n -= len(left[0])
	}
	if l.hold.sent(n) {
		return nil, nil
	}
	return segments{nil}, nil // what is left is with the holder
}

// nowMax is the longest batch, in bytes, that is tried by whoever has something to send,
// not by the connection's writer: it is encrypted on the caller's time.
const nowMax = 64 << 10

// write writes all of b, waiting as long as it takes.
func (l *link) write(b segments) error {
	if l.hold == nil {
		nb := net.Buffers(b)
		_, err := nb.WriteTo(l.raw)
		return err
	}
	for done := false; len(b) > 0 || !done; { // a few records at a time
		n, size := 0, 0
		for n < len(b) && size+len(b[n]) <= sealMax {
			size += len(b[n])
			n++
		}
		now := b[:n]
		if n == 0 && len(b) > 0 {
			now = segments{b[0][:sealMax]}
			b[0] = b[0][sealMax:]
		}
		b = b[n:]
		rest, err := l.seal(now)
		if err != nil {
			return err
		}
		m, err := l.raw.Write(rest)
		if done = l.hold.sent(m); err != nil {
			return err
		}
	}
	return nil
}

// sealMax is how many bytes go through TLS before they are written: seven records.
const sealMax = 7 * 16 << 10

// seal puts b through TLS, and returns all records that have not left yet.
func (l *link) seal(b segments) ([]byte, error) {
	l.hold.begin()
	for _, s := range b {
		if len(s) == 0 {
			continue
		}
		if _, err := l.tls.Write(s); err != nil {
			return nil, err
		}
	}
	return l.hold.records(), nil
}

// peer says who is at the other end, for messages.
func (l *link) peer() string {
	if a := l.raw.RemoteAddr(); a != nil && a.String() != "" && a.String() != "@" {
		return a.String()
	}
	return "the peer"
}

// holder lies under TLS. It reads ahead, and holds what TLS writes during a batch.
type holder struct {
	net.Conn
	in   []byte // room to read ahead; nil during the handshake
	r, w int

	mu   sync.Mutex
	held bool
	out  []byte
}

// readAhead is how much is read from the transport at a time, and keepOut how much room
// for records a connection keeps.
const (
	readAhead = 32 << 10
	keepOut   = 128 << 10
)

func (h *holder) Read(p []byte) (int, error) {
	if h.in == nil {
		return h.Conn.Read(p)
	}
	if h.r == h.w {
		if len(p) >= len(h.in) {
			return h.Conn.Read(p)
		}
		n, err := h.Conn.Read(h.in)
		if n <= 0 {
			return n, err
		}
		h.r, h.w = 0, n
	}
	n := copy(p, h.in[h.r:h.w])
	h.r += n
	return n, nil
}

// Write is called by TLS: by the writer's batches, and for alerts and new keys by the
// reader, too.
func (h *holder) Write(p []byte) (int, error) {
	h.mu.Lock()
	if h.held {
		h.out = append(h.out, p...)
		h.mu.Unlock()
		return len(p), nil
	}
	h.mu.Unlock()
	return h.Conn.Write(p)
}

func (h *holder) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = true
	if h.out == nil {
		h.out = make([]byte, 0, keepOut)
	}
}

// records is what has not left. Its bytes stay as they are until sent.
func (h *holder) records() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.out
}

// sent says how many bytes of the records have left, and returns whether all have. Then
// nothing is held any more. What TLS wrote meanwhile by itself is a part of them.
func (h *holder) sent(n int) (all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.out = h.out[:copy(h.out, h.out[n:])]
	h.held = len(h.out) > 0
	if !h.held && cap(h.out) > keepOut {
		h.out = nil
	}
	return !h.held
}

// iovMax is how many slices a kernel takes in one call.
const iovMax = 1024

// attempt writes to a socket as much as it takes at once.
type attempt struct {
	raw  syscall.RawConn
	bufs segments
	n    int
	err  error
	call func(fd uintptr) bool
}

// newAttempt returns nil if c is no socket.
func newAttempt(c net.Conn) *attempt {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	a := &attempt{raw: raw}
	a.call = func(fd uintptr) bool {
		for {
			if len(a.bufs) == 1 {
				a.n, a.err = unix.Write(int(fd), a.bufs[0])
			} else {
				a.n, a.err = unix.Writev(int(fd), a.bufs)
			}
			if a.err != unix.EINTR {
				return true
			}
		}
	}
	return a
}

// write returns what the socket did not take.
func (a *attempt) write(b segments) (left segments, err error) {
	a.bufs, a.n, a.err = b[:min(len(b), iovMax)], 0, nil
	err = a.raw.Write(a.call)
	a.bufs = nil
	switch {
	case err != nil:
		return nil, err
	case a.err == unix.EAGAIN:
		return b, nil
	case a.err != nil:
		return nil, a.err
	}
	n := a.n
	for len(b) > 0 && n >= len(b[0]) {
		n -= len(b[0])
		b = b[1:]
	}
	if len(b) > 0 {
		b[0] = b[0][n:]
	}
	return b, nil
}

// input reads a link and reads ahead.
type input struct {
	link  *link
	dry   func() // before each read
	buf   []byte
	r, w  int
	heard atomic.Uint64 // rises with all that comes
	mid   bool          // behind the head of a frame, and before its end
	since atomic.Int64  // when a wait for the rest of a frame began, on clock's time; 0: none
}

// clock is time since the process began; it is monotonic.
func clock() int64 { return int64(time.Since(began)) + 1 }

var began = time.Now()

func newInput(l *link, dry func()) *input {
	if l.hold != nil {
		l.hold.in = make([]byte, readAhead)
	}
	return &input{link: l, dry: dry, buf: make([]byte, readAhead)}
}

// ready is how many bytes are there without a read.
func (in *input) ready() int { return in.w - in.r }

// next returns the next n bytes, at most readAhead, valid until the next call.
func (in *input) next(n int) ([]byte, error) {
	for in.ready() < n {
		if err := in.fill(); err != nil {
			return nil, err
		}
	}
	b := in.buf[in.r : in.r+n]
	in.r += n
	return b, nil
}

// fill reads once behind what is there. The buffer must not be full.
func (in *input) fill() error {
	if in.r > 0 {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	m, err := in.read(in.buf[in.w:])
	in.w += m
	return err
}

// full fills p. What is long is read into its place.
func (in *input) full(p []byte) error {
	n := copy(p, in.buf[in.r:in.w])
	in.r += n
	for p = p[n:]; len(p) >= len(in.buf)/2; p = p[n:] {
		var err error
		if n, err = in.read(p); err != nil {
			return err
		}
	}
	if len(p) == 0 {
		return nil
	}
	b, err := in.next(len(p))
	copy(p, b)
	return err
}

// discard passes over n bytes.
func (in *input) discard(n int) error {
	for n > 0 {
		m := min(n, len(in.buf))
		if _, err := in.next(m); err != nil {
			return err
		}
		n -= m
	}
	return nil
}

// ended says that the next byte begins a frame.
func (in *input) ended() {
	in.mid = false
	if in.since.Load() != 0 {
		in.since.Store(0)
	}
}

func (in *input) read(p []byte) (int, error) {
	if (in.mid || in.ready() > 0) && in.since.Load() == 0 {
		in.since.Store(clock())
	}
	in.dry()
	n, err := in.link.conn.Read(p)
	if n > 0 {
		in.heard.Add(1)
		return n, nil
	}
	return 0, err
}
