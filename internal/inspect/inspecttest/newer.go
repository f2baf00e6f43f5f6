package inspecttest

import (
	"bytes"
	"encoding/binary"

	"openvstorage/internal/format"
)

// Newer raises the version of a file that begins with the common header.
func Newer(b []byte) []byte {
	b = bytes.Clone(b)
	binary.LittleEndian.PutUint16(b[10:], 99)
	binary.LittleEndian.PutUint16(b[12:], 99)
	binary.LittleEndian.PutUint32(b[60:], format.CRC(b[:60]))
	return b
}
