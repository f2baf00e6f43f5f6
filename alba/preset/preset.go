package preset

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"openvstorage/alba/ec"
	"openvstorage/alba/policy"
)

// Bounds of a preset.
const (
	NameMax      = 64
	BlockLog2Min = 12 // 4 KiB
	BlockLog2Max = 20 // 1 MiB
	InlineLimit  = 64 << 10
	ChunkMax     = 64 << 20
	ObjectMax    = 1 << 30
)

// Scheme is how an object's bytes become fragments. Every manifest has one.
type Scheme struct {
	Code        ec.ID       `json:"code"`
	Compression Compression `json:"compression"`
	Cipher      Cipher      `json:"cipher"`
	Checksum    Checksum    `json:"checksum"`
	BlockLog2   uint8       `json:"block_log2"` // of the size of an independent block in bytes
	Key         uint64      `json:"key"`        // which master key; 0 with no cipher
}

// BlockSize returns the size of a block in bytes.
func (s Scheme) BlockSize() int { return 1 << s.BlockLog2 }

// Validate returns ErrPreset unless this release can read and write the scheme.
func (s Scheme) Validate() error {
	switch {
	case s.Code != ec.Vandermonde:
		return fmt.Errorf("%w: code %d, this release knows %d", ErrPreset, s.Code, ec.Vandermonde)
	case s.Compression != CompressionNone && s.Compression != CompressionS2:
		return fmt.Errorf("%w: compression %v is not in this release; take none or s2", ErrPreset, s.Compression)
	case s.Cipher > CipherAES256GCM:
		return fmt.Errorf("%w: cipher %v is not in this release; take none or aes-256-gcm", ErrPreset, s.Cipher)
	case s.Checksum != ChecksumCRC32C:
		return fmt.Errorf("%w: checksum %v is not in this release; take crc-32c", ErrPreset, s.Checksum)
	case s.BlockLog2 < BlockLog2Min || s.BlockLog2 > BlockLog2Max:
		return fmt.Errorf("%w: blocks of 2^%d bytes; 2^%d to 2^%d are allowed", ErrPreset, s.BlockLog2, BlockLog2Min, BlockLog2Max)
	case (s.Cipher == CipherNone) != (s.Key == 0):
		return fmt.Errorf("%w: cipher %v with key %d; a cipher has a key above 0, and none has 0", ErrPreset, s.Cipher, s.Key)
	}
	return nil
}

// Preset is a storage profile.
type Preset struct {
	Name      string          `json:"name"`
	Version   uint64          `json:"version"`  // grows with each change
	Policies  []policy.Policy `json:"policies"` // best first
	Scheme    Scheme          `json:"scheme"`
	ChunkSize uint32          `json:"chunk_size"` // plain bytes; a multiple of the block size
	InlineMax uint32          `json:"inline_max"` // objects up to this size stay in their manifest
	ObjectMax uint64          `json:"object_max"` // larger objects are refused
}

// Default returns the built-in preset of a store on one machine with that many
// disks: policy.ForDisks, blocks of 32 KiB in chunks of 16 MiB, s2, no cipher,
// objects up to 16 KiB in their manifest.
func Default(disks int) Preset {
	return Preset{
		Name:     "default",
		Version:  1,
		Policies: policy.ForDisks(disks),
		Scheme: Scheme{
			Code: ec.Vandermonde, Compression: CompressionS2, Cipher: CipherNone, Checksum: ChecksumCRC32C, BlockLog2: 15,
		},
		ChunkSize: 16 << 20,
		InlineMax: 16 << 10,
		ObjectMax: 256 << 20,
	}
}

// Validate returns ErrPreset, or policy.ErrPolicy, with what is wrong.
func (p Preset) Validate() error {
	if !nameOK(p.Name) {
		return fmt.Errorf("%w: name %.70q; 1 to %d bytes of [a-z0-9-.] that begin with no dot", ErrPreset, p.Name, NameMax)
	}
	if err := p.Scheme.Validate(); err != nil {
		return fmt.Errorf("preset %s: %w", p.Name, err)
	}
	if err := policy.ValidateList(p.Policies); err != nil {
		return fmt.Errorf("preset %s: %w", p.Name, err)
	}
	switch {
	case p.Version == 0:
		return fmt.Errorf("%w: %s: version 0; the first is 1", ErrPreset, p.Name)
	case p.ChunkSize == 0 || p.ChunkSize > ChunkMax || p.ChunkSize&(1<<p.Scheme.BlockLog2-1) != 0:
		return fmt.Errorf("%w: %s: chunks of %d bytes; a multiple of the block size up to %d", ErrPreset, p.Name, p.ChunkSize, ChunkMax)
	case p.InlineMax > InlineLimit || p.InlineMax > p.ChunkSize:
		return fmt.Errorf("%w: %s: %d bytes in a manifest; at most %d, and no more than a chunk", ErrPreset, p.Name, p.InlineMax, InlineLimit)
	case p.ObjectMax < uint64(p.ChunkSize) || p.ObjectMax > ObjectMax || p.ObjectMax > 1024*uint64(p.ChunkSize):
		return fmt.Errorf("%w: %s: objects up to %d bytes; at least a chunk, at most 1024 chunks and %d bytes", ErrPreset, p.Name, p.ObjectMax, ObjectMax)
	}
	return nil
}

func nameOK(s string) bool {
	if len(s) == 0 || len(s) > NameMax || s[0] == '.' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// Equal reports whether two presets are the same in every field.
func (p Preset) Equal(o Preset) bool {
	return p.Name == o.Name && p.Version == o.Version && slices.Equal(p.Policies, o.Policies) && p.Scheme == o.Scheme &&
		p.ChunkSize == o.ChunkSize && p.InlineMax == o.InlineMax && p.ObjectMax == o.ObjectMax
}

// JSON returns the preset for people: indented, fields in a fixed order, a
// newline at the end.
func (p Preset) JSON() ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("preset %s: %w", p.Name, err)
	}
	return append(b, '\n'), nil
}

// ParseJSON reads what JSON or a person has written. An unknown field is an error.
func ParseJSON(b []byte) (Preset, error) {
	var p Preset
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return Preset{}, fmt.Errorf("%w: %v", ErrPreset, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Preset{}, fmt.Errorf("%w: there is something behind it", ErrPreset)
	}
	if err := p.Validate(); err != nil {
		return Preset{}, err
	}
	return p, nil
}
