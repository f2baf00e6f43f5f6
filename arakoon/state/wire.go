package state

import (
	"encoding/binary"
	"errors"
	"fmt"

	"openvstorage/internal/format"
)

// Limits in bytes, the same on every member.
const (
	KeyMax      = 16 << 10
	ValueMax    = 8 << 20
	CommandMax  = 16 << 20 // encoded
	EffectsMax  = 64 << 20 // keys and values that one command writes
	ResultMax   = 64 << 10 // of a result kept for a retry
	SessionsMax = 4096
	MultiGetMax = 24 << 20 // of the values that one MultiGet returns
)

// ErrCorrupt is matched by the error for bytes that are no command.
var ErrCorrupt = errors.New("command corrupt")

// ErrNewer is matched by the error for a command, or for something stored, that a newer
// release has written. The member stops, and must be upgraded.
var ErrNewer = fmt.Errorf("command or state: %w", format.ErrNewer)

func appendBytes(dst, b []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(dst, uint32(len(b))), b...)
}

func appendOption(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 0)
	}
	return appendBytes(append(dst, 1), b)
}

// reader takes fields off the front of bytes. After a field that is bad err stays set, and
// all later fields are zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n uint64) []byte {
	if r.err == nil && n > uint64(len(r.b)) {
		r.err = fmt.Errorf("%w: %d bytes are needed, %d are left", ErrCorrupt, n, len(r.b))
	}
	if r.err != nil {
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) bytes() []byte { return r.take(uint64(r.u32())) }

func (r *reader) option() []byte {
	switch r.u8() {
	case 0:
		return nil
	case 1:
		if b := r.bytes(); b != nil {
			return b
		}
		return []byte{}
	}
	r.fail("an option is neither there nor absent")
	return nil
}

func (r *reader) flag() bool {
	v := r.u8()
	if v > 1 {
		r.fail("a flag is %d", v)
	}
	return v == 1
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
	}
}

func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	return r.err
}

func appendU32(dst []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(dst, v) }

func appendU64(dst []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(dst, v) }

func appendFlag(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}
