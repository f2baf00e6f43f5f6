package preset

import (
	"errors"
	"fmt"
)

// ErrPreset says that something is no preset, or one that this release does not know.
var ErrPreset = errors.New("not a preset")

// Compression names how a block is compressed. Numbers are stored.
type Compression uint8

// Compressions. ZSTD and LZ4 have their numbers and are not offered yet.
const (
	CompressionNone Compression = 0
	CompressionS2   Compression = 1
	CompressionZSTD Compression = 2
	CompressionLZ4  Compression = 3
)

// Cipher names how a block is sealed. Numbers are stored, and grow with strength: a
// manifest whose cipher is below that of its namespace's preset is refused.
type Cipher uint8

// Ciphers.
const (
	CipherNone      Cipher = 0
	CipherAES256GCM Cipher = 1
)

// Checksum names the checksum of 4 KiB of a fragment. Numbers are stored.
type Checksum uint8

// ChecksumCRC32C is CRC-32C, seeded with the object, chunk, fragment and
// block. There is no "none".
const ChecksumCRC32C Checksum = 1

var (
	compressions = []string{"none", "s2", "zstd", "lz4"}
	ciphers      = []string{"none", "aes-256-gcm"}
	checksums    = []string{"", "crc-32c"}
)

func name(names []string, id uint8) string {
	if int(id) < len(names) && names[id] != "" {
		return names[id]
	}
	return fmt.Sprintf("unknown-%d", id)
}

func find(kind string, names []string, text []byte) (uint8, error) {
	for id, n := range names {
		if n != "" && n == string(text) {
			return uint8(id), nil
		}
	}
	return 0, fmt.Errorf("%w: there is no %s %.40q", ErrPreset, kind, text)
}

func (c Compression) String() string { return name(compressions, uint8(c)) }
func (c Cipher) String() string      { return name(ciphers, uint8(c)) }
func (c Checksum) String() string    { return name(checksums, uint8(c)) }

// MarshalText returns the name.
func (c Compression) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalText returns the name.
func (c Cipher) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalText returns the name.
func (c Checksum) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText finds the name.
func (c *Compression) UnmarshalText(text []byte) error {
	id, err := find("compression", compressions, text)
	*c = Compression(id)
	return err
}

// UnmarshalText finds the name.
func (c *Cipher) UnmarshalText(text []byte) error {
	id, err := find("cipher", ciphers, text)
	*c = Cipher(id)
	return err
}

// UnmarshalText finds the name.
func (c *Checksum) UnmarshalText(text []byte) error {
	id, err := find("checksum", checksums, text)
	*c = Checksum(id)
	return err
}
