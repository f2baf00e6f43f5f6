package manifest

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// KeySize is the length of a fragment's key.
const KeySize = 34

// keyFragment begins the keys of fragments; other letters are free for what
// else an OSD may hold.
const keyFragment = 'o'

// ErrKey: it is no fragment's key.
var ErrKey = errors.New("not a fragment key")

// Key names a fragment on an OSD.
type Key struct {
	Namespace uint64
	Object    ObjectID
	Chunk     uint32
	Fragment  uint8
	Version   uint32
}

// String returns the key for people.
func (k Key) String() string {
	return fmt.Sprintf("%d/%v/%d.%d v%d", k.Namespace, k.Object, k.Chunk, k.Fragment, k.Version)
}

// Append appends the key's bytes, which sort as the fields do.
func (k Key) Append(dst []byte) []byte {
	dst = append(dst, keyFragment)
	dst = binary.BigEndian.AppendUint64(dst, k.Namespace)
	dst = append(dst, k.Object[:]...)
	dst = binary.BigEndian.AppendUint32(dst, k.Chunk)
	dst = append(dst, k.Fragment)
	return binary.BigEndian.AppendUint32(dst, k.Version)
}

// ParseKey reads what Append wrote.
func ParseKey(b []byte) (Key, error) {
	if len(b) != KeySize || b[0] != keyFragment {
		return Key{}, fmt.Errorf("%w: % .40x", ErrKey, b)
	}
	return Key{
		Namespace: binary.BigEndian.Uint64(b[1:]),
		Object:    ObjectID(b[9:25]),
		Chunk:     binary.BigEndian.Uint32(b[25:]),
		Fragment:  b[29],
		Version:   binary.BigEndian.Uint32(b[30:]),
	}, nil
}
