package manifest

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// KeySize is the length of a fragment's key.
const KeySize = 34

// Letters that begin keys. Other letters are free for what else an OSD may hold: a release
// leaves alone what is under a letter that it does not know. 'r' is for recovery records
// (package records), which hold what it takes to rebuild the manifest.
const (
	keyFragment = 'o'
	keyRecovery = 'r'
)

// ErrKey is the error for bytes that are not a fragment's key.
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

// AppendRecovery appends the key of the recovery record that lies beside the fragment: the
// fragment's key under another letter. So whoever has the one key has the other.
func (k Key) AppendRecovery(dst []byte) []byte {
	at := len(dst)
	dst = k.Append(dst)
	dst[at] = keyRecovery
	return dst
}

// ParseRecoveryKey reads what AppendRecovery wrote.
func ParseRecoveryKey(b []byte) (Key, error) {
	if len(b) != KeySize || b[0] != keyRecovery {
		return Key{}, fmt.Errorf("%w of a recovery record: % .40x", ErrKey, b)
	}
	var of [KeySize]byte
	copy(of[:], b)
	of[0] = keyFragment
	return ParseKey(of[:])
}

// inlineChunk stands for the chunk in the key of an inline object's record.
const inlineChunk = 0xffffffff

// InlineKey is the key of the recovery record of the inline object with a name. It has, in
// place of an object id, the beginning of the name's SHA-256: each version of the object is
// written over the one before.
func InlineKey(namespace uint64, name string) Key {
	sum := sha256.Sum256([]byte(name))
	return Key{Namespace: namespace, Object: ObjectID(sum[:16]), Chunk: inlineChunk}
}

// Inline reports whether the key is one of an inline object's record.
func (k Key) Inline() bool { return k.Chunk == inlineChunk }
