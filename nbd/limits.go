package nbd

import (
	"errors"
	"fmt"
	"time"
)

// Limits bound what clients can make the server hold (rule P5). The zero
// value of a field is its default.
//
// The most memory that clients can pin is
//
//	ServerBytes + Connections x (1 MiB + 2 x 256 KiB + ReplyBytes + 256 KiB + 72 KiB) + IdleBytes
//
// The 1 MiB is what a connection may always have in flight, whatever others hold, so that
// it never stands still. Twice 256 KiB are the receive and the reply buffer, which a
// connection holds only while it is at work. The last 256 KiB are structures and stacks, and
// the 72 KiB are for TLS, from STARTTLS on.
// Stats.Held counts all of it as it comes and goes.
type Limits struct {
	// Connections is how many clients may be connected. Any other is told so, and
	// hung up on. Default 1024. A quarter is kept for clients on this machine, by unix
	// sockets and as Resenders; a sixteenth for Resenders alone. The listeners of
	// networks share the rest in equal parts. If no place is left, the oldest client
	// that has not finished its handshake makes room, unless it came less than
	// HandshakeGrace ago.
	Connections int

	// Address is how many connections one network address may have; of IPv6, a network
	// of 64 bits. Default half of what all networks may have together.
	Address int

	// Requests is how many blocking requests one connection may have in
	// flight. At the limit the connection is not read from. Default 256.
	Requests int

	// RequestBytes is how many payload bytes they may have, per connection;
	// at least 32 MiB + 4 KiB. Default 64 MiB.
	RequestBytes int64

	// ServerBytes bounds what all connections hold together, apart from what each may
	// always have; at least RequestBytes. Default 1 GiB. A connection, and all of one
	// address together, may have as much as they leave free.
	ServerBytes int64

	// ReplyBytes is how many bytes of replies, other than payloads of their own, may
	// wait for a client that does not read. Default 1 MiB.
	ReplyBytes int

	// IdleBytes is how much of free buffers is kept for later requests.
	// Default 64 MiB.
	IdleBytes int64

	// HandshakeTimeout ends a handshake that takes longer, that of TLS included. Default 10 s.
	HandshakeTimeout time.Duration

	// HandshakeGrace is how long a new client may stay in its handshake before it can
	// be sent away for others. It should be as long as an honest handshake takes, and
	// not longer: for that time whoever fills all places keeps others out. Default 20 ms.
	HandshakeGrace time.Duration

	// StallTimeout ends a connection if, for this time, its client sends a request that
	// it has begun, or takes its replies, at less than Rate. Default 60 s.
	StallTimeout time.Duration

	// Rate is the least that such a client must move, in bytes a second. Default 16 KiB.
	// Through a unix socket it may have to take replies faster, with the defaults at up
	// to 26 KiB a second: Linux shows the server that some were taken, and lets it send
	// more, only when three quarters of the socket's buffer (2 MiB) are empty.
	Rate int64

	// RangeTime is how long a BLOCK_STATUS or CACHE over more than 4 GiB may take. It
	// is then answered with what was found, and the client asks again for the rest.
	// Default 500 ms.
	RangeTime time.Duration

	// DrainTimeout is how long requests in flight may take to finish once
	// the client is gone or the server closes. Then they are cancelled.
	// Default 30 s.
	DrainTimeout time.Duration
}

const (
	maxOption     = 64 << 10  // longest option payload
	maxOptionSkip = 1 << 20   // longest that is read and answered with TOO_BIG
	maxName       = 4096      // longest export name, by the protocol
	maxQueries    = 1024      // metadata queries in one option
	maxSkip       = 128 << 20 // longest refused WRITE payload that is read away

	ioBuffer    = 256 << 10 // receive and reply buffer
	ownPayload  = 64 << 10  // a WRITE at least this long may get a buffer of its own
	readChain   = 8         // READs that one worker waits for, one after the other
	inlineRead  = 64 << 10  // longest READ served by the reader itself
	headRead    = 4 << 10   // read so little when a large payload may follow
	roundMax    = 512       // requests that are answered together
	pieceMax    = 1 << 20   // longest WRITE that is given to the device as a whole
	firstBuffer = 64 << 10  // for a payload of which nothing is known yet
	floorBytes  = pieceMax  // what a connection may always have in flight
	narrowBytes = 256 << 10 // of a READ that does not get memory for all of its data
	maxStatus   = 32 << 10  // bytes of extents in one BLOCK_STATUS reply
	copyReplies = 4 << 10   // replies that are shorter do not keep a buffer until they are sent
	connBytes   = 4352      // measured: what a connection is counted for besides, its structures
	workerBytes = 1 << 10   // and a worker
	stackBytes  = 8 << 10   // and the goroutine of either
	tlsBytes    = 72 << 10  // and TLS
	helloMax    = 24 << 10  // what a client may send in the handshake of TLS, and later before there is something in it
	window      = 4 << 30   // bytes of a range that the device is asked about at once
	maxMessage  = 512       // bytes of an error message to a client
	idleWorkers = 256       // parked goroutines
	keepBytes   = 64 << 10  // reply memory that is kept for reuse, per task and queue
	idleTasks   = 16        // per connection that keep large scratch memory
)

func (l Limits) withDefaults() Limits {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	defInt := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	defTime := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	defInt(&l.Connections, 1024)
	defInt(&l.Address, max(1, l.remote()/2))
	def(&l.Rate, 16<<10)
	defInt(&l.Requests, 256)
	def(&l.RequestBytes, 64<<20)
	def(&l.ServerBytes, 1<<30)
	defInt(&l.ReplyBytes, 1<<20)
	def(&l.IdleBytes, 64<<20)
	defTime(&l.HandshakeTimeout, 10*time.Second)
	defTime(&l.HandshakeGrace, 20*time.Millisecond)
	defTime(&l.StallTimeout, 60*time.Second)
	defTime(&l.RangeTime, 500*time.Millisecond)
	defTime(&l.DrainTimeout, 30*time.Second)
	return l
}

// perStall is how many bytes must move within the stall time.
func (l Limits) perStall() uint64 {
	return max(1, uint64(float64(l.Rate)*l.StallTimeout.Seconds()))
}

// Validate reports every limit that cannot work.
func (l Limits) Validate() error {
	l = l.withDefaults()
	var errs []error
	atLeast := func(name string, v, floor int64) {
		if v < floor {
			errs = append(errs, fmt.Errorf("nbd: limit %s is %d; set it to at least %d", name, v, floor))
		}
	}
	atLeast("Connections", int64(l.Connections), 1)
	atLeast("Address", int64(l.Address), 1)
	atLeast("Rate", l.Rate, 1)
	atLeast("Requests", int64(l.Requests), 1)
	atLeast("RequestBytes", l.RequestBytes, MaxPayload)
	atLeast("ServerBytes", l.ServerBytes, l.RequestBytes)
	atLeast("ReplyBytes", int64(l.ReplyBytes), 4<<10)
	atLeast("IdleBytes", l.IdleBytes, 0)
	atLeast("HandshakeTimeout", int64(l.HandshakeTimeout), 1)
	atLeast("HandshakeGrace", int64(l.HandshakeGrace), 1)
	atLeast("StallTimeout", int64(l.StallTimeout), 1)
	atLeast("RangeTime", int64(l.RangeTime), 1)
	atLeast("DrainTimeout", int64(l.DrainTimeout), 1)
	return errors.Join(errs...)
}
