package preset

import (
	"encoding/binary"
	"fmt"

	"openvstorage/alba/ec"
	"openvstorage/alba/policy"
	"openvstorage/internal/format"
)

// form is the version of the binary form.
const form = 1

const (
	headSize   = 40
	policySize = 4
	crcSize    = 4
)

// EncodedMax is the longest binary form in bytes.
const EncodedMax = headSize + NameMax + policy.MaxPolicies*policySize + crcSize

// Append appends the binary form to dst. It refuses a preset that is not
// valid.
func (p Preset) Append(dst []byte) ([]byte, error) {
	if err := p.Validate(); err != nil {
		return dst, err
	}
	at := len(dst)
	s := p.Scheme
	dst = append(dst, form, byte(len(p.Name)), byte(len(p.Policies)),
		byte(s.Code), byte(s.Compression), byte(s.Cipher), byte(s.Checksum), s.BlockLog2)
	dst = binary.LittleEndian.AppendUint64(dst, s.Key)
	dst = binary.LittleEndian.AppendUint64(dst, p.Version)
	dst = binary.LittleEndian.AppendUint64(dst, p.ObjectMax)
	dst = binary.LittleEndian.AppendUint32(dst, p.ChunkSize)
	dst = binary.LittleEndian.AppendUint32(dst, p.InlineMax)
	dst = append(dst, p.Name...)
	for _, q := range p.Policies {
		dst = append(dst, q.K, q.M, q.C, q.X)
	}
	return binary.LittleEndian.AppendUint32(dst, format.CRC(dst[at:])), nil
}

// Decode reads the binary form. Its error is format.ErrCorrupt for bytes that are
// damaged, format.ErrNewer for a newer form, and ErrPreset for a preset that is not
// valid in this release.
func Decode(b []byte) (Preset, error) {
	if len(b) > 0 && b[0] > form {
		return Preset{}, fmt.Errorf("%w: preset of form %d, this release reads up to %d", format.ErrNewer, b[0], form)
	}
	if len(b) < headSize+crcSize || b[0] != form {
		return Preset{}, fmt.Errorf("%w: %d bytes are no preset", format.ErrCorrupt, len(b))
	}
	n, policies := int(b[1]), int(b[2])
	if want := headSize + n + policies*policySize + crcSize; len(b) != want {
		return Preset{}, fmt.Errorf("%w: preset has %d bytes, not %d", format.ErrCorrupt, len(b), want)
	}
	end := len(b) - crcSize
	if got, want := format.CRC(b[:end]), binary.LittleEndian.Uint32(b[end:]); got != want {
		return Preset{}, fmt.Errorf("%w: CRC of a preset is %08x, not %08x", format.ErrCorrupt, got, want)
	}
	p := Preset{
		Name: string(b[headSize : headSize+n]),
		Scheme: Scheme{
			Code: ec.ID(b[3]), Compression: Compression(b[4]), Cipher: Cipher(b[5]), Checksum: Checksum(b[6]), BlockLog2: b[7],
			Key: binary.LittleEndian.Uint64(b[8:]),
		},
		Version:   binary.LittleEndian.Uint64(b[16:]),
		ObjectMax: binary.LittleEndian.Uint64(b[24:]),
		ChunkSize: binary.LittleEndian.Uint32(b[32:]),
		InlineMax: binary.LittleEndian.Uint32(b[36:]),
		Policies:  make([]policy.Policy, policies),
	}
	for i := range p.Policies {
		q := b[headSize+n+i*policySize:]
		p.Policies[i] = policy.Policy{K: q[0], M: q[1], C: q[2], X: q[3]}
	}
	if err := p.Validate(); err != nil {
		return Preset{}, err
	}
	return p, nil
}
