package trust

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"

	"openvstorage/internal/format"
)

// cutter takes fields off bytes, little-endian. After the first fault it returns zeros,
// and keeps the fault.
type cutter struct {
	b   []byte
	err error
}

func (c *cutter) corrupt(text string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: "+text, append([]any{format.ErrCorrupt}, args...)...)
	}
}

func (c *cutter) newer(text string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: "+text, append([]any{format.ErrNewer}, args...)...)
	}
}

// cut returns the next n bytes, which are still the source's, or nil after a fault.
func (c *cutter) cut(n int, what string) []byte {
	if c.err == nil && len(c.b) < n {
		c.corrupt("%d bytes are left for %s of %d", len(c.b), what, n)
	}
	if c.err != nil {
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

func (c *cutter) u8(what string) uint8 {
	if b := c.cut(1, what); b != nil {
		return b[0]
	}
	return 0
}

func (c *cutter) u16(what string) uint16 {
	if b := c.cut(2, what); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (c *cutter) u32(what string) uint32 {
	if b := c.cut(4, what); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cutter) u64(what string) uint64 {
	if b := c.cut(8, what); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// fill fills an array.
func (c *cutter) fill(to []byte, what string) { copy(to, c.cut(len(to), what)) }

// small takes a length of one byte and so many bytes.
func (c *cutter) small(most int, what string) []byte { return c.sized(int(c.u8(what)), most, what) }

// large takes a length of two bytes and so many bytes.
func (c *cutter) large(most int, what string) []byte { return c.sized(int(c.u16(what)), most, what) }

func (c *cutter) sized(n, most int, what string) []byte {
	if n > most {
		c.corrupt("%s has %d bytes, at most %d", what, n, most)
	}
	return c.cut(n, what)
}

// names takes a count of one byte, and texts with lengths of one byte.
func (c *cutter) names(most, longest int, what string) []string {
	n := int(c.u8(what))
	if n > most {
		c.corrupt("%d of %s, at most %d", n, what, most)
	}
	var list []string
	for i := 0; i < n && c.err == nil; i++ {
		list = append(list, string(c.small(longest, what)))
	}
	return list
}

// moment takes seconds since 1970; 0 is no time.
func (c *cutter) moment(what string) time.Time {
	s := int64(c.u64(what))
	if s == 0 {
		return time.Time{}
	}
	if s < 0 || s > maxSeconds {
		c.corrupt("%s is second %d", what, s)
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}

// maxSeconds is the end of the year 9999, the last that a certificate can name.
const maxSeconds = 253402300799

// end returns the first fault, which bytes that are left over are.
func (c *cutter) end() error {
	if len(c.b) > 0 {
		c.newer("%d bytes behind the last field", len(c.b))
	}
	return c.err
}

func putMoment(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.LittleEndian.AppendUint64(b, 0)
	}
	return binary.LittleEndian.AppendUint64(b, uint64(t.Unix()))
}

func putSmall(b []byte, p string) []byte { return append(append(b, byte(len(p))), p...) }

func putLarge(b, p []byte) []byte {
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(p))), p...)
}

func putNames(b []byte, names []string) []byte {
	b = append(b, byte(len(names)))
	for _, n := range names {
		b = putSmall(b, n)
	}
	return b
}

// uid takes a UUID that is not zero.
func (c *cutter) uid(what string) (id uuid.UUID) {
	c.fill(id[:], what)
	if id == uuid.Nil {
		c.corrupt("%s is zero", what)
	}
	return id
}
