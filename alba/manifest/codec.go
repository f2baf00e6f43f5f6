package manifest

import (
	"encoding/binary"
	"fmt"

	"openvstorage/alba/ec"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/internal/format"
)

// Format is the version of the encoding.
const Format = 1

const (
	headSize     = 88
	chunkSize    = 16
	fragmentSize = 20
	crcSize      = 4

	layoutInline = 0
	layoutEC     = 1

	flagDense = 1
)

// EncodedSize returns the length of the encoded form.
func (m *Manifest) EncodedSize() int {
	n := headSize + len(m.Name) + len(m.Inline) + 4*len(m.CRCs) + crcSize
	for i := range m.Chunks {
		n += chunkSize + fragmentSize*len(m.Chunks[i].Fragments)
	}
	return n
}

// Append appends the encoded form to dst. It refuses a manifest that is not
// valid.
func (m *Manifest) Append(dst []byte) ([]byte, error) {
	if err := m.Validate(); err != nil {
		return dst, err
	}
	at := len(dst)
	layout, s := byte(layoutEC), m.Scheme
	if m.Inlined {
		layout = layoutInline
	}
	dst = append(dst, Format, layout, m.Policy.K, m.Policy.M, m.Policy.C, m.Policy.X,
		byte(s.Code), byte(s.Compression), byte(s.Cipher), byte(s.Checksum), s.BlockLog2, 0)
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, m.Revision)
	dst = le.AppendUint64(dst, s.Key)
	dst = le.AppendUint64(dst, m.Namespace)
	dst = append(dst, m.Object[:]...)
	dst = le.AppendUint64(dst, m.Size)
	dst = le.AppendUint64(dst, m.Version)
	dst = le.AppendUint64(dst, uint64(m.Time))
	dst = le.AppendUint64(dst, m.Epoch)
	dst = append(dst, byte(len(m.Name)), 0)
	dst = le.AppendUint16(dst, uint16(len(m.Chunks)))
	dst = le.AppendUint32(dst, uint32(len(m.Inline)))
	dst = append(dst, m.Name...)
	for i := range m.Chunks {
		dst = m.Chunks[i].append(dst)
	}
	dst = append(dst, m.Inline...)
	for _, crc := range m.CRCs {
		dst = le.AppendUint32(dst, crc)
	}
	return le.AppendUint32(dst, format.CRC(dst[at:])), nil
}

func (c *Chunk) append(dst []byte) []byte {
	flags := byte(0)
	if c.Dense {
		flags = flagDense
	}
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, c.Plain)
	dst = le.AppendUint32(dst, c.Stored)
	dst = le.AppendUint32(dst, c.Shard)
	dst = append(dst, flags, byte(len(c.Fragments)), 0, 0)
	for _, f := range c.Fragments {
		dst = le.AppendUint64(dst, f.OSD)
		dst = le.AppendUint32(dst, f.Version)
		dst = le.AppendUint32(dst, f.Length)
		dst = le.AppendUint32(dst, f.CRC)
	}
	return dst
}

func corrupt(text string, args ...any) error {
	return fmt.Errorf("%w: manifest: %s", format.ErrCorrupt, fmt.Sprintf(text, args...))
}

// newer is the error for bytes of a newer release: their CRC is right, and this release
// would lose them when it writes the manifest anew.
func newer(text string, args ...any) error {
	return fmt.Errorf("%w: manifest: %s", format.ErrNewer, fmt.Sprintf(text, args...))
}

// Decode reads an encoded manifest, which is all of b, and keeps nothing of b. What Append
// would not have written is format.ErrCorrupt. A newer format, or an id that this release
// does not know, is format.ErrNewer.
func Decode(b []byte) (*Manifest, error) {
	if len(b) > 0 && b[0] > Format {
		return nil, fmt.Errorf("%w: manifest of format %d, this release reads up to %d", format.ErrNewer, b[0], Format)
	}
	if len(b) < headSize+crcSize || len(b) > EncodedMax || b[0] != Format {
		return nil, corrupt("%d bytes are none", len(b))
	}
	end := len(b) - crcSize
	if got, want := format.CRC(b[:end]), binary.LittleEndian.Uint32(b[end:]); got != want {
		return nil, corrupt("CRC is %08x, not %08x", got, want)
	}
	le := binary.LittleEndian
	m := &Manifest{
		Policy: policy.Policy{K: b[2], M: b[3], C: b[4], X: b[5]},
		Scheme: preset.Scheme{
			Code: ec.ID(b[6]), Compression: preset.Compression(b[7]), Cipher: preset.Cipher(b[8]), Checksum: preset.Checksum(b[9]),
			BlockLog2: b[10], Key: le.Uint64(b[16:]),
		},
		Inlined:   b[1] == layoutInline,
		Revision:  le.Uint32(b[12:]),
		Namespace: le.Uint64(b[24:]),
		Object:    ObjectID(b[32:48]),
		Size:      le.Uint64(b[48:]),
		Version:   le.Uint64(b[56:]),
		Time:      int64(le.Uint64(b[64:])),
		Epoch:     le.Uint64(b[72:]),
	}
	name, chunks, inline := int(b[80]), int(le.Uint16(b[82:])), int(le.Uint32(b[84:]))
	if b[1] > layoutEC || b[11] != 0 || b[81] != 0 {
		return nil, newer("layout %d, %#x and %#x in bytes that are zero today", b[1], b[11], b[81])
	}
	if err := m.Scheme.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %v", format.ErrNewer, err)
	}
	rest := b[headSize:end]
	if name > len(rest) {
		return nil, corrupt("a name of %d bytes in %d", name, len(rest))
	}
	m.Name, rest = string(rest[:name]), rest[name:]
	rest, err := m.decodeChunks(rest, chunks)
	if err != nil {
		return nil, err
	}
	if err := m.decodeInline(rest, inline); err != nil {
		return nil, err
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %v", format.ErrCorrupt, err)
	}
	return m, nil
}

// decodeChunks checks that there are bytes for all chunks and fragments before
// it makes room for them.
func (m *Manifest) decodeChunks(b []byte, n int) (rest []byte, err error) {
	width := m.Policy.Width()
	if m.Inlined {
		width = 0
	}
	each := chunkSize + fragmentSize*width
	if n > MaxChunks || n*each > len(b) {
		return nil, corrupt("%d chunks of %d fragments in %d bytes", n, width, len(b))
	}
	if n == 0 {
		return b, nil
	}
	m.Chunks = make([]Chunk, n)
	fragments := make([]Fragment, n*width)
	le := binary.LittleEndian
	for i := range m.Chunks {
		c := b[i*each : (i+1)*each]
		if unknown := c[12] &^ flagDense; unknown != 0 || c[14] != 0 || c[15] != 0 {
			return nil, newer("chunk %d has flags %#x, and %#x and %#x in bytes that are zero today", i, unknown, c[14], c[15])
		}
		if int(c[13]) != width {
			return nil, corrupt("chunk %d has %d fragments", i, c[13])
		}
		m.Chunks[i] = Chunk{Plain: le.Uint32(c), Stored: le.Uint32(c[4:]), Shard: le.Uint32(c[8:]), Dense: c[12]&flagDense != 0}
		if width == 0 {
			continue
		}
		m.Chunks[i].Fragments = fragments[i*width : (i+1)*width : (i+1)*width]
		for j := range m.Chunks[i].Fragments {
			f := c[chunkSize+j*fragmentSize:]
			m.Chunks[i].Fragments[j] = Fragment{OSD: le.Uint64(f), Version: le.Uint32(f[8:]), Length: le.Uint32(f[12:]), CRC: le.Uint32(f[16:])}
		}
	}
	return b[n*each:], nil
}

func (m *Manifest) decodeInline(b []byte, n int) error {
	if n > len(b) {
		return corrupt("%d inline bytes in %d", n, len(b))
	}
	crcs := (n + ShardAlign - 1) / ShardAlign
	if len(b) != n+4*crcs {
		return corrupt("%d bytes where %d are inline with %d CRCs", len(b), n, crcs)
	}
	if n == 0 {
		return nil
	}
	m.Inline = append([]byte(nil), b[:n]...)
	m.CRCs = make([]uint32, crcs)
	for i := range m.CRCs {
		m.CRCs[i] = binary.LittleEndian.Uint32(b[n+4*i:])
	}
	return nil
}
