package object

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"openvstorage/alba/manifest"
	"openvstorage/alba/preset"
	"openvstorage/backend"
)

// MasterKeySize is the length of a master key in bytes.
const MasterKeySize = 32

var (
	// ErrKey: the master key is missing, or is none.
	ErrKey = errors.New("no master key")
	// ErrSeal: a seal does not hold. The bytes match their checksums, so either the key
	// is another one, or somebody has forged bytes and checksums.
	ErrSeal = errors.New("the seal does not hold: other bytes, or another key")
)

// Kinds of block. Numbers are stored.
const (
	kindZero       = 0
	kindRaw        = 1
	kindCompressed = 2
	kindTable      = 3 // in additional data only
)

const (
	tableBlock    = 0xffffffff // stands for the block in the table's nonce
	tableFragment = 0xfffffffe // stands for the fragment in the table's seed
	keyInfo       = "openvstorage object 1"
	tagSize       = manifest.SealOverhead
)

// sealer seals and opens the blocks of one object. With no cipher its aead is
// nil. nonce and aad lie here and not on the stack, because what is handed to
// an interface escapes.
type sealer struct {
	aead  cipher.AEAD
	nonce [12]byte
	aad   [37]byte
}

// init sets the sealer for an object.
func (s *sealer) init(scheme preset.Scheme, namespace uint64, id manifest.ObjectID, master []byte) error {
	s.aead = nil
	if scheme.Cipher == preset.CipherNone {
		return nil
	}
	if len(master) != MasterKeySize {
		return fmt.Errorf("%w: object %v is sealed with key %d, which has %d bytes and not %d", ErrKey, id, scheme.Key, len(master), MasterKeySize)
	}
	key, err := hkdf.Key(sha256.New, master, id[:], keyInfo, 32)
	if err != nil {
		return fmt.Errorf("key of object %v: %w", id, err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return fmt.Errorf("key of object %v: %w", id, err)
	}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		return fmt.Errorf("key of object %v: %w", id, err)
	}
	binary.BigEndian.PutUint64(s.aad[0:], namespace)
	copy(s.aad[8:], id[:])
	return nil
}

// KeyCheckSize is the length of a check value in bytes.
const KeyCheckSize = 32

// keyCheckInfo sets check values apart from the keys of objects.
const keyCheckInfo = "openvstorage key check 1"

// KeyCheck returns the check value of a master key in a backend. Equal keys have equal
// values, different keys different ones, and the key cannot be derived from its value.
// The value of a key differs from backend to backend.
func KeyCheck(master []byte, backend [16]byte) (check [KeyCheckSize]byte, err error) {
	if len(master) != MasterKeySize {
		return check, fmt.Errorf("%w: %d bytes, not %d", ErrKey, len(master), MasterKeySize)
	}
	b, err := hkdf.Key(sha256.New, master, backend[:], keyCheckInfo, len(check))
	copy(check[:], b)
	return check, err
}

// overhead returns what sealing adds to a block.
func (s *sealer) overhead() uint32 {
	if s.aead == nil {
		return 0
	}
	return tagSize
}

func (s *sealer) place(chunk, block uint32, kind byte, length int) {
	be := binary.BigEndian
	be.PutUint32(s.nonce[0:], chunk)
	be.PutUint32(s.nonce[4:], block)
	be.PutUint32(s.aad[24:], chunk)
	be.PutUint32(s.aad[28:], block)
	be.PutUint32(s.aad[32:], uint32(length))
	s.aad[36] = kind
}

// seal appends p to dst, sealed if there is a cipher. length is the number of
// plain bytes of the block.
func (s *sealer) seal(dst, p []byte, chunk, block uint32, kind byte, length int) []byte {
	if s.aead == nil {
		return append(dst, p...)
	}
	s.place(chunk, block, kind, length)
	return s.aead.Seal(dst, s.nonce[:], p, s.aad[:])
}

// open appends what p holds to dst.
func (s *sealer) open(dst, p []byte, chunk, block uint32, kind byte, length int) ([]byte, error) {
	if s.aead == nil {
		return append(dst, p...), nil
	}
	s.place(chunk, block, kind, length)
	out, err := s.aead.Open(dst, s.nonce[:], p, s.aad[:])
	if err != nil {
		return dst, fmt.Errorf("%w: block %d of chunk %d: %w", backend.ErrCorrupt, int32(block), chunk, ErrSeal)
	}
	return out, nil
}
