package genl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// A message, in the byte order of the machine:
//
//	 0  4  length of all of it
//	 4  2  type: the number of the family, or one of those below 16
//	 6  2  flags
//	 8  4  seq: that of the question, in its answers
//	12  4  port: of the asker, 0 for the kernel
//	16  1  command
//	17  1  version of the family
//	18  2  zero
//	20     attributes
//
// An attribute begins at a multiple of 4 bytes:
//
//	0  2  length of it, without what pads it
//	2  2  type; 0x8000 is set on one that holds attributes
//	4     value
//
// A message of type 2 answers a question: from 16 on it has 4 bytes, an errno
// made negative or 0 for done, and the question's first 16 bytes.
const (
	headLen    = 16
	commandLen = headLen + 4
	attrLen    = 4
	errorLen   = headLen + 4

	typeError = 2 // those below 16 are of netlink itself

	flagRequest = 1
	flagAck     = 4

	nested   = 0x8000
	typeMask = 0x3fff
)

var order = binary.NativeEndian

// Message is one message. Of an answer without a command, Errno is what became
// of the question.
type Message struct {
	Type    uint16
	Flags   uint16
	Seq     uint32
	Port    uint32
	Command uint8
	Version uint8
	Attrs   []byte
	Errno   int32 // of an answer of type 2; 0: done
}

// ErrMalformed is the error of bytes that are no messages or attributes.
var ErrMalformed = errors.New("malformed netlink message")

// Append appends a message with a command.
func Append(b []byte, m Message) []byte {
	b = order.AppendUint32(b, uint32(commandLen+len(m.Attrs)))
	b = order.AppendUint16(b, m.Type)
	b = order.AppendUint16(b, m.Flags)
	b = order.AppendUint32(b, m.Seq)
	b = order.AppendUint32(b, m.Port)
	b = append(b, m.Command, m.Version, 0, 0)
	return append(b, m.Attrs...)
}

// Decode reads the first message of what one read has brought. Attrs is a part
// of b.
func Decode(b []byte) (m Message, rest []byte, err error) {
	if len(b) < headLen {
		return Message{}, nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	n := uint64(order.Uint32(b))
	m = Message{Type: order.Uint16(b[4:]), Flags: order.Uint16(b[6:]), Seq: order.Uint32(b[8:]), Port: order.Uint32(b[12:])}
	if n < headLen || n > uint64(len(b)) {
		return Message{}, nil, fmt.Errorf("%w: of %d bytes in %d", ErrMalformed, n, len(b))
	}
	body := b[headLen:n]
	switch {
	case m.Type == typeError && len(body) < errorLen-headLen, m.Type >= 16 && len(body) < commandLen-headLen:
		return Message{}, nil, fmt.Errorf("%w: type %d of %d bytes", ErrMalformed, m.Type, n)
	case m.Type == typeError:
		m.Errno = -int32(order.Uint32(body))
		if m.Errno < 0 {
			return Message{}, nil, fmt.Errorf("%w: error %d", ErrMalformed, m.Errno)
		}
	case m.Type >= 16:
		m.Command, m.Version, m.Attrs = body[0], body[1], body[4:]
	}
	return m, b[min(pad(int(n)), len(b)):], nil
}

func pad(n int) int { return (n + 3) &^ 3 }

// Attr is one attribute. Value is a part of the message.
type Attr struct {
	Type  uint16
	Value []byte
}

// Attrs reads all attributes of a message, or of an attribute that holds some.
func Attrs(b []byte) (list []Attr, err error) {
	for len(b) > 0 {
		if len(b) < attrLen {
			return nil, fmt.Errorf("%w: %d bytes after the attributes", ErrMalformed, len(b))
		}
		n := int(order.Uint16(b))
		if n < attrLen || n > len(b) {
			return nil, fmt.Errorf("%w: attribute of %d bytes in %d", ErrMalformed, n, len(b))
		}
		list = append(list, Attr{order.Uint16(b[2:]) & typeMask, b[attrLen:n]})
		b = b[min(pad(n), len(b)):]
	}
	return list, nil
}

// Uint32 is the value as a number.
func (a Attr) Uint32() (uint32, error) {
	if len(a.Value) != 4 {
		return 0, fmt.Errorf("%w: attribute %d has %d bytes, not 4", ErrMalformed, a.Type, len(a.Value))
	}
	return order.Uint32(a.Value), nil
}

// Uint16 is the value as a number.
func (a Attr) Uint16() (uint16, error) {
	if len(a.Value) != 2 {
		return 0, fmt.Errorf("%w: attribute %d has %d bytes, not 2", ErrMalformed, a.Type, len(a.Value))
	}
	return order.Uint16(a.Value), nil
}

// Uint8 is the value as a number.
func (a Attr) Uint8() (uint8, error) {
	if len(a.Value) != 1 {
		return 0, fmt.Errorf("%w: attribute %d has %d bytes, not 1", ErrMalformed, a.Type, len(a.Value))
	}
	return a.Value[0], nil
}

// String is the value as text, up to the zero byte that ends it.
func (a Attr) String() string {
	text, _, _ := bytes.Cut(a.Value, []byte{0})
	return string(text)
}

// AppendUint8 appends an attribute with a number of 1 byte.
func AppendUint8(b []byte, typ uint16, v uint8) []byte {
	return appendAttr(b, typ, []byte{v})
}

// AppendUint16 appends an attribute with a number of 2 bytes.
func AppendUint16(b []byte, typ, v uint16) []byte {
	return appendAttr(b, typ, order.AppendUint16(nil, v))
}

// AppendUint32 appends an attribute with a number of 4 bytes.
func AppendUint32(b []byte, typ uint16, v uint32) []byte {
	return appendAttr(b, typ, order.AppendUint32(nil, v))
}

// AppendUint64 appends an attribute with a number of 8 bytes.
func AppendUint64(b []byte, typ uint16, v uint64) []byte {
	return appendAttr(b, typ, order.AppendUint64(nil, v))
}

// AppendString appends an attribute with text, which a zero byte ends.
func AppendString(b []byte, typ uint16, s string) []byte {
	return appendAttr(b, typ, append([]byte(s), 0))
}

// AppendNested appends an attribute that holds attributes.
func AppendNested(b []byte, typ uint16, attrs []byte) []byte {
	return appendAttr(b, typ|nested, attrs)
}

// appendAttr appends an attribute. What this program sends is far shorter than
// what the length of one can say; a longer one is a mistake in the program.
func appendAttr(b []byte, typ uint16, value []byte) []byte {
	if attrLen+len(value) > math.MaxUint16 {
		panic(fmt.Sprintf("genl: attribute %d of %d bytes", typ, len(value)))
	}
	b = order.AppendUint16(b, uint16(attrLen+len(value)))
	b = order.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, pad(len(value))-len(value))...)
}
