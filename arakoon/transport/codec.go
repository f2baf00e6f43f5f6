package transport

import (
	"encoding/binary"
	"fmt"
	"math"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// version is that of headers and bodies. A receiver refuses a newer one.
const version = 1

// Operations.
const (
	opMessages     = 1
	opSnapshotList = 2
	opSnapshotRead = 3
)

// Bounds of a request.
const (
	messagesMax = 1024
	entriesMax  = 1 << 17 // each takes 200 bytes of memory once it is decoded
	headerSize  = 32
	// copyMax is the longest data of an entry that is copied behind its head; longer data is
	// sent from where it lies.
	copyMax = 4 << 10
)

// stream says in which order messages are delivered.
type stream uint8

const (
	urgent  stream = 0 // as they come
	ordered stream = 1 // as they were sent
)

// header is that of a request with messages.
type header struct {
	stream   stream
	count    int
	run      uint32
	number   uint64
	from, to uint64
}

func (h *header) append(dst []byte) []byte {
	le := binary.LittleEndian
	dst = append(dst, version, byte(h.stream))
	dst = le.AppendUint16(dst, uint16(h.count))
	dst = le.AppendUint32(dst, h.run)
	dst = le.AppendUint64(dst, h.number)
	dst = le.AppendUint64(dst, h.from)
	return le.AppendUint64(dst, h.to)
}

// decodeHeader reads the header of a request with messages.
func decodeHeader(b []byte) (h header, err error) {
	if len(b) > 0 && b[0] > version {
		return h, fmt.Errorf("version %d is %w; upgrade this host", b[0], ErrNewer)
	}
	if len(b) != headerSize || b[0] != version {
		return h, fmt.Errorf("%w: a header of %d bytes", ErrCorrupt, len(b))
	}
	le := binary.LittleEndian
	h = header{stream(b[1]), int(le.Uint16(b[2:])), le.Uint32(b[4:]), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])}
	switch {
	case h.stream > ordered || h.count < 1 || h.count > messagesMax:
		return h, fmt.Errorf("%w: %d messages of stream %d", ErrCorrupt, h.count, h.stream)
	case (h.stream == ordered) != (h.run > 0) || h.stream == urgent && h.number != 0:
		return h, fmt.Errorf("%w: number %d of run %d in stream %d", ErrCorrupt, h.number, h.run, h.stream)
	}
	return h, nil
}

// sizeOf is about how many bytes a message takes, without counting them one by one.
func sizeOf(m *pb.Message) int64 {
	n := int64(96 + len(m.Context))
	for _, e := range m.Entries {
		n += int64(32 + len(e.Data))
	}
	if m.Snapshot != nil {
		n += int64(256 + len(m.Snapshot.Data))
	}
	return n
}

// encoder makes a body: pieces one after the other, of which long data is not a copy.
type encoder struct {
	pieces [][]byte
	buf    []byte // has room for all that is copied
	from   int    // what of buf is no piece yet
}

// encode makes the body of a request. Messages and the data of their entries must not be
// changed for as long as the body is used.
func encode(messages []*pb.Message) (pieces [][]byte, size int, err error) {
	var e encoder
	sizes := make([]int, len(messages))
	copied := 0
	for i, m := range messages {
		n, long, err := messageSize(m)
		if err != nil {
			return nil, 0, err
		}
		sizes[i] = n
		copied += 4 + n - long
		size += 4 + n
	}
	e.buf = make([]byte, 0, copied)
	for i, m := range messages {
		e.buf = binary.LittleEndian.AppendUint32(e.buf, uint32(sizes[i]))
		if err := e.message(m); err != nil {
			return nil, 0, err
		}
	}
	e.cut()
	return e.pieces, size, nil
}

// messageSize is the length of a message as protobuf, and how much of it is long data.
func messageSize(m *pb.Message) (size, long int, err error) {
	if len(m.Responses) > 0 {
		return 0, 0, fmt.Errorf("a message of type %v has responses: it is for this member itself", m.GetType())
	}
	if m.Type != nil {
		size += varintSize(1, uint64(m.GetType()))
	}
	for _, f := range scalars(m) {
		if f.v != nil {
			size += varintSize(f.num, *f.v)
		}
	}
	if m.Reject != nil {
		size += varintSize(10, 0)
	}
	if m.Context != nil {
		size += protowire.SizeTag(12) + protowire.SizeBytes(len(m.Context))
	}
	for _, e := range m.Entries {
		n := entrySize(e)
		size += protowire.SizeTag(7) + protowire.SizeBytes(n)
		if len(e.Data) > copyMax {
			long += len(e.Data)
		}
	}
	if m.Snapshot != nil {
		size += protowire.SizeTag(9) + protowire.SizeBytes(proto.Size(m.Snapshot))
	}
	if size > math.MaxInt32 {
		return 0, 0, fmt.Errorf("a message of %d bytes", size)
	}
	return size, long, nil
}

// scalar is a field with a number, of which the value may be absent.
type scalar struct {
	num protowire.Number
	v   *uint64
}

// scalars are a message's fields that are plain numbers.
func scalars(m *pb.Message) [8]scalar {
	return [8]scalar{{2, m.To}, {3, m.From}, {4, m.Term}, {5, m.LogTerm}, {6, m.Index}, {8, m.Commit}, {11, m.RejectHint}, {13, m.Vote}}
}

func varintSize(num protowire.Number, v uint64) int {
	return protowire.SizeTag(num) + protowire.SizeVarint(v)
}

func entrySize(e *pb.Entry) (n int) {
	if e.Type != nil {
		n += varintSize(1, uint64(e.GetType()))
	}
	if e.Term != nil {
		n += varintSize(2, *e.Term)
	}
	if e.Index != nil {
		n += varintSize(3, *e.Index)
	}
	if e.Data != nil {
		n += protowire.SizeTag(4) + protowire.SizeBytes(len(e.Data))
	}
	return n
}

func (e *encoder) varint(num protowire.Number, v uint64) {
	e.buf = protowire.AppendVarint(protowire.AppendTag(e.buf, num, protowire.VarintType), v)
}

func (e *encoder) length(num protowire.Number, n int) {
	e.buf = protowire.AppendVarint(protowire.AppendTag(e.buf, num, protowire.BytesType), uint64(n))
}

// message appends a message, its fields in the order of their numbers.
func (e *encoder) message(m *pb.Message) error {
	fields := scalars(m)
	numbers := func(to protowire.Number) {
		for i, f := range fields {
			if f.num < to && f.v != nil {
				e.varint(f.num, *f.v)
				fields[i].v = nil
			}
		}
	}
	if m.Type != nil {
		e.varint(1, uint64(m.GetType()))
	}
	numbers(7)
	for _, entry := range m.Entries {
		e.length(7, entrySize(entry))
		e.entry(entry)
	}
	numbers(9)
	if m.Snapshot != nil {
		e.length(9, proto.Size(m.Snapshot))
		var err error
		if e.buf, err = (proto.MarshalOptions{Deterministic: true}).MarshalAppend(e.buf, m.Snapshot); err != nil {
			return fmt.Errorf("snapshot of a message: %w", err)
		}
	}
	if m.Reject != nil {
		e.varint(10, protowire.EncodeBool(*m.Reject))
	}
	numbers(12)
	if m.Context != nil {
		e.length(12, len(m.Context))
		e.buf = append(e.buf, m.Context...)
	}
	numbers(14)
	return nil
}

func (e *encoder) entry(p *pb.Entry) {
	if p.Type != nil {
		e.varint(1, uint64(p.GetType()))
	}
	if p.Term != nil {
		e.varint(2, *p.Term)
	}
	if p.Index != nil {
		e.varint(3, *p.Index)
	}
	if p.Data == nil {
		return
	}
	e.length(4, len(p.Data))
	if len(p.Data) <= copyMax {
		e.buf = append(e.buf, p.Data...)
		return
	}
	e.cut()
	e.pieces = append(e.pieces, p.Data)
}

// cut makes a piece of what was copied since the last one.
func (e *encoder) cut() {
	if len(e.buf) > e.from {
		e.pieces = append(e.pieces, e.buf[e.from:len(e.buf):len(e.buf)])
		e.from = len(e.buf)
	}
}
