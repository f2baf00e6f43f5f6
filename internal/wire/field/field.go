// Package field reads the fields of a message, one after the other. All numbers are
// little-endian.
package field

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed is matched by the error of a Reader: the bytes are no message of the protocol.
var ErrMalformed = errors.New("malformed")

// Reader reads a message. The first field that is not there, or is not what it may be, makes Err;
// from then on every field is zero. It copies nothing: what Take returns is part of the message.
type Reader struct {
	Rest []byte // what was not read yet
	Err  error
}

// Take reads n bytes, nil if they are not there.
func (f *Reader) Take(n int) []byte {
	if f.Err != nil || n < 0 || n > len(f.Rest) {
		if f.Err == nil {
			f.Err = fmt.Errorf("%w: %d bytes are missing", ErrMalformed, n-len(f.Rest))
		}
		return nil
	}
	p := f.Rest[:n:n]
	f.Rest = f.Rest[n:]
	return p
}

// U8 reads a byte.
func (f *Reader) U8() uint8 {
	if p := f.Take(1); p != nil {
		return p[0]
	}
	return 0
}

// U16 reads two bytes.
func (f *Reader) U16() uint16 {
	if p := f.Take(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

// U32 reads four bytes.
func (f *Reader) U32() uint32 {
	if p := f.Take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

// U64 reads eight bytes.
func (f *Reader) U64() uint64 {
	if p := f.Take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

// Flag reads a byte that is 0 or 1.
func (f *Reader) Flag() bool {
	v := f.U8()
	if v > 1 && f.Err == nil {
		f.Err = fmt.Errorf("%w: %d is neither yes nor no", ErrMalformed, v)
	}
	return v == 1
}

// End returns what was wrong, bytes that are left among it.
func (f *Reader) End() error {
	if f.Err == nil && len(f.Rest) > 0 {
		f.Err = fmt.Errorf("%w: %d bytes too many", ErrMalformed, len(f.Rest))
	}
	return f.Err
}
