package transport

import (
	"encoding/binary"
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// decode reads the body of a request with count messages. What it returns refers to body.
// Fields that this release does not know are passed over, as protobuf has it.
func decode(body []byte, count int) ([]*pb.Message, error) {
	messages := make([]*pb.Message, 0, min(count, len(body)/4))
	entries := entriesMax
	for len(body) > 0 {
		if len(messages) == count {
			return nil, fmt.Errorf("%w: more than the %d messages that it tells of", ErrCorrupt, count)
		}
		if len(body) < 4 || uint64(binary.LittleEndian.Uint32(body)) > uint64(len(body)-4) {
			return nil, fmt.Errorf("%w: it ends within message %d", ErrCorrupt, len(messages))
		}
		n := int(binary.LittleEndian.Uint32(body))
		m, err := decodeMessage(body[4:4+n], &entries)
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", len(messages), err)
		}
		messages = append(messages, m)
		body = body[4+n:]
	}
	if len(messages) != count {
		return nil, fmt.Errorf("%w: %d of %d messages", ErrCorrupt, len(messages), count)
	}
	return messages, nil
}

// boxed is a message with room for its fields, so that it is one piece of memory.
type boxed struct {
	m      pb.Message
	kind   pb.MessageType
	reject bool
	n      [8]uint64
}

// fields calls f for each field of a message: with the value of a varint, or with the bytes.
// Of another type f is not called.
func fields(b []byte, f func(num protowire.Number, typ protowire.Type, v uint64, data []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", ErrCorrupt, protowire.ParseError(n))
		}
		b = b[n:]
		var v uint64
		var data []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			data, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("%w: field %d: %w", ErrCorrupt, num, protowire.ParseError(n))
		}
		b = b[n:]
		if typ == protowire.VarintType || typ == protowire.BytesType {
			if err := f(num, typ, v, data); err != nil {
				return err
			}
		}
	}
	return nil
}

// decodeMessage reads a message of up to *entries entries, and takes theirs off.
func decodeMessage(b []byte, entries *int) (*pb.Message, error) {
	many, err := countEntries(b)
	if err != nil {
		return nil, err
	}
	if *entries -= many; *entries < 0 {
		return nil, fmt.Errorf("%w: more than %d entries", ErrCorrupt, entriesMax)
	}
	box := new(boxed)
	m := &box.m
	slab := make([]boxedEntry, many)
	if many > 0 {
		m.Entries = make([]*pb.Entry, 0, many)
	}
	err = fields(b, func(num protowire.Number, typ protowire.Type, v uint64, data []byte) error {
		if typ == protowire.VarintType {
			box.number(num, v)
			return nil
		}
		switch num {
		case 7:
			e := &slab[len(m.Entries)]
			m.Entries = append(m.Entries, &e.e)
			return e.decode(data)
		case 9:
			if m.Snapshot == nil {
				m.Snapshot = new(pb.Snapshot)
			}
			if err := (proto.UnmarshalOptions{Merge: true}).Unmarshal(data, m.Snapshot); err != nil {
				return fmt.Errorf("%w: snapshot: %w", ErrCorrupt, err)
			}
		case 12:
			m.Context = data[:len(data):len(data)]
		case 14:
			return fmt.Errorf("%w: it has responses, which are never another member's", ErrCorrupt)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

func countEntries(b []byte) (n int, err error) {
	err = fields(b, func(num protowire.Number, typ protowire.Type, _ uint64, _ []byte) error {
		if num == 7 && typ == protowire.BytesType {
			n++
		}
		return nil
	})
	return n, err
}

// number takes a field that is a number.
func (b *boxed) number(num protowire.Number, v uint64) {
	m := &b.m
	set := func(i int, to **uint64) { b.n[i] = v; *to = &b.n[i] }
	switch num {
	case 1:
		b.kind = pb.MessageType(v)
		m.Type = &b.kind
	case 2:
		set(0, &m.To)
	case 3:
		set(1, &m.From)
	case 4:
		set(2, &m.Term)
	case 5:
		set(3, &m.LogTerm)
	case 6:
		set(4, &m.Index)
	case 8:
		set(5, &m.Commit)
	case 10:
		b.reject = protowire.DecodeBool(v)
		m.Reject = &b.reject
	case 11:
		set(6, &m.RejectHint)
	case 13:
		set(7, &m.Vote)
	}
}

// boxedEntry is an entry with room for its fields.
type boxedEntry struct {
	e           pb.Entry
	kind        pb.EntryType
	term, index uint64
}

func (b *boxedEntry) decode(data []byte) error {
	return fields(data, func(num protowire.Number, typ protowire.Type, v uint64, data []byte) error {
		switch {
		case typ == protowire.BytesType && num == 4:
			b.e.Data = data[:len(data):len(data)]
		case typ != protowire.VarintType:
		case num == 1:
			b.kind = pb.EntryType(v)
			b.e.Type = &b.kind
		case num == 2:
			b.term = v
			b.e.Term = &b.term
		case num == 3:
			b.index = v
			b.e.Index = &b.index
		}
		return nil
	})
}
