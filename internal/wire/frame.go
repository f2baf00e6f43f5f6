package wire

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"openvstorage/internal/format"
)

// Sizes of frames, in bytes.
const (
	headSize  = 48        // of a frame, before header and body
	HeaderMax = 64 << 10  // the longest header of a request or an answer
	BodyMax   = 32 << 20  // the longest body of a request or an answer
	pieceMax  = 256 << 10 // the longest part of a body in one frame
)

// frameMagic and frameVersion begin each frame.
const (
	frameMagic   = 0x574f // "OW"
	frameVersion = 1
)

// kind says what a frame is.
type kind uint8

const (
	kindRequest kind = 1 // with header, and the first piece of the body
	kindReply   kind = 2 // the same
	kindPiece   kind = 3 // of the body of the request or the reply with that id
	kindCancel  kind = 4 // by whoever asked: no answer is wanted; by whoever answers: no further piece comes
	kindWindow  kind = 5 // room for more: credit in bytes, the window in op
	kindPing    kind = 6
	kindPong    kind = 7
	kindGoodbye kind = 8 // no further request is taken; a code in op, words in the header
)

// flagSummed: the piece has a CRC of the wire's, as the body has none of its own.
const flagSummed = 1

// Priority is who a request is for. Its answer has the same.
type Priority uint8

// Priorities. Client traffic goes first; maintenance gets one frame for every eight batches.
const (
	Client      Priority = 0
	Maintenance Priority = 1

	priorities = 2
)

// head is the fixed part of a frame.
type head struct {
	kind      kind
	flags     uint8
	priority  Priority
	op        uint16 // operation of a request, status of a reply, code of a goodbye, number of a window
	id        uint64
	word      uint32 // deadline of a request in ms, 0: none; credit of a window
	header    uint32 // bytes of header behind the head
	body      uint32 // bytes of the whole body
	piece     uint32 // bytes of it in this frame, behind the header
	pieceSum  uint32 // CRC-32C of the piece, if flagSummed
	headerSum uint32 // CRC-32C of the header
}

// put writes the head into b, headSize bytes.
func (h *head) put(b []byte) {
	_ = b[headSize-1]
	le := binary.LittleEndian
	le.PutUint16(b, frameMagic)
	b[2], b[3] = frameVersion, byte(h.kind)
	le.PutUint16(b[4:], h.op)
	b[6], b[7] = h.flags, byte(h.priority)
	le.PutUint64(b[8:], h.id)
	le.PutUint32(b[16:], h.word)
	le.PutUint32(b[20:], h.header)
	le.PutUint32(b[24:], h.body)
	le.PutUint32(b[28:], h.piece)
	le.PutUint32(b[32:], h.pieceSum)
	le.PutUint32(b[36:], h.headerSum)
	le.PutUint32(b[40:], 0)
	le.PutUint32(b[44:], format.CRC(b[:44]))
}

// decodeHead reads the head of a frame from its headSize bytes, and checks all that can
// be known of it without knowing the connection. Errors match ErrProtocol or ErrChecksum;
// after either nothing that follows can be told apart.
func decodeHead(b []byte) (h head, err error) {
	_ = b[headSize-1]
	le := binary.LittleEndian
	if m := le.Uint16(b); m != frameMagic {
		return h, fmt.Errorf("%w: a frame begins with %#04x, not with its magic", ErrProtocol, m)
	}
	if got, want := format.CRC(b[:44]), le.Uint32(b[44:]); got != want {
		return h, fmt.Errorf("%w: head of a frame: it is %08x, not %08x", ErrChecksum, got, want)
	}
	h = head{
		kind: kind(b[3]), op: le.Uint16(b[4:]), flags: b[6], priority: Priority(b[7]), id: le.Uint64(b[8:]), word: le.Uint32(b[16:]),
		header: le.Uint32(b[20:]), body: le.Uint32(b[24:]), piece: le.Uint32(b[28:]), pieceSum: le.Uint32(b[32:]), headerSum: le.Uint32(b[36:]),
	}
	return h, h.check(b[2], le.Uint32(b[40:]))
}

func (h *head) check(version byte, reserved uint32) error {
	switch {
	case version != frameVersion:
		return fmt.Errorf("%w: a frame of version %d on a connection of version %d", ErrProtocol, version, frameVersion)
	case h.kind < kindRequest || h.kind > kindGoodbye:
		return fmt.Errorf("%w: a frame of kind %d, which this release does not know", ErrProtocol, h.kind)
	case h.priority >= priorities:
		return fmt.Errorf("%w: frame %d has priority %d", ErrProtocol, h.id, h.priority)
	case h.flags&^flagSummed != 0 || reserved != 0:
		return fmt.Errorf("%w: frame %d has flags %#x and %#x where this version has zero", ErrProtocol, h.id, h.flags, reserved)
	case h.header > HeaderMax:
		return fmt.Errorf("%w: %w: frame %d has a header of %d bytes, at most %d may be", ErrProtocol, ErrTooLarge, h.id, h.header, HeaderMax)
	case h.body > BodyMax:
		return fmt.Errorf("%w: %w: frame %d has a body of %d bytes, at most %d may be", ErrProtocol, ErrTooLarge, h.id, h.body, BodyMax)
	case h.piece > pieceMax || h.piece > h.body:
		return fmt.Errorf("%w: frame %d brings %d bytes of a body of %d; a piece has at most %d", ErrProtocol, h.id, h.piece, h.body, pieceMax)
	}
	switch h.kind {
	case kindRequest, kindReply:
		if h.body > 0 && h.piece == 0 {
			return fmt.Errorf("%w: frame %d brings nothing of its body", ErrProtocol, h.id)
		}
	case kindPiece:
		if h.piece == 0 || h.header != 0 {
			return fmt.Errorf("%w: a piece of the body of %d with %d bytes and a header of %d", ErrProtocol, h.id, h.piece, h.header)
		}
	default:
		if h.body != 0 || h.header != 0 && h.kind != kindGoodbye {
			return fmt.Errorf("%w: a frame of kind %d with a header of %d bytes and a body of %d", ErrProtocol, h.kind, h.header, h.body)
		}
	}
	return nil
}

// The four windows of a direction: one for each priority, and in it one for what is
// small, so that it never waits behind what is large.
const (
	windows  = 2 * priorities
	smallMax = 64 << 10 // the highest charge of a small message
	overhead = 256      // what a message is charged besides its bytes
)

// charge is what a message takes of its window, and which window that is.
func (h *head) charge() (window int, bytes int64) {
	bytes = overhead + int64(h.header) + int64(h.body)
	window = 2 * int(h.priority)
	if bytes > smallMax {
		window++
	}
	return window, bytes
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sumOf is the CRC-32C of slices one after the other.
func sumOf(pieces [][]byte) (sum uint32) {
	for _, p := range pieces {
		sum = crc32.Update(sum, castagnoli, p)
	}
	return sum
}

// milliseconds is how long there is until ctx's deadline, as the wire says it: 0 is for
// ever.
func milliseconds(ctx context.Context) (uint32, error) {
	at, ok := ctx.Deadline()
	if !ok {
		return 0, nil
	}
	left := time.Until(at)
	if left <= 0 {
		return 0, context.DeadlineExceeded
	}
	if left > math.MaxUint32*time.Millisecond {
		return 0, nil
	}
	return uint32((left + time.Millisecond - 1) / time.Millisecond), nil
}
