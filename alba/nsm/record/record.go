package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"openvstorage/internal/format"
)

// Errors of Encode and Decode. ErrCorrupt: the bytes are not a whole record.
// ErrNewer: a newer release wrote it. ErrTooLarge: a value exceeds a bound of
// its format.
var (
	ErrCorrupt  = errors.New("corrupt record")
	ErrNewer    = fmt.Errorf("record: %w", format.ErrNewer)
	ErrTooLarge = errors.New("record too large")
)

// Record is what can be encoded: Fields calls one method of the codec for
// each of its fields, in order.
type Record interface {
	Fields(c *Codec)
}

// Versioned is a record of a type that has had more than one version. Every other record is
// of version 1. Needs is the oldest version that has room for the value, and the version
// that it is written in: an older release can read all records that do not use what is new.
// Newest is the highest version that this release reads.
type Versioned interface {
	Record
	Needs() uint8
	Newest() uint8
}

// Needs is the version that r is written in.
func Needs(r Record) uint8 {
	if v, ok := r.(Versioned); ok {
		return v.Needs()
	}
	return 1
}

// Newest is the highest version of r's type that this release reads.
func Newest(r Record) uint8 {
	if v, ok := r.(Versioned); ok {
		return v.Newest()
	}
	return 1
}

// Codec passes over the fields of a record, and appends them or fills them. After its first
// error, calls do nothing. Fields must not keep it.
type Codec struct {
	buf      []byte // appended to, or what is left to read
	decoding bool
	version  uint8
	err      error
}

// Encode returns the bytes of r. The error is ErrTooLarge.
func Encode(version uint8, r Record) (b []byte, err error) {
	err = With(version, r, func(raw []byte) { b = append(make([]byte, 0, len(raw)), raw...) })
	return b, err
}

// With calls use with the bytes of r, which are valid until it returns. The
// error is ErrTooLarge.
func With(version uint8, r Record, use func(b []byte)) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	b, err := Append((*buf)[:0], version, r)
	if err != nil {
		return err
	}
	if cap(b) <= bufferMax {
		*buf = b
	}
	use(b)
	return nil
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// bufferMax is the size in bytes above which a buffer is not kept.
const bufferMax = 256 << 10

// Append appends the bytes of r to dst. The error is ErrTooLarge.
func Append(dst []byte, version uint8, r Record) ([]byte, error) {
	c := codecs.Get().(*Codec)
	defer c.free()
	c.buf, c.version = append(dst, version), version
	r.Fields(c)
	if c.err != nil {
		return nil, c.err
	}
	return c.buf, nil
}

// codecs are Codecs for Append and Decode. Without the pool one would be allocated for each
// record, because Fields is a method of an interface.
var codecs = sync.Pool{New: func() any { return new(Codec) }}

func (c *Codec) free() {
	*c = Codec{}
	codecs.Put(c)
}

// Decode fills r from b, which holds nothing else. newest is the highest version that is
// read, from 1 on. Slices of bytes in r are copies. After an error r holds nothing of use.
func Decode(b []byte, newest uint8, r Record) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: no bytes", ErrCorrupt)
	}
	if b[0] > newest {
		return fmt.Errorf("%w: version %d, this release reads up to %d", ErrNewer, b[0], newest)
	}
	if b[0] == 0 {
		return fmt.Errorf("%w: version 0 does not exist", ErrCorrupt)
	}
	c := codecs.Get().(*Codec)
	defer c.free()
	c.buf, c.decoding, c.version = b[1:], true, b[0]
	r.Fields(c)
	if c.err != nil {
		return c.err
	}
	if len(c.buf) != 0 {
		return fmt.Errorf("%w: %d bytes are left over", ErrCorrupt, len(c.buf))
	}
	if v, ok := r.(Versioned); ok && v.Needs() != b[0] {
		return fmt.Errorf("%w: version %d where version %d has room for all of it", ErrCorrupt, b[0], v.Needs())
	}
	return nil
}

// Version is that of the record whose fields are passed.
func (c *Codec) Version() uint8 { return c.version }

// Decoding reports whether fields are being filled.
func (c *Codec) Decoding() bool { return c.decoding }

func (c *Codec) fail(err error, msg string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s", err, fmt.Sprintf(msg, args...))
	}
}

// take returns the next n bytes to read, or nil after an error.
func (c *Codec) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	if len(c.buf) < n {
		c.fail(ErrCorrupt, "it ends %d bytes early", n-len(c.buf))
		return nil
	}
	b := c.buf[:n]
	c.buf = c.buf[n:]
	return b
}

// U8 passes a byte.
func (c *Codec) U8(v *uint8) {
	if !c.decoding {
		c.buf = append(c.buf, *v)
	} else if b := c.take(1); b != nil {
		*v = b[0]
	}
}

// Enum passes a byte that is one of first to last; what names it in errors. A byte above
// last is ErrNewer: whatever it means in a newer release, it must not be taken for one of
// these. Only decoding checks the byte.
func (c *Codec) Enum(v *uint8, first, last uint8, what string) {
	c.U8(v)
	switch {
	case !c.decoding || c.err != nil || *v >= first && *v <= last:
	case *v > last:
		c.fail(ErrNewer, "%s %d, this release knows up to %d", what, *v, last)
	default:
		c.fail(ErrCorrupt, "%s %d does not exist", what, *v)
	}
}

// Bool passes a truth value.
func (c *Codec) Bool(v *bool) {
	var b uint8
	if *v {
		b = 1
	}
	c.U8(&b)
	if b > 1 {
		c.fail(ErrCorrupt, "%d where 0 or 1 belongs", b)
	}
	*v = b == 1
}

// U16 passes two bytes.
func (c *Codec) U16(v *uint16) {
	if !c.decoding {
		c.buf = binary.LittleEndian.AppendUint16(c.buf, *v)
	} else if b := c.take(2); b != nil {
		*v = binary.LittleEndian.Uint16(b)
	}
}

// U32 passes four bytes.
func (c *Codec) U32(v *uint32) {
	if !c.decoding {
		c.buf = binary.LittleEndian.AppendUint32(c.buf, *v)
	} else if b := c.take(4); b != nil {
		*v = binary.LittleEndian.Uint32(b)
	}
}

// U64 passes eight bytes.
func (c *Codec) U64(v *uint64) {
	if !c.decoding {
		c.buf = binary.LittleEndian.AppendUint64(c.buf, *v)
	} else if b := c.take(8); b != nil {
		*v = binary.LittleEndian.Uint64(b)
	}
}

// Time passes a time in nanoseconds since 1970.
func (c *Codec) Time(v *int64) {
	u := uint64(*v)
	c.U64(&u)
	*v = int64(u)
}

// ID passes 16 bytes.
func (c *Codec) ID(v *[16]byte) { c.fixed(v[:]) }

// Hash passes 32 bytes.
func (c *Codec) Hash(v *[32]byte) { c.fixed(v[:]) }

func (c *Codec) fixed(v []byte) {
	if !c.decoding {
		c.buf = append(c.buf, v...)
		return
	}
	copy(v, c.take(len(v)))
}

// Bytes passes up to limit bytes. No bytes decode as nil.
func (c *Codec) Bytes(v *[]byte, limit int) {
	n := c.length(len(*v), limit, 1)
	if !c.decoding {
		c.buf = append(c.buf, *v...)
		return
	}
	*v = nil
	if b := c.take(n); len(b) > 0 {
		*v = append([]byte(nil), b...)
	}
}

// String passes a string of up to limit bytes.
func (c *Codec) String(v *string, limit int) {
	n := c.length(len(*v), limit, 1)
	if !c.decoding {
		c.buf = append(c.buf, *v...)
		return
	}
	*v = string(c.take(n))
}

// length passes a count of elements that take at least size bytes each.
func (c *Codec) length(have, limit, size int) int {
	n := uint32(have)
	if !c.decoding && have > limit {
		c.fail(ErrTooLarge, "%d exceeds %d", have, limit)
	}
	c.U32(&n)
	switch {
	case c.err != nil:
		return 0
	case int64(n) > int64(limit):
		c.fail(ErrCorrupt, "a count of %d exceeds %d", n, limit)
		return 0
	case c.decoding && int64(n)*int64(size) > int64(len(c.buf)):
		c.fail(ErrCorrupt, "a count of %d with %d bytes left", n, len(c.buf))
		return 0
	}
	return int(n)
}

// List passes up to limit elements, each with one call of element. An element
// takes at least one byte. No elements decode as nil.
func List[T any](c *Codec, v *[]T, limit int, element func(c *Codec, e *T)) {
	n := c.length(len(*v), limit, 1)
	if c.decoding {
		*v = nil
		if n > 0 {
			*v = make([]T, n)
		}
	}
	for i := range n {
		if c.err != nil {
			return
		}
		element(c, &(*v)[i])
	}
}

// Encoded appends a record that was encoded by itself, without its version. It is for
// encoding only: decoding passes over the record's fields.
func (c *Codec) Encoded(b []byte) {
	if !c.decoding {
		c.buf = append(c.buf, b...)
	} else {
		c.fail(ErrCorrupt, "an encoded record is decoded by its fields")
	}
}

// EncodeFields returns the bytes of r without its version, for Encoded. The
// error is ErrTooLarge.
func EncodeFields(r Record) (b []byte, err error) {
	err = With(Needs(r), r, func(raw []byte) { b = append(make([]byte, 0, len(raw)), raw[1:]...) })
	return b, err
}

// Strings passes up to limit strings of up to size bytes each.
func Strings(c *Codec, v *[]string, limit, size int) {
	List(c, v, limit, func(c *Codec, s *string) { c.String(s, size) })
}

// Records passes up to limit records.
func Records[T any, R interface {
	*T
	Record
}](c *Codec, v *[]T, limit int) {
	List(c, v, limit, func(c *Codec, e *T) { R(e).Fields(c) })
}
